//! Queries on real servers: the same rows from each, read-only, within their bounds.

use arrow_array::RecordBatch;
use garam_dimension::DimensionPlan;
use garam_stage::{Failure, Wanted};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::plan::{COLUMNS, lines, parse, told};
use crate::testbed::{Kind, Server, next, shared};

const TABLE: &str = "create table users (id bigint, tier varchar(40), credit decimal(18,2), born timestamp null, is_new boolean)";

/// A database with a table of users, at a server or in a file.
enum Base {
    Server { kind: Kind, url: String },
    File(tempfile::TempDir),
}

impl Base {
    async fn at(kind: Kind) -> Self {
        Self::on(shared(kind)).await
    }

    async fn on(server: &Server) -> Self {
        let (port, name) = (server.port, format!("dim_{}", next()));
        let base = match server.kind {
            Kind::Postgres => {
                let url = format!(
                    "postgres://garam:garam@127.0.0.1:{port}/garam?options=-csearch_path%3D{name}"
                );
                let base = Self::Server { kind: server.kind, url };
                base.run(&format!("create schema {name}")).await;
                base
            }
            kind => {
                let admin = format!("mysql://admin:garam@127.0.0.1:{port}/mysql");
                Self::Server { kind, url: admin }.run(&format!("create database {name}")).await;
                let url = format!("mysql://admin:garam@127.0.0.1:{port}/{name}");
                Self::Server { kind, url }
            }
        };
        base.run(TABLE).await;
        base
    }

    async fn file() -> Self {
        let base = Self::File(tempfile::tempdir().unwrap());
        base.run(TABLE).await;
        base
    }

    async fn all() -> [Self; 4] {
        [
            Self::at(Kind::Postgres).await,
            Self::at(Kind::MySql).await,
            Self::at(Kind::MariaDb).await,
            Self::file().await,
        ]
    }

    async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Server { kind: Kind::Postgres, url } => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                connection.execute(sqlx::raw_sql(sql)).await.unwrap();
            }
            Self::Server { url, .. } => {
                let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
                connection.execute(sqlx::raw_sql(sql)).await.unwrap();
            }
            Self::File(folder) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new()
                    .filename(folder.path().join("users.db"))
                    .create_if_missing(true);
                let mut connection = options.connect().await.unwrap();
                connection.execute(sqlx::raw_sql(sql)).await.unwrap();
            }
        }
    }

    fn plan_of(&self, columns: &str, query: &str, more: &str) -> DimensionPlan {
        let (kind, place) = match self {
            Self::Server { kind: Kind::Postgres, url } => ("postgres", format!("url = {url:?}")),
            Self::Server { url, .. } => ("mysql", format!("url = {url:?}")),
            Self::File(folder) => {
                ("sqlite", format!("path = {:?}", folder.path().join("users.db")))
            }
        };
        let text = format!(
            "key = \"user_id\"\n{more}\n{columns}[from.{kind}]\n{place}\nquery = {query:?}\nstatement_timeout = \"2s\"\n"
        );
        parse(&text).unwrap()
    }

    async fn read_of(&self, columns: &str, query: &str) -> Result<RecordBatch, Failure> {
        told(&mut *self.plan_of(columns, query, "").source()).await
    }

    async fn read(&self, query: &str) -> Result<Vec<String>, String> {
        let read = self.read_of(COLUMNS, query).await;
        read.map(|rows| lines(&rows)).map_err(|failure| failure.to_string())
    }
}

const QUERY: &str = "select id as user_id, tier, credit, 1 as more from users order by id";

#[tokio::test]
async fn every_database_gives_the_same_rows() {
    for base in Base::all().await {
        base.run("insert into users values (1, 'gold', 12.50, null, true), (2, null, null, null, false), (3, 'tab\there', 0.1, null, true)").await;
        let expected = ["1 gold 12.50", "2 null null", "3 tab\there 0.10"].map(str::to_owned);
        assert_eq!(base.read(QUERY).await, Ok(expected.to_vec()));
        let none = base.read("select id as user_id, tier, credit from users where id > 9").await;
        assert_eq!(none, Ok(Vec::new()), "no rows are rows too");
    }
}

#[tokio::test]
async fn times_and_truths_are_what_they_are_in_the_database() {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::TimestampMicrosecondType;
    let columns =
        "[columns]\nuser_id = \"bigint not null\"\nborn = \"timestamp\"\nis_new = \"boolean\"\n";
    for base in Base::all().await {
        base.run("insert into users values (1, null, null, '2026-11-23 23:24:04', true)").await;
        let rows = base.read_of(columns, "select id as user_id, born, is_new from users").await;
        let rows = rows.unwrap();
        let born = rows.column(1).as_primitive::<TimestampMicrosecondType>().value(0);
        assert_eq!(born, 1_795_476_244_000_000);
        assert!(rows.column(2).as_boolean().value(0));
    }
    let base = Base::at(Kind::Postgres).await;
    let query = "select 1::bigint as user_id, '2026-11-24 08:24:04.5+09'::timestamptz as born, false as is_new";
    let rows = base.read_of(columns, query).await.unwrap();
    let born = rows.column(1).as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(born, 1_795_476_244_500_000);
}

