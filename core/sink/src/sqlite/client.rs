//! The one connection of a writer, and transactions that own it.
//!
//! Promise: a transaction that is dropped before its end (an error, a cancelled future) takes the connection with it, so
//! nothing is ever written inside somebody else's open transaction. sqlx's own `begin` is not used: cancelling it leaves
//! a transaction open.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};

use super::error::{SqliteError, code, primary_code};

/// How long a statement waits for another writer of the file: longer than any transaction of an older owner that is
/// being closed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Client {
    path: PathBuf,
    connection: Option<SqliteConnection>,
}

/// An open transaction. Dropping it closes the connection, which rolls it back.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) connection: SqliteConnection,
}

impl Client {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, connection: None }
    }

    /// An error of this database, with what was being done.
    pub(crate) fn error(&self, action: &'static str, source: sqlx::Error) -> SqliteError {
        SqliteError::Database { action, path: self.path.clone(), source }
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Begins a transaction that holds the write lock from its first statement on.
    pub(crate) async fn begin(&mut self) -> Result<Transaction, SqliteError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut connection)
            .await
            .map_err(|source| self.error("begin a transaction", source))?;
        Ok(Transaction { connection })
    }

    /// Commits. After an error other than contention nobody knows whether it is in.
    pub(crate) async fn commit(&mut self, mut transaction: Transaction) -> Result<(), SqliteError> {
        match sqlx::query("COMMIT").execute(&mut transaction.connection).await {
            Ok(_) => {
                self.connection = Some(transaction.connection);
                Ok(())
            }
            // SQLite keeps the transaction open after SQLITE_BUSY; dropping it here rolls it back.
            Err(source) if primary_code(&source) == Some(code::BUSY) => {
                Err(self.error("commit", source))
            }
            Err(source) => Err(SqliteError::CommitUnknown { path: self.path.clone(), source }),
        }
    }

    /// Undoes everything. When even that fails the connection is closed, which undoes it too.
    pub(crate) async fn rollback(&mut self, mut transaction: Transaction) {
        if sqlx::query("ROLLBACK").execute(&mut transaction.connection).await.is_ok() {
            self.connection = Some(transaction.connection);
        }
    }

    async fn open(&self) -> Result<SqliteConnection, SqliteError> {
        self.check_folder()?;
        let options = self.options().create_if_missing(true).synchronous(SqliteSynchronous::Full);
        let mut connection = self.connect(options, true).await?;
        enter_wal(&mut connection)
            .await
            .map_err(|source| self.error("switch on the write-ahead log", source))?;
        Ok(connection)
    }

    /// A connection that can change nothing.
    pub(crate) async fn open_read_only(&self) -> Result<SqliteConnection, SqliteError> {
        self.connect(self.options().read_only(true).pragma("query_only", "ON"), false).await
    }

    async fn connect(
        &self,
        options: SqliteConnectOptions,
        create: bool,
    ) -> Result<SqliteConnection, SqliteError> {
        options.connect().await.map_err(|source| match primary_code(&source) {
            Some(code::CANTOPEN) => self.why_not_open(source, create),
            _ => self.error("open the database", source),
        })
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(BUSY_TIMEOUT)
            // What a table references is the operator's; SQLite's own default.
            .foreign_keys(false)
            .disable_statement_logging()
    }

    /// SQLite says "unable to open database file" for every cause; the operating system knows better.
    fn why_not_open(&self, source: sqlx::Error, create: bool) -> SqliteError {
        let mut options = std::fs::OpenOptions::new();
        let opened = options.read(true).write(true).create(create).open(&self.path);
        match opened {
            Err(os) => SqliteError::Open { path: self.path.clone(), source: os },
            Ok(_) => self.error("open the database", source),
        }
    }

    pub(crate) fn file_exists(&self) -> Result<bool, SqliteError> {
        self.path
            .try_exists()
            .map_err(|source| SqliteError::Open { path: self.path.clone(), source })
    }

    /// The folder is the operator's to make: a typing error must not grow a tree of folders.
    pub(crate) fn check_folder(&self) -> Result<(), SqliteError> {
        let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty())
        else {
            return Ok(());
        };
        let found = std::fs::metadata(folder).and_then(|metadata| match metadata.is_dir() {
            true => Ok(()),
            false => Err(std::io::ErrorKind::NotADirectory.into()),
        });
        found.map_err(|error| {
            let why = format!("folder {}: {error}: create it first", folder.display());
            let source = std::io::Error::new(error.kind(), why);
            SqliteError::Open { path: self.path.clone(), source }
        })
    }
}

/// Where two pipelines make one file at the same moment SQLite gives one of them up at once instead of letting it wait for
/// the other's switch, so the waiting is done here.
async fn enter_wal(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let deadline = tokio::time::Instant::now() + BUSY_TIMEOUT;
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await {
            Err(error)
                if primary_code(&error) == Some(code::BUSY)
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => return done.map(|_| ()),
        }
    }
}
