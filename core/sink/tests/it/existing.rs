//! Tables that are there already: what fits is used as it is, what does not is named with what to do.

use expect_test::{Expect, expect};
use garam_sink::Readiness;
use garam_sink::sqlite::Create;
use garam_stage::FailureKind;
use garam_stage::WriteMode::{self, Append, Upsert};

use crate::fixture::{Place, batch, first_cursor, rows, schema, written};

const SYSTEM: &str = "_host text, _path text, _origin blob, _position blob, _ordinal int, _version blob, _event_time datetime, _ingest_time datetime";
const UNIQUE: &str = "unique (_origin, _position, _ordinal)";

/// What `prepare` says about a table made by this SQL.
async fn check(mode: WriteMode, sql: &str, expect: Expect) {
    let place = Place::new();
    place.execute(sql).await;
    let failure = place.destination(mode).prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema);
    expect.assert_eq(&failure.to_string());
    // Looking without preparing says the same.
    let looked = place.config(mode).connect(&schema()).await.unwrap_err();
    assert_eq!(looked.to_string(), failure.to_string());
}

#[tokio::test]
async fn an_ordinary_table_that_keeps_the_values_is_used() {
    let place = Place::new();
    let sql = format!(
        "create table orders (note text default 'n', id integer, name varchar(20), amount text, score real, at datetime, {SYSTEM}, {UNIQUE})"
    );
    place.execute(&sql).await;
    let mut destination = place.destination(Append);
    destination.prepare().await.unwrap();
    destination.begin(&first_cursor()).await.unwrap();
    written(destination.write(&batch(&first_cursor(), &rows(1..3))).await);
    let stored = place
        .lines("select note, id, amount, typeof(amount), at, typeof(_position) from orders")
        .await;
    assert_eq!(
        stored,
        "n | 1 | 1.05 | text | 2026-11-23T23:24:04.123456Z | integer\nn | 2 | 2.05 | text | 2026-11-23T23:24:04.123456Z | integer"
    );
}

#[tokio::test]
async fn missing_columns_are_named_with_the_statements_that_add_them() {
    let sql =
        format!("create table orders (ID integer, name text, score real, {SYSTEM}, {UNIQUE})");
    check(
        Append,
        &sql,
        expect![[r#"
        table orders lacks columns amount, at: add them with
        ALTER TABLE "orders" ADD COLUMN "amount" TEXT;
        ALTER TABLE "orders" ADD COLUMN "at" TEXT;"#]],
    )
    .await;
}

#[tokio::test]
async fn a_column_that_would_change_values_is_refused() {
    let with = |amount: &str, position: &str| {
        let system = SYSTEM.replace("_position blob", position);
        format!(
            "create table orders (id integer, name text, amount {amount}, score real, at text, {system}, {UNIQUE})"
        )
    };
    check(Append, &with("decimal(10,2)", "_position blob"), expect![[r#"column amount of table orders is declared "decimal(10,2)", which would change its values: it must be TEXT"#]]).await;
    check(Append, &with("text", "_position integer"), expect![[r#"column _position of table orders is declared "INTEGER", which would change its values: it must be BLOB"#]]).await;
    check(
        Append,
        &with("text generated always as ('x')", "_position blob"),
        expect!["column amount of table orders is generated: rename the contract's column"],
    )
    .await;
}

#[tokio::test]
async fn a_column_nobody_fills_is_refused() {
    let sql = format!(
        "create table orders (id integer, name text, amount text, score real, at text, region text not null, {SYSTEM}, {UNIQUE})"
    );
    check(Append, &sql, expect!["column region of table orders is NOT NULL without a default and no column of the contract: give it a default"]).await;
}

#[tokio::test]
async fn the_unique_index_that_makes_a_replay_harmless_is_required() {
    let columns = "name text, amount text, score real, at text";
    let sql = format!("create table orders (id integer, {columns}, {SYSTEM})");
    check(
        Append,
        &sql,
        expect![[r#"
        table orders has no unique index on exactly (_origin, _position, _ordinal): create it with
        CREATE UNIQUE INDEX "orders_garam" ON "orders" ("_origin","_position","_ordinal")"#]],
    )
    .await;
    let partial = format!("{sql}; create unique index u on orders (id) where id > 5");
    check(
        Upsert,
        &partial,
        expect![[r#"
        table orders has no unique index on exactly (id): create it with
        CREATE UNIQUE INDEX "orders_garam" ON "orders" ("id")"#]],
    )
    .await;
}

#[tokio::test]
async fn an_upsert_refuses_another_unique_index() {
    let columns = "amount text, score real, at text";
    let sql = format!(
        "create table orders (id integer primary key, name text unique, {columns}, {SYSTEM})"
    );
    check(Upsert, &sql, expect!["table orders has another unique index, sqlite_autoindex_orders_1 on (name): an upsert by (id) could hit it for a row of another key: drop that index, make it non-unique, or use it as key"]).await;
}

#[tokio::test]
async fn the_rowid_is_a_unique_key() {
    let place = Place::new();
    let sql = format!(
        "create table orders (id integer primary key, name text, amount text, score real, at text, {SYSTEM})"
    );
    place.execute(&sql).await;
    let mut destination = place.destination(Upsert);
    destination.prepare().await.unwrap();
    destination.begin(&first_cursor()).await.unwrap();
    written(destination.write(&batch(&first_cursor(), &rows(1..40))).await);
    assert_eq!(place.count().await, 39);
}

#[tokio::test]
async fn a_view_is_no_table() {
    check(
        Append,
        "create view orders as select 1 as id",
        expect!["orders is a view, not a table: name another table"],
    )
    .await;
}

#[tokio::test]
async fn with_create_never_the_operator_is_handed_the_statement() {
    let place = Place::new();
    let mut config = place.config(Upsert);
    config.create = Create::Never;
    let failure = config.build(&schema()).unwrap().prepare().await.unwrap_err();
    let text = failure.to_string();
    let (advice, ddl) = text.split_once('\n').unwrap();
    assert_eq!(advice, "table orders does not exist and create = \"never\": create it with");
    place.execute(ddl).await;
    config.build(&schema()).unwrap().prepare().await.unwrap();
}

#[tokio::test]
async fn looking_changes_nothing() {
    let place = Place::new();
    let config = place.config(Append);
    assert_eq!(config.connect(&schema()).await.unwrap(), Readiness::DatabaseWillBeCreated);
    assert!(!place.path().try_exists().unwrap());
    place.execute("create table other (a)").await;
    assert_eq!(config.connect(&schema()).await.unwrap(), Readiness::TableWillBeCreated);
    place.ready(Append).await;
    assert_eq!(config.connect(&schema()).await.unwrap(), Readiness::Ready);
}

#[tokio::test]
async fn a_missing_folder_is_not_created() {
    let place = Place::new();
    let mut config = place.config(Append);
    config.path = place.folder.path().join("no/such/out.db");
    let folder = place.folder.path().display().to_string();
    let expect = expect![
        "cannot open database DIR/no/such/out.db: folder DIR/no/such: No such file or directory (os error 2): create it first"
    ];
    for failure in [
        config.build(&schema()).unwrap().prepare().await.unwrap_err(),
        config.connect(&schema()).await.unwrap_err(),
    ] {
        assert_eq!(failure.kind, FailureKind::Refused);
        expect.assert_eq(&failure.to_string().replace(&folder, "DIR"));
    }
    // A folder where the file should be.
    config.path = place.folder.path().to_owned();
    let failure = config.build(&schema()).unwrap().prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
}