#[tokio::test]
async fn rows_that_do_not_fit_columns_that_are_not_there_and_bounds_are_named() {
    for base in Base::all().await {
        base.run("insert into users values (1, 'a', 1, null, true), (null, 'b', 2, null, true)")
            .await;
        let told = base
            .read("select id as user_id, tier, credit from users order by id is null, id")
            .await;
        let told = told.unwrap_err();
        assert!(told.contains(": row 2 does not fit: missing_value: column user_id"), "{told}");
        let told = base.read("select id as user_id, tier from users").await.unwrap_err();
        assert!(told.contains("has no column credit; there is user_id, tier"), "{told}");
        let plan =
            base.plan_of(COLUMNS, "select 1 as user_id, tier, credit from users", "max_rows = 1");
        let told = self::told(&mut *plan.source()).await.unwrap_err().to_string();
        assert!(told.contains("has more than 1 rows"), "{told}");
        let told = base.plan_of(COLUMNS, "select 1 as user_id, tier, credit from users", "");
        let told = told.try_once().await.unwrap_err().to_string();
        assert!(told.contains("rows 1 and 2 have the same key (user_id)"), "{told}");
    }
}

#[tokio::test]
async fn a_query_reads_and_does_nothing_else() {
    for base in Base::all().await {
        base.run("insert into users values (1, 'a', 1, null, true)").await;
        for query in [
            "delete from users",
            "select id as user_id, tier, credit from users; delete from users",
            "drop table users",
        ] {
            base.read(query).await.unwrap_err();
        }
        assert_eq!(base.read(QUERY).await, Ok(vec!["1 a 1.00".into()]));
    }
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped() {
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000000) \
        select count(*) as user_id, 'x' as tier, 1 as credit from n";
    let crossed = "select count(*) as user_id, 'x' as tier, 1 as credit from information_schema.columns a, \
        information_schema.columns b, information_schema.columns c";
    for base in Base::all().await {
        let (query, expected) = match &base {
            Base::Server { kind: Kind::Postgres, .. } => (
                "select 1 as user_id, pg_sleep(600)::text as tier, 1 as credit",
                "canceling statement due to statement timeout",
            ),
            Base::Server { kind: Kind::MySql, .. } => (crossed, "maximum statement execution time"),
            Base::Server { .. } => (crossed, "max_statement_time"),
            Base::File(_) => (endless, "query took longer than 2s and was stopped"),
        };
        let told = base.read(query).await.unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named_and_found_again() {
    let server = Server::start(Kind::Postgres);
    let base = Base::on(&server).await;
    base.run("insert into users values (1, 'a', 1, null, true)").await;
    let plan = base.plan_of(COLUMNS, QUERY, "");
    let mut source = plan.source();
    told(&mut *source).await.unwrap();
    server.kill();
    let failure = source.read(Wanted::IfChanged).await.unwrap_err();
    let place = format!("cannot connect at 127.0.0.1:{}/garam", server.port);
    assert!(failure.to_string().starts_with(&place), "{failure}");
    assert_eq!(failure.kind, garam_stage::FailureKind::Unreachable);
    assert!(!failure.to_string().contains("garam:garam"));
    server.start_again();
    assert_eq!(lines(&told(&mut *source).await.unwrap()), ["1 a 1.00"]);
    assert_eq!(source.label(), format!("postgres 127.0.0.1:{}/garam", server.port));
    server.kill();
    assert!(server.folder.is_dir());
}

#[tokio::test]
async fn the_address_comes_out_of_a_file_at_each_reading() {
    let Base::Server { url, .. } = Base::at(Kind::MariaDb).await else { unreachable!("a server") };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.url");
    let text = format!(
        "key = \"user_id\"\n{COLUMNS}[from.mysql]\nurl_file = {file:?}\nquery = \"select 1 as user_id, 'x' as tier, 1 as credit\"\n"
    );
    let mut source = parse(&text).unwrap().source();
    let failure = source.read(Wanted::Anyway).await.unwrap_err();
    assert!(failure.to_string().starts_with("cannot read"), "{failure}");
    std::fs::write(&file, url).unwrap();
    assert_eq!(lines(&told(&mut *source).await.unwrap()), ["1 x 1.00"]);
}
