//! The one connection of a writer, and transactions that own it.
//!
//! In: where the server is. Out: transactions. Promise: one that is dropped before its end (an error, a cancelled future, no
//! answer in time) takes the connection with it, so nothing is ever written inside somebody else's open transaction; the
//! server undoes it and lets its locks go. sqlx's own `begin` is not used: cancelling it leaves a transaction open. A server
//! that cannot keep the promises (no fsync, a standby) is refused before anything is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};

use super::error::{Cause, OnlyPostgres, PostgresError, ServerFault, cause, undone_by_commit};
use crate::address::{Address, Place, secret};
use crate::prompt::send_at_once;
use crate::stats::SinkStats;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server stops a statement at its own limit; a server that says nothing at all for so much longer is gone.
const GRACE: Duration = Duration::from_secs(5);

const ABOUT_SERVER: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), \
current_setting('fsync'), current_setting('synchronous_commit'), current_setting('server_encoding'), \
current_setting('server_version_num')::int4";

#[derive(Debug)]
pub(crate) struct Client {
    address: Address<PgConnectOptions>,
    password_file: Option<PathBuf>,
    statement_timeout: Duration,
    place: String,
    stats: Arc<SinkStats>,
    idle: Option<Transaction>,
}

/// An open transaction. Dropping it closes the connection, which rolls it back.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) connection: PgConnection,
    /// Whether a short message behind another one goes out at once.
    pub(crate) prompt: bool,
}

impl Client {
    pub(crate) fn new(
        address: Address<PgConnectOptions>,
        password_file: Option<PathBuf>,
        statement_timeout: Duration,
    ) -> Self {
        let place = address.place();
        let stats = Arc::default();
        Self { address, password_file, statement_timeout, place, stats, idle: None }
    }

    /// Counts its connections there.
    pub(crate) fn counted(self, stats: &Arc<SinkStats>) -> Self {
        Self { stats: Arc::clone(stats), ..self }
    }

