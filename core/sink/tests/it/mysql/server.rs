//! Real servers from the testbed, and a database of its own for each test.
//!
//! One server of each kind serves the whole binary and ends with it; a test that breaks its server starts another. A machine
//! that cannot have them fails the tests: without a server nothing here is proved.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use garam_sink::mysql::{Mode, MySqlConfig, Url};
use garam_sink::sqlite::Create;
use garam_stage::contract::OneOrMany;
use garam_stage::{Cursor, Destination};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection, Row as _};

use crate::fixture::{first_cursor, schema};

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../soak-tests/testbed/");

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MySql,
    MariaDb,
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

/// The server of a kind that all tests share.
pub(crate) fn shared(kind: Kind) -> &'static Server {
    static MYSQL: OnceLock<Server> = OnceLock::new();
    static MARIADB: OnceLock<Server> = OnceLock::new();
    let server = match kind {
        Kind::MySql => &MYSQL,
        Kind::MariaDb => &MARIADB,
    };
    server.get_or_init(|| Server::start(kind))
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::MariaDb, Self::MySql];

    fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }

    /// The collation of created tables.
    pub(crate) fn exact(self) -> &'static str {
        match self {
            Self::MySql => "utf8mb4_0900_bin",
            Self::MariaDb => "utf8mb4_nopad_bin",
        }
    }
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        let name = format!("garam-sink-{}-{}-{}", kind.name(), std::process::id(), next());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("throwaway"), "").unwrap();
        let owner = std::process::id().to_string();
        let said = testbed(kind, "start", &folder, &[&owner]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let port = u16::try_from(said["port"].as_u64().unwrap()).unwrap();
        Self { kind, folder, port }
    }

    /// As a power cut would end it.
    pub(crate) fn kill(&self) {
        testbed(self.kind, "kill", &self.folder, &[]);
    }

    pub(crate) fn start_again(&self) {
        testbed(self.kind, "start", &self.folder, &[&std::process::id().to_string()]);
    }
}

fn testbed(kind: Kind, verb: &str, folder: &Path, more: &[&str]) -> String {
    let script = format!("{TESTBED}{}", kind.name());
    let done = Command::new(script).arg(verb).arg(folder).args(more).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "no {} server to test against: {errors}", kind.name());
    String::from_utf8(done.stdout).unwrap()
}

/// A database of a server.
pub(crate) struct Base {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) database: String,
}

impl Base {
    /// One at each kind of server.
    pub(crate) async fn each() -> [Self; 2] {
        let [one, other] = Kind::ALL.map(shared);
        [Self::on(one).await, Self::on(other).await]
    }

    /// Another one at the same server.
    pub(crate) async fn another(&self) -> Self {
        Self::on(shared(self.kind)).await
    }

    pub(crate) async fn on(server: &Server) -> Self {
        let database = format!("test_{}", next());
        let base = Self { kind: server.kind, port: server.port, database };
        let mut admin = base.connection_as("admin", "garam").await;
        let name = &base.database;
        run(&mut admin, &format!("create database {name} character set utf8mb4")).await;
        run(&mut admin, &format!("grant all on {name}.* to garam@'%'")).await;
        // MySQL shows a password only under TLS; then it remembers, until it is restarted.
        base.connection().await;
        base
    }

    /// Without TLS, so that a proxy can see what is sent.
    pub(crate) fn url(&self, port: u16) -> String {
        format!("mysql://garam:garam@127.0.0.1:{port}/{}?ssl-mode=DISABLED", self.database)
    }

    pub(crate) fn config(&self, mode: Mode) -> MySqlConfig {
        MySqlConfig {
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

    pub(crate) async fn ready_with(&self, config: MySqlConfig) -> (Box<dyn Destination>, Cursor) {
        let mut destination = config.build(&schema()).unwrap();
        destination.prepare().await.unwrap();
        let cursor = first_cursor();
        destination.begin(&cursor).await.unwrap();
        (destination, cursor)
    }

    /// Another one's connection.
    pub(crate) async fn connection(&self) -> MySqlConnection {
        self.connection_as("garam", &self.database).await
    }

    async fn connection_as(&self, user: &str, database: &str) -> MySqlConnection {
        MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username(user)
            .password("garam")
            .database(database)
            .connect()
            .await
            .unwrap()
    }

    /// Runs SQL as somebody else would.
    pub(crate) async fn execute(&self, sql: &str) {
        run(&mut self.connection().await, sql).await;
    }

    /// Runs SQL as the server's owner.
    pub(crate) async fn execute_as_owner(&self, sql: &str) {
        run(&mut self.connection_as("admin", &self.database).await, sql).await;
    }

    /// A query's rows as lines of text, as the server writes them.
    pub(crate) async fn lines(&self, sql: &str) -> String {
        let mut connection = self.connection_as("admin", &self.database).await;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
        let line = |row: &sqlx::mysql::MySqlRow| {
            let cell = |i: usize| {
                let text: Option<String> = row.try_get_unchecked(i).unwrap();
                text.unwrap_or_else(|| "NULL".to_owned())
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

pub(crate) async fn run(connection: &mut MySqlConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}
