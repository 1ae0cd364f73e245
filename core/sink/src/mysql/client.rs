//! The one connection of a writer, and transactions that own it.
//!
//! In: where the server is. Out: transactions. Promise: one that is dropped before its end (an error, a cancelled future, no
//! answer in time) takes the connection with it, so nothing is ever written inside somebody else's open transaction; the
//! server undoes it and lets its locks go. sqlx's own `begin` is not used: cancelling it leaves a transaction open. A server
//! that cannot keep the promises (commits that are not synced, a replica) is refused before anything is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection, Row as _};

use super::dialect::Dialect;
use super::error::{Cause, MySqlError, OnlyMySql, ServerFault, cause, undone_by_commit};
use crate::address::{Address, Place, secret};
use crate::prompt::send_at_once;
use crate::stats::SinkStats;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server stops a statement at its own limit; a server that says nothing at all for so much longer is gone.
const GRACE: Duration = Duration::from_secs(5);

const ABOUT_SERVER: &str = "SELECT CAST(@@version AS CHAR), CAST(@@global.read_only AS SIGNED), \
CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@log_bin AS SIGNED), CAST(@@sync_binlog AS SIGNED), \
CAST(@@max_allowed_packet AS SIGNED), CAST(database() AS CHAR)";

/// What the session must not inherit: whatever the server's defaults are, a value that does not fit is an error, 0 is a number
/// and not the next one of a sequence, and COMMIT ends the transaction and nothing else.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,\
ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO', autocommit = 1, \
completion_type = 'NO_CHAIN', time_zone = '+00:00', foreign_key_checks = 1, unique_checks = 1, ";

#[derive(Debug)]
pub(crate) struct Client {
    address: Address<MySqlConnectOptions>,
    /// The table's own database, where it names one.
    database: Option<String>,
    password_file: Option<PathBuf>,
    statement_timeout: Duration,
    place: String,
    stats: Arc<SinkStats>,
    idle: Option<Transaction>,
}

/// What is known of a server once it is connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pub(crate) dialect: Dialect,
    /// The most bytes of a statement.
    pub(crate) max_packet: usize,
}

/// An open transaction. Dropping it closes the connection, which rolls it back.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) connection: MySqlConnection,
    pub(crate) server: Server,
}

impl Client {
    pub(crate) fn new(
        address: Address<MySqlConnectOptions>,
        database: Option<String>,
        password_file: Option<PathBuf>,
        statement_timeout: Duration,
    ) -> Self {
        let place = address.place();
        let stats = Arc::default();
        Self { address, database, password_file, statement_timeout, place, stats, idle: None }
    }

    /// Counts its connections there.
    pub(crate) fn counted(self, stats: &Arc<SinkStats>) -> Self {
        Self { stats: Arc::clone(stats), ..self }
    }

