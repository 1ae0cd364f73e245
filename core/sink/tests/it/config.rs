//! `[pipeline.NAME.to.sqlite]`: what is read, what is refused before any database is touched.

use garam_sink::SinkConfig;
use garam_stage::FailureKind;
use serde_json::{Value, json};

use crate::fixture::schema;

/// What the check says; empty when it passes.
fn check(config: Value, expect: &str) {
    let config: SinkConfig = match serde_json::from_value(json!({ "sqlite": config })) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().contains(expect), "{error}");
            return;
        }
    };
    match config.check(&schema()) {
        Ok(()) => assert_eq!(expect, ""),
        Err(failure) => {
            assert_eq!(failure.kind, FailureKind::Config);
            assert_eq!(failure.to_string(), expect);
        }
    }
}

#[test]
fn mode_follows_the_key() {
    check(json!({"path": "a.db", "table": "t"}), "");
    check(json!({"path": "a.db", "table": "t", "key": "id"}), "");
    check(json!({"path": "a.db", "table": "t", "key": ["id"], "mode": "upsert"}), "");
    check(
        json!({"path": "a.db", "table": "t", "mode": "upsert"}),
        "mode \"upsert\" needs key = [..]: the columns that identify a row",
    );
    check(
        json!({"path": "a.db", "table": "t", "key": "id", "mode": "append"}),
        "mode \"append\" keeps every record, so key = [..] has no meaning: leave it out, or use mode \"upsert\"",
    );
}

#[test]
fn key_columns_must_be_there_and_never_null() {
    check(
        json!({"path": "a.db", "table": "t", "key": "nope"}),
        "key column nope is no column of the rows",
    );
    check(
        json!({"path": "a.db", "table": "t", "key": "name"}),
        "key column name may be null: declare it \"not null\" in the contract",
    );
    check(
        json!({"path": "a.db", "table": "t", "key": ["id", "id"]}),
        "key column id is named twice",
    );
}

#[test]
fn table_names_are_plain() {
    for table in ["", "1st", "a.b", "a\"b", "sqlite_x", "_GARAM_cursors", "a b"] {
        let expect = format!(
            "table name {table:?} cannot be used: 1 to 63 letters, digits and _, not beginning with a digit, \"sqlite_\" or \"_garam\""
        );
        check(json!({"path": "a.db", "table": table}), &expect);
    }
}

#[test]
fn unknown_keys_and_values_are_errors() {
    check(json!({"path": "a.db", "table": "t", "tabel": "t"}), "unknown field `tabel`");
    check(json!({"path": "a.db"}), "missing field `table`");
    check(json!({"path": "a.db", "table": "t", "create": "maybe"}), "unknown variant `maybe`");
    check(json!({"path": "a.db", "table": "t", "mode": "merge"}), "unknown variant `merge`");
}

#[test]
fn the_label_names_file_and_table() {
    let config = json!({"sqlite": {"path": "/srv/a.db", "table": "t"}});
    let config: SinkConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.label(), "sqlite /srv/a.db table t");
}
