//! A schema of its own for each test at a PostgreSQL server.

use std::time::Duration;

use garam_sink::postgres::Mode;
use garam_sink::{PostgresConfig, ServerConfig, SinkConfig};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _, ValueRef as _};

use crate::fixture::Row;
use crate::servers::Base;
use crate::testbed::{Kind, Server, next, shared};

pub(crate) struct PgBase {
    port: u16,
    pub(crate) schema: String,
}

impl PgBase {
    pub(crate) async fn new() -> Self {
        Self::on(shared(Kind::Postgres)).await
    }
}

impl Base for PgBase {
    type Connection = PgConnection;

    const OWNER: &str = "postgres";
    const COUNTS: &[i64] = &[0, 1, 1_999, 2_000, 2_001, 4_100];
    const LET_ID_BE_NULL: &str = "alter table orders alter id drop not null";
    const NO_SUCH_DATE: &str = "column day: it is outside 4714 BC to 5874897";
    const NO_SUCH_TIMESTAMP: &str = "column at: it is before 4714 BC";

    fn statements(mode: Mode, rows: usize) -> usize {
        match mode {
            // COPY: the statement, then all rows and their end.
            Mode::Append => 2,
            _ => rows.div_ceil(2_000),
        }
    }

    fn retype(&self, column: &str, kind: &str) -> String {
        format!("alter table orders alter {column} type {kind}")
    }

    async fn on(server: &Server) -> Self {
        let base = Self { port: server.port, schema: format!("test_{}", next()) };
        base.execute(&format!("create schema {}", base.schema)).await;
        base
    }

    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn name(&self) -> &str {
        &self.schema
    }

    fn database(&self) -> &str {
        "garam"
    }

    fn url(&self, port: u16) -> String {
        let schema = &self.schema;
        let options = format!("application_name={schema}&options=-csearch_path%3D{schema}");
        format!("postgres://garam:garam@127.0.0.1:{port}/garam?{options}")
    }

    fn sink(&self, config: &ServerConfig) -> SinkConfig {
        SinkConfig::Postgres(Box::new(PostgresConfig(config.clone())))
    }

    async fn connection_as(&self, role: &str) -> PgConnection {
        let url = self.url(self.port);
        url.parse::<PgConnectOptions>().unwrap().username(role).connect().await.unwrap()
    }

    async fn run(connection: &mut PgConnection, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
    }

    async fn lines(&self, sql: &str) -> String {
        let mut connection = self.connection().await;
        Self::run(&mut connection, "set timezone = 'UTC'").await;
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

    async fn somebody_waits(&self) {
        let sql = format!(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = '{}'",
            self.schema
        );
        while self.lines(&sql).await == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn close_idle(&self) {
        self.execute_as_owner(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '{}' and query = 'COMMIT'",
            self.schema
        ))
        .await;
    }

    fn assert_duplicate(detail: &str) {
        assert_eq!(detail, "duplicate key value violates unique constraint \"orders_pkey\"");
    }

    fn assert_violates_low(detail: &str) {
        let expect = "new row for relation \"orders\" violates check constraint \"low\"";
        assert_eq!(detail, expect);
    }

    fn spoil(row: &mut Row) -> &'static str {
        row.name = Some("with a \0 inside".into());
        "column name: it contains a zero character"
    }
}