    /// An error of this server, with what was being done.
    pub(crate) fn error(&self, action: &'static str, source: sqlx::Error) -> PostgresError {
        PostgresError::Database { action, place: self.place.clone(), source }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Waits for the server, but not for ever: a connection can die without a word.
    pub(crate) async fn within<T>(
        &self,
        action: &'static str,
        asked: impl Future<Output = Result<T, sqlx::Error>> + Send,
    ) -> Result<T, PostgresError> {
        let limit = self.statement_timeout + GRACE;
        match tokio::time::timeout(limit, asked).await {
            Ok(done) => done.map_err(|source| self.error(action, source)),
            Err(_) => Err(PostgresError::Silent { action, place: self.place.clone(), limit }),
        }
    }

    /// Begins a transaction. A connection that died while it was idle is replaced: nothing was asked of it yet.
    pub(crate) async fn begin(&mut self) -> Result<Transaction, PostgresError> {
        if let Some(idle) = self.idle.take() {
            match self.begun(idle).await {
                Err(PostgresError::Database { source, .. }) if died(&source) => {}
                begun => return begun,
            }
        }
        let opened = self.open().await?;
        self.begun(opened).await
    }

    async fn begun(&self, mut opened: Transaction) -> Result<Transaction, PostgresError> {
        // Checked in the transaction, not at its end: what a deferred constraint refuses must be known by row.
        const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE";
        let asked = sqlx::raw_sql(BEGIN).execute(&mut opened.connection);
        self.within("begin a transaction", asked).await?;
        Ok(opened)
    }

    /// Commits. Unless the server says clearly that everything is undone, nobody knows whether it is in.
    pub(crate) async fn commit(
        &mut self,
        mut transaction: Transaction,
    ) -> Result<(), PostgresError> {
        let asked = sqlx::raw_sql("COMMIT").execute(&mut transaction.connection);
        match self.within("commit", asked).await {
            Ok(_) => {
                self.idle = Some(transaction);
                Ok(())
            }
            Err(PostgresError::Database { source, .. }) if undone_by_commit(&source) => {
                Err(self.error("commit", source))
            }
            Err(PostgresError::Database { source, .. }) => {
                Err(PostgresError::CommitUnknown { place: self.place.clone(), source })
            }
            Err(PostgresError::Silent { limit, .. }) => {
                let why = format!("no answer within {limit:?}");
                let source = std::io::Error::new(std::io::ErrorKind::TimedOut, why).into();
                Err(PostgresError::CommitUnknown { place: self.place.clone(), source })
            }
            Err(error) => Err(error),
        }
    }

    /// Undoes everything. When even that fails the connection is closed, which undoes it too.
    pub(crate) async fn rollback(&mut self, mut transaction: Transaction) {
        let asked = sqlx::raw_sql("ROLLBACK").execute(&mut transaction.connection);
        if self.within("roll back", asked).await.is_ok() {
            self.idle = Some(transaction);
        }
    }

    async fn open(&mut self) -> Result<Transaction, PostgresError> {
        let mut options = self.address.read()?;
        if let Some(path) = &self.password_file {
            options = options.password(&secret(path)?);
        }
        self.place = options.place();
        if options.get_application_name().is_none() {
            options = options.application_name("garam");
        }
        let options = options.disable_statement_logging();
        let (port, local) = (options.get_port(), options.get_socket().is_some());
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
        let mut connection = match opened {
            Ok(opened) => opened.map_err(|source| self.error("connect", source))?,
            Err(_) => {
                let (action, place) = ("connect", self.place.clone());
                return Err(PostgresError::Silent { action, place, limit: CONNECT_TIMEOUT });
            }
        };
        let prompt = local || send_at_once(port).await;
        self.settle(&mut connection).await?;
        self.stats.connected();
        Ok(Transaction { connection, prompt })
    }

    /// Looks whether the server can keep the promises, and sets the session's limits.
    async fn settle(&self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        let asked = sqlx::query(ABOUT_SERVER).fetch_one(&mut *connection);
        let about = self.within("look at the server's settings", asked).await?;
        let text = |i: usize| {
            let found: Result<String, _> = about.try_get(i);
            found.map_err(|source| self.error("look at the server's settings", source))
        };
        let failed = |source| self.error("look at the server's settings", source);
        let standby: bool = about.try_get(0).map_err(failed)?;
        let version: i32 = about.try_get(5).map_err(failed)?;
        let encoding = text(4)?;
        let fault = if standby {
            Some(ServerFault::Standby)
        } else if text(1)? != "off" {
            Some(ServerFault::ReadOnly)
        } else if text(2)? != "on" {
            Some(ServerFault::NoFsync)
        } else if encoding != "UTF8" {
            Some(ServerFault::Encoding { found: encoding })
        } else if version < 120_000 {
            Some(ServerFault::Version { found: version / 10_000 })
        } else {
            None
        };
        if let Some(why) = fault {
            return Err(OnlyPostgres::Server { place: self.place.clone(), why }.into());
        }
        let mut settings = self.limits();
        if text(3)? == "off" {
            // A commit that is reported must survive a crash of the server.
            settings.push_str("; SET synchronous_commit = on");
        }
        let asked = sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection);
        self.within("set the session's limits", asked).await.map(|_| ())
    }

    /// Limits that the server itself keeps, so that a writer which is paused or cut off lets go of its locks.
    fn limits(&self) -> String {
        let statement = self.statement_timeout.as_millis();
        let lock = statement / 6;
        format!(
            "SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
             SET idle_in_transaction_session_timeout = {statement}; \
             SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
        )
    }
}

/// Whether the connection is what failed, not what was asked of it.
fn died(error: &sqlx::Error) -> bool {
    use garam_stage::FailureKind::Unreachable;
    cause(error) == Cause::Failure(Unreachable)
}

impl Place for PgConnectOptions {
    const SCHEMES: [&'static str; 2] = ["postgres://", "postgresql://"];

    fn place(&self) -> String {
        let database = self.get_database().unwrap_or_else(|| self.get_username());
        match self.get_socket() {
            Some(socket) => format!("{}/{database}", socket.display()),
            None => format!("{}:{}/{database}", self.get_host(), self.get_port()),
        }
    }
}
