//! Tables, users and servers that do not fit are refused before anything is written, with what to do.

use garam_sink::ServerConfig;
use garam_sink::mysql::Mode::{self, Append, Update, Upsert};
use garam_sink::mysql::Url;
use garam_sink::sqlite::{Create, Readiness};
use garam_stage::FailureKind;
use garam_stage::contract::OneOrMany;

use super::server::{KINDS, MySqlBase};
use crate::fixture::{batch, row, rows, schema, written};
use crate::servers::Base as _;
use crate::testbed::Server;

const SYSTEM: &str = "_host text, _path text, _origin binary(32), _position decimal(39), _ordinal int, \
_version varbinary(20), _event_time datetime(6), _ingest_time datetime(6)";
const CONTRACT: &str =
    "id bigint primary key, name text, amount decimal(10,2), score double, at datetime(6)";

/// What is said about a table that `sql` makes.
async fn said(base: &MySqlBase, mode: Mode, sql: &str) -> String {
    base.execute("drop table if exists orders; drop view if exists orders").await;
    base.execute(sql).await;
    let failure = base.destination(mode).prepare().await.unwrap_err();
    assert_eq!(base.cursors().await, []);
    failure.to_string()
}

#[tokio::test]
async fn a_table_somebody_made_is_used_as_it_is() {
    for base in MySqlBase::each().await {
        let wider = "id decimal(30) primary key, name varchar(99), amount decimal(20,4), score double, at timestamp(6) null";
        let more =
            "note varchar(9) not null default '', serial bigint not null auto_increment unique";
        base.execute(&format!("create table orders ({more}, {SYSTEM}, {wider})")).await;
        assert_eq!(
            base.sink(&base.config(Upsert)).connect(&schema()).await.unwrap(),
            Readiness::Ready
        );
        let (mut destination, start) = base.ready(Upsert).await;
        written(destination.write(&batch(&start, &rows(0..3))).await);
        assert_eq!(base.lines("select count(*), sum(amount) from orders").await, "3 | 3.1500");
    }
}

#[tokio::test]
async fn zero_is_a_key_like_any_other() {
    for base in MySqlBase::each().await {
        let counting = CONTRACT.replace("primary key", "auto_increment primary key");
        base.execute(&format!("create table orders ({counting}, {SYSTEM})")).await;
        let (mut destination, start) = base.ready(Upsert).await;
        written(destination.write(&batch(&start, &[row(0, "zero", 1), row(7, "x", 2)])).await);
        assert_eq!(base.lines("select id from orders order by id").await, "0\n7");
    }
}

#[tokio::test]
async fn a_partitioned_table_is_a_table() {
    for base in MySqlBase::each().await {
        base.execute(&format!(
            "create table orders ({CONTRACT}, {SYSTEM}) partition by hash (id) partitions 3"
        ))
        .await;
        let (mut destination, start) = base.ready(Upsert).await;
        written(destination.write(&batch(&start, &rows(0..100))).await);
        assert_eq!(base.count().await, 100);
    }
}

#[tokio::test]
async fn tables_that_would_lose_or_change_rows_are_refused() {
    let with = |from: &str, to: &str| {
        format!("create table orders ({}, {SYSTEM})", CONTRACT.replace(from, to))
    };
    let cases = [
        (
            Upsert,
            "create view orders as select 1 as id".to_owned(),
            "orders is a view, not a table",
        ),
        (Upsert, with("", "") + " engine=MyISAM", "kept by engine \"MyISAM\""),
        (
            Upsert,
            with(", at datetime(6)", ""),
            "table orders lacks columns at: add them with\nALTER TABLE `orders` ADD COLUMN `at` datetime(6);",
        ),
        (
            Upsert,
            with("at datetime(6)", "at datetime(3)"),
            "declared datetime(3), which would change or refuse its values: it must be datetime(6)",
        ),
        (Upsert, with("decimal(10,2)", "decimal(10,1)"), "it must be decimal(10,2)"),
        (Upsert, with("decimal(10,2)", "decimal(9,2)"), "it must be decimal(10,2)"),
        (Upsert, with("decimal(10,2)", "decimal(10,2) unsigned"), "it must be decimal(10,2)"),
        (Upsert, with("score double", "score float"), "it must be double"),
        (Upsert, with("score double", "score double(9,2)"), "it must be double"),
        (Upsert, with("name text", "name char(9)"), "it must be longtext"),
        (
            Upsert,
            with("name text", "name text character set latin1"),
            "it must be longtext character set utf8mb4",
        ),
        (Upsert, with("id bigint", "id int"), "declared int"),
        (Upsert, with("id bigint", "id bigint unsigned"), "it must be bigint"),
        (
            Upsert,
            with("score double", "score double generated always as (1.5) stored"),
            "column score of table orders is generated",
        ),
        (
            Upsert,
            with("name text", "name text, must int not null"),
            "column must of table orders is NOT NULL without a default and no column of the contract",
        ),
        (
            Upsert,
            with(" primary key", ""),
            "table orders has no unique index on exactly (id) that is checked at once: create it with\n\
             ALTER TABLE `orders` ADD UNIQUE (`id`)",
        ),
        (Update, with(" primary key", ""), "has no unique index on exactly (id)"),
        (Append, with("", ""), "has no unique index on exactly (_origin, _position, _ordinal)"),
    ];
    for base in MySqlBase::each().await {
        for (mode, sql, expect) in &cases {
            let found = said(&base, *mode, sql).await;
            assert!(found.contains(expect), "{sql}\nsays: {found}\nnot:  {expect}");
        }
    }
}

