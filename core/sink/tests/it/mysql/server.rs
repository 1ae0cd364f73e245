//! A database of its own for each test at a MySQL or MariaDB server.

use std::time::Duration;

use garam_sink::mysql::Mode;
use garam_sink::{MySqlConfig, ServerConfig, SinkConfig};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, MySqlConnection, Row as _};

use crate::fixture::Row;
use crate::servers::Base;
use crate::testbed::{Kind, Server, next, shared};

pub(crate) const KINDS: [Kind; 2] = [Kind::MariaDb, Kind::MySql];

pub(crate) struct MySqlBase {
    kind: Kind,
    port: u16,
    pub(crate) database: String,
}

impl MySqlBase {
    /// One at each kind of server.
    pub(crate) async fn each() -> [Self; 2] {
        let [one, other] = KINDS.map(shared);
        [Self::on(one).await, Self::on(other).await]
    }

    /// The collation of created tables.
    pub(crate) fn exact(&self) -> &'static str {
        match self.kind {
            Kind::MariaDb => "utf8mb4_nopad_bin",
            _ => "utf8mb4_0900_bin",
        }
    }

    async fn connect(&self, user: &str, database: &str) -> MySqlConnection {
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
}

impl Base for MySqlBase {
    type Connection = MySqlConnection;

    const OWNER: &str = "admin";
    const COUNTS: &[i64] = &[0, 1, 7, 511, 512, 513, 1_103];
    const LET_ID_BE_NULL: &str = "alter table orders modify id bigint";
    const NO_SUCH_DATE: &str = "column day: it is outside the years 1000 to 9999";
    const NO_SUCH_TIMESTAMP: &str = "column at: it is outside the years 1000 to 9999";

    fn statements(_: Mode, rows: usize) -> usize {
        rows / 512 + (rows % 512).count_ones() as usize
    }

    fn retype(&self, column: &str, kind: &str) -> String {
        format!("alter table orders modify {column} {kind}")
    }

    async fn on(server: &Server) -> Self {
        let database = format!("test_{}", next());
        let base = Self { kind: server.kind, port: server.port, database };
        let mut admin = base.connect(Self::OWNER, "garam").await;
        let name = &base.database;
        Self::run(&mut admin, &format!("create database {name} character set utf8mb4")).await;
        Self::run(&mut admin, &format!("grant all on {name}.* to garam@'%'")).await;
        // MySQL shows a password only under TLS; then it remembers, until it is restarted.
        base.connection().await;
        base
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn name(&self) -> &str {
        &self.database
    }

    fn database(&self) -> &str {
        &self.database
    }

    /// Without TLS, so that a proxy can see what is sent.
    fn url(&self, port: u16) -> String {
        format!("mysql://garam:garam@127.0.0.1:{port}/{}?ssl-mode=DISABLED", self.database)
    }

    fn sink(&self, config: &ServerConfig) -> SinkConfig {
        SinkConfig::MySql(Box::new(MySqlConfig(config.clone())))
    }

    async fn connection_as(&self, user: &str) -> MySqlConnection {
        self.connect(user, &self.database).await
    }

    async fn run(connection: &mut MySqlConnection, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
    }

    async fn lines(&self, sql: &str) -> String {
        let mut connection = self.connection_as(Self::OWNER).await;
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

    async fn somebody_waits(&self) {
        let sql = format!(
            "select count(*) from information_schema.innodb_trx t join information_schema.processlist p \
             on p.id = t.trx_mysql_thread_id where t.trx_state = 'LOCK WAIT' and p.db = '{}'",
            self.database
        );
        while self.lines(&sql).await == "0" {
            // The server shows a state that is up to 100 ms old, and keeps it as long as somebody asks more often.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    async fn close_idle(&self) {
        let sql = format!(
            "select id from information_schema.processlist where db = '{}' and user = 'garam'",
            self.database
        );
        for id in self.lines(&sql).await.lines() {
            self.execute_as_owner(&format!("kill {id}")).await;
        }
    }

    fn assert_duplicate(detail: &str) {
        let told = detail.starts_with("Duplicate entry for key ") && detail.contains("PRIMARY");
        assert!(told, "{detail}");
    }

    fn assert_violates_low(detail: &str) {
        assert!(detail.contains("low"), "{detail}");
    }

    fn spoil(row: &mut Row) -> &'static str {
        row.score = f64::NAN;
        "column score: it is no finite number"
    }
}
