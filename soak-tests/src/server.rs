//! Real database servers of the testbed, and what a person would ask them.
//!
//! In: which one, a folder. Out: a running server that ends with this value, SQL as its owner. Promise: addressed on 127.0.0.1,
//! ended by its process id through the testbed's script. An SQLite file takes part as a server that cannot be stopped.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{
    AssertSqlSafe, ColumnIndex, ConnectOptions as _, Database, Decode, MySqlConnection,
    PgConnection, Row, SqliteConnection,
};

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/");

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Db {
    Postgres,
    Mariadb,
    Mysql,
    Sqlite,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) db: Db,
    folder: PathBuf,
    said: Said,
}

/// Where sessions of the server's owner are to be had, as long as it runs.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    db: Db,
    url: String,
    file: PathBuf,
}

/// What the testbed says of a server.
#[derive(Debug, Default, Deserialize)]
struct Said {
    url: String,
    admin_url: String,
    port: u16,
    pid: u32,
}

/// A session of the server's owner.
pub(crate) enum Session {
    Postgres(PgConnection),
    Mysql(MySqlConnection),
    Sqlite(SqliteConnection),
}

impl Db {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }

    /// Whether it is a process behind a network.
    pub(crate) fn is_server(self) -> bool {
        self != Self::Sqlite
    }

    /// COMMIT alone, as its protocol carries it, and no `READ COMMITTED`.
    pub(crate) fn commit(self) -> &'static [u8] {
        match self {
            Self::Postgres | Self::Sqlite => b"COMMIT\0",
            Self::Mariadb | Self::Mysql => b"\x03COMMIT",
        }
    }

    /// As `[pipeline.NAME.to.KIND]` spells it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb | Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }
}

impl Server {
    /// In a folder that is there; for SQLite a file in it.
    pub(crate) fn start(db: Db, folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.to_path_buf();
        let mut server = Self { db, folder, said: Said::default() };
        if db.is_server() {
            std::fs::write(server.folder.join("throwaway"), "")?;
            server.start_again()?;
        }
        Ok(server)
    }

    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        let said = self.testbed("start", &[&std::process::id().to_string()])?;
        self.said = serde_json::from_str(&said).context("the testbed says something else")?;
        Ok(())
    }

    /// A clean end.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.testbed("stop", &[]).map(|_| ())
    }

    /// As a power cut would end it.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.testbed("kill", &[]).map(|_| ())
    }

    pub(crate) fn port(&self) -> u16 {
        self.said.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.said.pid
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("data.sqlite")
    }

    /// The address for a pipeline that goes through `port`. Without TLS, so that a proxy can see what is sent.
    pub(crate) fn url_through(&self, port: u16) -> String {
        let url = self.said.url.replace(&format!(":{}/", self.said.port), &format!(":{port}/"));
        match self.db {
            Db::Mariadb | Db::Mysql => format!("{url}?ssl-mode=DISABLED"),
            Db::Postgres | Db::Sqlite => url,
        }
    }

    /// MySQL shows a password only under TLS, and remembers that it has, until it is restarted.
    pub(crate) async fn remember_the_password(&self) -> anyhow::Result<()> {
        if self.db.kind() == "mysql" {
            self.said.url.parse::<MySqlConnectOptions>()?.connect().await?;
        }
        Ok(())
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { db: self.db, url: self.said.admin_url.clone(), file: self.file() }
    }

    pub(crate) async fn session(&self) -> anyhow::Result<Session> {
        self.owner().session().await
    }

    fn testbed(&self, verb: &str, more: &[&str]) -> anyhow::Result<String> {
        let script = format!("{TESTBED}{}", self.db.name());
        let done = Command::new(&script).arg(verb).arg(&self.folder).args(more).output();
        let done = done.with_context(|| format!("cannot run {script}"))?;
        let errors = String::from_utf8_lossy(&done.stderr);
        anyhow::ensure!(done.status.success(), "{} {verb}: {}", self.db.name(), errors.trim());
        Ok(String::from_utf8(done.stdout)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.db.is_server() {
            // It may be down already, and it ends with this process in any case.
            let _ended = self.kill().is_ok();
        }
    }
}

impl Owner {
    pub(crate) async fn session(&self) -> anyhow::Result<Session> {
        let url = &self.url;
        Ok(match self.db {
            Db::Postgres => Session::Postgres(
                url.parse::<PgConnectOptions>()?.disable_statement_logging().connect().await?,
            ),
            Db::Mariadb | Db::Mysql => Session::Mysql(
                url.parse::<MySqlConnectOptions>()?.disable_statement_logging().connect().await?,
            ),
            Db::Sqlite => Session::Sqlite(
                SqliteConnectOptions::new()
                    .filename(&self.file)
                    .create_if_missing(true)
                    .busy_timeout(std::time::Duration::from_secs(30))
                    .disable_statement_logging()
                    .connect()
                    .await?,
            ),
        })
    }
}

impl Session {
    /// Statements whose answers do not matter.
    pub(crate) async fn run(&mut self, sql: &str) -> anyhow::Result<()> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(to) => query.execute(to).await.map(|_| ()),
            Self::Mysql(to) => query.execute(to).await.map(|_| ()),
            Self::Sqlite(to) => query.execute(to).await.map(|_| ()),
        }
        .with_context(|| format!("cannot run {sql}"))
    }

    /// The rows of a query, every value as text; null is empty.
    pub(crate) async fn rows(&mut self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(to) => texts(&query.fetch_all(to).await?),
            Self::Mysql(to) => texts(&query.fetch_all(to).await?),
            Self::Sqlite(to) => texts(&query.fetch_all(to).await?),
        }
        .with_context(|| format!("cannot read {sql}"))
    }
}

fn texts<R>(rows: &[R]) -> anyhow::Result<Vec<Vec<String>>>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, R::Database>,
    R::Database: Database,
{
    let text = |row: &R, i: usize| -> anyhow::Result<String> {
        Ok(row.try_get_unchecked::<Option<String>, _>(i)?.unwrap_or_default())
    };
    rows.iter().map(|row| (0..row.len()).map(|i| text(row, i)).collect()).collect()
}

/// Servers that drop their rights must reach their folder.
pub(crate) fn open_to_all(folder: &Path) -> anyhow::Result<()> {
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?)
}
