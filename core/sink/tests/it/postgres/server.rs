//! A real server from the testbed, and a schema of its own for each test.
//!
//! One server serves the whole binary and ends with it; a test that breaks its server starts another. A machine that cannot
//! have one fails the tests: without a server nothing here is proved.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use garam_sink::postgres::{Mode, PostgresConfig, Url};
use garam_sink::sqlite::Create;
use garam_stage::contract::OneOrMany;
use garam_stage::{Cursor, Destination};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _, ValueRef as _};

use crate::fixture::{first_cursor, schema};

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../soak-tests/testbed/postgres");

pub(crate) struct Server {
    folder: PathBuf,
    pub(crate) port: u16,
}

/// The server that all tests share.
pub(crate) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Server {
    pub(crate) fn start() -> Self {
        let name = format!("garam-sink-postgres-{}-{}", std::process::id(), next());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("throwaway"), "").unwrap();
        let owner = std::process::id().to_string();
        let said = testbed("start", &folder, &[&owner]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let port = u16::try_from(said["port"].as_u64().unwrap()).unwrap();
        Self { folder, port }
    }

    /// As a power cut would end it.
    pub(crate) fn kill(&self) {
        testbed("kill", &self.folder, &[]);
    }

    /// Gives the server a certificate and the key to it; it reads them when it starts next.
    pub(crate) fn certify(&self, certificate: &str, key: &str) {
        let data = self.folder.join("data");
        let owner = std::fs::metadata(&data).unwrap();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let mut settings =
            std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        settings.write_all(b"ssl = on\n").unwrap();
    }

    pub(crate) fn start_again(&self) {
        testbed("start", &self.folder, &[&std::process::id().to_string()]);
    }
}

fn testbed(verb: &str, folder: &Path, more: &[&str]) -> String {
    let done = Command::new(TESTBED).arg(verb).arg(folder).args(more).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "no PostgreSQL server to test against: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// A schema of a server.
pub(crate) struct Base {
    pub(crate) port: u16,
    pub(crate) schema: String,
}

impl Base {
    pub(crate) async fn new() -> Self {
        Self::on(shared()).await
    }

    pub(crate) async fn on(server: &Server) -> Self {
        let base = Self { port: server.port, schema: format!("test_{}", next()) };
        base.execute(&format!("create schema {}", base.schema)).await;
        base
    }

    pub(crate) fn url(&self, port: u16) -> String {
        let schema = &self.schema;
        let options = format!("application_name={schema}&options=-csearch_path%3D{schema}");
        format!("postgres://garam:garam@127.0.0.1:{port}/garam?{options}")
    }

    pub(crate) fn config(&self, mode: Mode) -> PostgresConfig {
        PostgresConfig {
            url_file: None,
            url: Some(Url(self.url(self.port))),
            password_file: None,
            table: "orders".into(),
            mode: Some(mode),
            key: (mode != Mode::Append).then(|| OneOrMany::One("id".into())),
            version: None,
            create: Create::Missing,
            statement_timeout: Duration::from_secs(60),
        }
    }

    pub(crate) fn destination(&self, mode: Mode) -> Box<dyn Destination> {
        self.config(mode).build(&schema()).unwrap()
    }

    /// A prepared destination and its first cursor.
    pub(crate) async fn ready(&self, mode: Mode) -> (Box<dyn Destination>, Cursor) {
        self.ready_with(self.config(mode)).await
    }

    pub(crate) async fn ready_with(
        &self,
        config: PostgresConfig,
    ) -> (Box<dyn Destination>, Cursor) {
        let mut destination = config.build(&schema()).unwrap();
        destination.prepare().await.unwrap();
        let cursor = first_cursor();
        destination.begin(&cursor).await.unwrap();
        (destination, cursor)
    }

    /// Another one's connection.
    pub(crate) async fn connection(&self) -> PgConnection {
        self.connection_as("garam").await
    }

    pub(crate) async fn connection_as(&self, role: &str) -> PgConnection {
        let url = self.url(self.port);
        url.parse::<PgConnectOptions>().unwrap().username(role).connect().await.unwrap()
    }

    /// Runs SQL as somebody else would.
    pub(crate) async fn execute(&self, sql: &str) {
        run(&mut self.connection().await, sql).await;
    }

    /// Runs SQL as the server's owner.
    pub(crate) async fn execute_as_owner(&self, sql: &str) {
        run(&mut self.connection_as("postgres").await, sql).await;
    }

    /// A query's rows as lines of text, as the server writes them.
    pub(crate) async fn lines(&self, sql: &str) -> String {
        let mut connection = self.connection().await;
        run(&mut connection, "set timezone = 'UTC'").await;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
        let line = |row: &sqlx::postgres::PgRow| {
            let cell = |i: usize| {
                let raw = row.try_get_raw(i).unwrap();
                if raw.is_null() { "NULL".to_owned() } else { raw.as_str().unwrap().to_owned() }
            };
            (0..row.len()).map(cell).collect::<Vec<_>>().join(" | ")
        };
        rows.unwrap().iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn count(&self) -> usize {
        self.lines("select count(*) from orders").await.parse().unwrap()
    }

    pub(crate) async fn cursors(&self) -> Vec<Cursor> {
        self.config(Mode::Append).read_cursors().await.unwrap()
    }
}

pub(crate) async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}