#[tokio::test]
async fn a_text_in_a_key_must_be_compared_byte_by_byte() {
    for base in MySqlBase::each().await {
        let keyed = |collation: &str| {
            let name = format!("name varchar(40) collate {collation} not null unique");
            let columns = CONTRACT.replace("name text", &name).replace(" primary key", "");
            format!("create table orders ({columns}, {SYSTEM})")
        };
        let fields = schema();
        let names = fields.fields().iter().map(|field| {
            let strict = field.name() == "name";
            if strict {
                field.as_ref().clone().with_nullable(false)
            } else {
                field.as_ref().clone()
            }
        });
        let strict = arrow_schema::Schema::new(names.collect::<Vec<_>>()).into();
        let key = Some(OneOrMany::One("name".into()));
        let config = ServerConfig { key, ..base.config(Upsert) };
        // Blind to case; blind to blanks at the end.
        for collation in ["utf8mb4_general_ci", "utf8mb4_bin"] {
            base.execute(&format!("drop table if exists orders; {}", keyed(collation))).await;
            let failure = base.sink(&config).connect(&strict).await.unwrap_err();
            let expect = format!("so it cannot be in a key: it must be {}", base.exact());
            assert!(failure.to_string().ends_with(&expect), "{failure}");
        }
        for sql in
            ["drop table orders".to_owned(), format!("drop table orders; {}", keyed(base.exact()))]
        {
            base.execute(&sql).await;
            base.execute("drop table if exists _garam_cursors").await;
            let mut destination = base.sink(&config).build(&strict).unwrap();
            destination.prepare().await.unwrap();
            let start = crate::fixture::first_cursor();
            destination.begin(&start).await.unwrap();
            let offered = [row(1, "a", 1), row(2, "A", 2), row(3, "a ", 3), row(4, "a", 4)];
            written(destination.write(&batch(&start, &offered)).await);
            let found =
                base.lines("select concat('<', name, '>'), id from orders order by id").await;
            assert_eq!(found, "<A> | 2\n<a > | 3\n<a> | 4");
        }
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_made_only_where_that_is_wanted() {
    for base in MySqlBase::each().await {
        let mut config = base.config(Upsert);
        let found = base.sink(&config).connect(&schema()).await.unwrap();
        assert_eq!(found, Readiness::TableWillBeCreated);
        config.create = Create::Never;
        for failure in [
            base.sink(&config).connect(&schema()).await.unwrap_err(),
            base.sink(&config).build(&schema()).unwrap().prepare().await.unwrap_err(),
        ] {
            assert_eq!(failure.kind, FailureKind::Schema);
            let text = failure.to_string();
            assert!(text.starts_with("table orders does not exist and create = \"never\": create it with\nCREATE TABLE `orders` ("), "{text}");
        }
        assert_eq!(base.lines("show tables").await, "");
        // What it says works.
        let text = base.sink(&config).connect(&schema()).await.unwrap_err().to_string();
        base.execute(text.split_once('\n').unwrap().1).await;
        assert_eq!(base.sink(&config).connect(&schema()).await.unwrap(), Readiness::Ready);
    }
}

#[tokio::test]
async fn missing_rights_are_named_with_the_grant() {
    for base in MySqlBase::each().await {
        let (database, user) = (&base.database, format!("u{}", base.database));
        base.execute_as_owner(&format!(
            "create user {user}@'%' identified by 'garam'; grant select on {database}.* to {user}@'%'"
        ))
        .await;
        let url = base.url(base.port()).replace("garam:garam", &format!("{user}:garam"));
        let url = Some(Url(url.replace("DISABLED", "PREFERRED")));
        let config = ServerConfig { url, ..base.config(Upsert) };
        let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        let expect = format!(
            "role '{user}'@'%' may not create table orders: grant create on DATABASE.* to '{user}'@'%'"
        );
        assert_eq!(failure.to_string(), expect);
        base.execute(&format!("create table orders ({CONTRACT}, {SYSTEM})")).await;
        base.execute_as_owner(&format!("grant select, insert on {database}.orders to {user}@'%'"))
            .await;
        let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        let expect = format!(
            "role '{user}'@'%' may not select, insert, update table orders: \
             grant select, insert, update on `orders` to '{user}'@'%'"
        );
        assert_eq!(failure.to_string(), expect);
        base.execute_as_owner(&format!("grant update on {database}.orders to {user}@'%'")).await;
        assert_eq!(base.sink(&config).connect(&schema()).await.unwrap(), Readiness::Ready);
    }
}

#[tokio::test]
async fn a_server_that_cannot_keep_the_promise_is_refused() {
    for kind in KINDS {
        let server = Server::start(kind);
        let base = MySqlBase::on(&server).await;
        let (mut destination, start) = base.ready(Append).await;
        let cases = [
            ("read_only", 1, 0, FailureKind::Unreachable, "it is read-only"),
            ("innodb_flush_log_at_trx_commit", 2, 1, FailureKind::Refused, "set it to 1"),
            (
                "sync_binlog",
                0,
                1,
                FailureKind::Refused,
                "the binary log is on and sync_binlog is 0",
            ),
        ];
        for (name, bad, good, kind, expect) in cases {
            base.execute_as_owner(&format!("set global {name} = {bad}")).await;
            let failure = base.sink(&base.config(Append)).connect(&schema()).await.unwrap_err();
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.to_string().contains(expect), "{failure}");
            base.execute_as_owner(&format!("set global {name} = {good}")).await;
        }
        // A primary that becomes a replica under the connection.
        base.execute_as_owner("set global read_only = 1").await;
        let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
        base.execute_as_owner("set global read_only = 0").await;
        written(destination.write(&batch(&start, &rows(0..3))).await);
        server.kill();
    }
}
