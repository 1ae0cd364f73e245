//! Tables, roles and servers that do not fit are refused before anything is written, with what to do.

use garam_sink::postgres::Mode::{self, Append, Update, Upsert};
use garam_sink::postgres::Url;
use garam_sink::sqlite::{Create, Readiness};
use garam_stage::FailureKind;

use super::server::PgBase;
use crate::fixture::{batch, rows, schema, written};
use crate::servers::Base as _;

const SYSTEM: &str = "_host text, _path text, _origin bytea, _position numeric, _ordinal int, _version bytea, \
_event_time timestamptz, _ingest_time timestamptz";
const CONTRACT: &str =
    "id bigint primary key, name text, amount numeric(10,2), score float8, at timestamptz";

/// What is said about a table that `sql` makes.
async fn said(mode: Mode, sql: &str) -> String {
    let base = PgBase::new().await;
    base.execute(sql).await;
    let failure = base.destination(mode).prepare().await.unwrap_err();
    assert_eq!(base.lines("select to_regclass('_garam_cursors')").await, "NULL", "{failure}");
    failure.to_string()
}

#[tokio::test]
async fn a_table_somebody_made_is_used_as_it_is() {
    let base = PgBase::new().await;
    let wider =
        "id numeric primary key, name varchar, amount numeric, score float8, at timestamptz(6)";
    let more = "note text not null default '', serial bigint generated always as identity";
    base.execute(&format!("create table orders ({more}, {SYSTEM}, {wider})")).await;
    assert_eq!(base.sink(&base.config(Upsert)).connect(&schema()).await.unwrap(), Readiness::Ready);
    let (mut destination, start) = base.ready(Upsert).await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
    assert_eq!(base.lines("select count(*), sum(amount) from orders").await, "3 | 3.15");
}

#[tokio::test]
async fn a_partitioned_table_is_a_table() {
    let base = PgBase::new().await;
    base.execute(&format!(
        "create table orders ({CONTRACT}, {SYSTEM}) partition by hash (id); \
         create table o0 partition of orders for values with (modulus 2, remainder 0); \
         create table o1 partition of orders for values with (modulus 2, remainder 1)"
    ))
    .await;
    let (mut destination, start) = base.ready(Upsert).await;
    written(destination.write(&batch(&start, &rows(0..100))).await);
    assert_eq!(base.count().await, 100);
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
        (
            Upsert,
            with("", "").replace("create table", "create unlogged table"),
            "table orders is unlogged: a crash of the server would empty it",
        ),
        (
            Upsert,
            with(", at timestamptz", ""),
            "table orders lacks columns at: add them with\nALTER TABLE \"orders\" ADD COLUMN \"at\" timestamptz;",
        ),
        (
            Upsert,
            with("at timestamptz", "at timestamptz(3)"),
            "declared timestamp(3) with time zone, which would change or refuse its values: it must be timestamptz",
        ),
        (Upsert, with("at timestamptz", "at timestamp"), "it must be timestamptz"),
        (Upsert, with("numeric(10,2)", "numeric(10,1)"), "it must be numeric(10,2)"),
        (Upsert, with("numeric(10,2)", "numeric(9,2)"), "it must be numeric(10,2)"),
        (Upsert, with("score float8", "score real"), "it must be double precision"),
        (Upsert, with("name text", "name char(9)"), "it must be text"),
        (Upsert, with("id bigint", "id int"), "declared integer"),
        (
            Upsert,
            with("id bigint", "id bigint generated always as identity"),
            "column id of table orders is generated",
        ),
        (
            Upsert,
            with("name text", "name text, must text not null"),
            "column must of table orders is NOT NULL without a default and no column of the contract",
        ),
        (
            Upsert,
            with(" primary key", ""),
            "table orders has no unique index on exactly (id) that is checked at once: create it with\n\
             CREATE UNIQUE INDEX ON \"orders\" (\"id\")",
        ),
        (
            Upsert,
            with("primary key", "primary key deferrable"),
            "has no unique index on exactly (id)",
        ),
        (Update, with(" primary key", ""), "has no unique index on exactly (id)"),
        (Append, with("", ""), "has no unique index on exactly (_origin, _position, _ordinal)"),
    ];
    for (mode, sql, expect) in cases {
        let found = said(mode, &sql).await;
        assert!(found.contains(expect), "{sql}\nsays: {found}\nnot:  {expect}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_made_only_where_that_is_wanted() {
    let base = PgBase::new().await;
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
        assert!(text.starts_with("table orders does not exist and create = \"never\": create it with\nCREATE TABLE \"orders\" ("), "{text}");
    }
    assert_eq!(base.lines("select to_regclass('orders')").await, "NULL");
    // What it says works.
    let text = base.sink(&config).connect(&schema()).await.unwrap_err().to_string();
    base.execute(text.split_once('\n').unwrap().1).await;
    assert_eq!(base.sink(&config).connect(&schema()).await.unwrap(), Readiness::Ready);
}

#[tokio::test]
async fn missing_rights_are_named_with_the_grant() {
    let base = PgBase::new().await;
    base.execute_as_owner(&format!(
        "create table {0}.orders ({CONTRACT}, {SYSTEM}); grant select, insert on {0}.orders to garam",
        base.schema
    ))
    .await;
    let failure = base.destination(Upsert).prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert_eq!(
        failure.to_string(),
        "role garam may not update table orders: grant update on \"orders\" to \"garam\""
    );

    let base = PgBase::new().await;
    base.execute_as_owner(&format!(
        "alter schema {0} owner to postgres; grant usage on schema {0} to garam",
        base.schema
    ))
    .await;
    let failure = base.destination(Upsert).prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    let grant = format!("grant create on schema \"{}\" to \"garam\"", base.schema);
    assert_eq!(failure.to_string(), format!("role garam may not create table orders: {grant}"));
}

#[tokio::test]
async fn a_server_that_cannot_keep_the_promise_is_refused() {
    let base = PgBase::new().await;
    base.execute_as_owner("create role reader login password 'garam'; alter role reader set default_transaction_read_only = on").await;
    let mut config = base.config(Append);
    config.url = Some(Url(base.url(base.port()).replace("garam:garam", "reader:garam")));
    let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.to_string().contains("transactions are read-only for this role"), "{failure}");
}

#[tokio::test]
async fn commits_are_durable_whatever_the_role_says() {
    let base = PgBase::new().await;
    base.execute_as_owner("create role hasty login superuser password 'garam'; alter role hasty set synchronous_commit = off").await;
    let mut config = base.config(Append);
    config.url = Some(Url(base.url(base.port()).replace("garam:garam", "hasty:garam")));
    let (mut destination, start) = base.ready_with(&config).await;
    base.execute_as_owner(&format!(
        "create function {0}.told() returns trigger language plpgsql as $$ begin \
         new.name = current_setting('synchronous_commit'); return new; end $$; \
         create trigger told before insert on {0}.orders for each row execute function {0}.told(); \
         alter schema {0} owner to postgres; grant all on all tables in schema {0} to garam; grant usage on schema {0} to garam",
        base.schema
    ))
    .await;
    written(destination.write(&batch(&start, &rows(0..1))).await);
    assert_eq!(base.lines("select name from orders").await, "on");
}