    /// An error of this server, with what was being done.
    pub(crate) fn error(&self, action: &'static str, source: sqlx::Error) -> MySqlError {
        MySqlError::Database { action, place: self.place.clone(), source }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Waits for the server, but not for ever: a connection can die without a word.
    pub(crate) async fn within<T>(
        &self,
        action: &'static str,
        asked: impl Future<Output = Result<T, sqlx::Error>> + Send,
    ) -> Result<T, MySqlError> {
        let limit = self.statement_timeout + GRACE;
        match tokio::time::timeout(limit, asked).await {
            Ok(done) => done.map_err(|source| self.error(action, source)),
            Err(_) => Err(MySqlError::Silent { action, place: self.place.clone(), limit }),
        }
    }

    /// Begins a transaction. A connection that died while it was idle is replaced: nothing was asked of it yet.
    pub(crate) async fn begin(&mut self) -> Result<Transaction, MySqlError> {
        if let Some(idle) = self.idle.take() {
            match self.begun(idle).await {
                Err(MySqlError::Database { source, .. }) if died(&source) => {}
                begun => return begun,
            }
        }
        let opened = self.open().await?;
        self.begun(opened).await
    }

    async fn begun(&self, mut opened: Transaction) -> Result<Transaction, MySqlError> {
        let asked = sqlx::raw_sql("START TRANSACTION").execute(&mut opened.connection);
        self.within("begin a transaction", asked).await?;
        Ok(opened)
    }

    /// Commits. Unless the server says clearly that everything is undone, nobody knows whether it is in.
    pub(crate) async fn commit(&mut self, mut transaction: Transaction) -> Result<(), MySqlError> {
        let asked = sqlx::raw_sql("COMMIT").execute(&mut transaction.connection);
        let source = match self.within("commit", asked).await {
            Ok(_) => {
                self.idle = Some(transaction);
                return Ok(());
            }
            Err(MySqlError::Database { source, .. }) if undone_by_commit(&source) => {
                return Err(self.error("commit", source));
            }
            Err(MySqlError::Database { source, .. }) => source,
            Err(MySqlError::Silent { limit, .. }) => {
                let why = format!("no answer within {limit:?}");
                std::io::Error::new(std::io::ErrorKind::TimedOut, why).into()
            }
            Err(error) => return Err(error),
        };
        Err(MySqlError::CommitUnknown { place: self.place.clone(), source })
    }

    /// Undoes everything. When even that fails the connection is closed, which undoes it too.
    pub(crate) async fn rollback(&mut self, mut transaction: Transaction) {
        let asked = sqlx::raw_sql("ROLLBACK").execute(&mut transaction.connection);
        if self.within("roll back", asked).await.is_ok() {
            self.idle = Some(transaction);
        }
    }

    async fn open(&mut self) -> Result<Transaction, MySqlError> {
        let mut options = self.address.read()?;
        if let Some(path) = &self.password_file {
            options = options.password(&secret(path)?);
        }
        self.place = options.place();
        let options = options.disable_statement_logging();
        let port = options.get_socket().is_none().then(|| options.get_port());
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
        let mut connection = match opened {
            Ok(Err(sqlx::Error::Configuration(_))) => {
                let (place, why) = (self.place.clone(), ServerFault::NeedsTls);
                return Err(OnlyMySql::Server { place, why }.into());
            }
            Ok(opened) => opened.map_err(|source| self.error("connect", source))?,
            Err(_) => {
                let (action, place) = ("connect", self.place.clone());
                return Err(MySqlError::Silent { action, place, limit: CONNECT_TIMEOUT });
            }
        };
        if let Some(port) = port {
            // Where it cannot be had, statements of more than one TLS record take longer and nothing else changes.
            send_at_once(port).await;
        }
        let server = self.settle(&mut connection).await?;
        self.stats.connected();
        Ok(Transaction { connection, server })
    }

    /// Looks whether the server can keep the promises, and sets what the session must not inherit.
    async fn settle(&self, connection: &mut MySqlConnection) -> Result<Server, MySqlError> {
        const ACTION: &str = "look at the server's settings";
        let asked = sqlx::query(ABOUT_SERVER).fetch_one(&mut *connection);
        let about = self.within(ACTION, asked).await?;
        let number = |i: usize| about.try_get::<i64, _>(i).map_err(|e| self.error(ACTION, e));
        let version: String = about.try_get(0).map_err(|e| self.error(ACTION, e))?;
        let database: Option<String> = about.try_get(6).map_err(|e| self.error(ACTION, e))?;
        let (dialect, found) = Dialect::of(&version);
        let fault = if found < dialect.oldest() {
            Some(ServerFault::Version { found: version, dialect })
        } else if number(1)? != 0 {
            Some(ServerFault::ReadOnly)
        } else if number(2)? != 1 {
            Some(ServerFault::NotSynced { found: number(2)? })
        } else if number(3)? != 0 && number(4)? != 1 {
            Some(ServerFault::BinlogNotSynced { found: number(4)? })
        } else if database.is_none() && self.database.is_none() {
            Some(ServerFault::NoDatabase)
        } else {
            None
        };
        if let Some(why) = fault {
            return Err(OnlyMySql::Server { place: self.place.clone(), why }.into());
        }
        let limits = dialect.limits(self.statement_timeout.as_secs());
        let settings = format!(
            "{SESSION}{limits}; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION TRANSACTION READ WRITE"
        );
        let asked = sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection);
        self.within("set the session's limits", asked).await?;
        let max_packet = usize::try_from(number(5)?).unwrap_or(usize::MAX);
        Ok(Server { dialect, max_packet })
    }
}

/// Whether the connection is what failed, not what was asked of it.
fn died(error: &sqlx::Error) -> bool {
    use garam_stage::FailureKind::Unreachable;
    cause(error) == Cause::Failure(Unreachable)
}

impl Place for MySqlConnectOptions {
    const SCHEMES: [&'static str; 2] = ["mysql://", "mariadb://"];

    fn place(&self) -> String {
        let database = self.get_database().unwrap_or("");
        match self.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", self.get_host(), self.get_port()),
        }
    }
}
