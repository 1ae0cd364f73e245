//! What is refused before any server is asked.

use std::time::Duration;

use garam_sink::mysql::{Mode, Url};
use garam_sink::sqlite::Create;
use garam_sink::{MySqlConfig, PostgresConfig, ServerConfig, SinkConfig};
use garam_stage::contract::OneOrMany;

use crate::fixture::schema;

fn good(url: &str) -> ServerConfig {
    ServerConfig {
        url_file: None,
        url: Some(Url(url.into())),
        password_file: None,
        table: "sales.orders".into(),
        mode: None,
        key: Some(OneOrMany::One("id".into())),
        version: None,
        truncate: None,
        create: Create::Never,
        statement_timeout: Duration::from_secs(60),
        shard: Vec::new(),
    }
}

/// Changes of a good configuration that no server can work with, and what is said about each.
fn changes(good: &ServerConfig) -> Vec<(ServerConfig, &'static str)> {
    let good = || good.clone();
    let key = |name: &str| Some(OneOrMany::One(name.into()));
    let table = |name: &str| ServerConfig { table: name.into(), ..good() };
    let guard = |name: &str| ServerConfig { version: Some(name.into()), ..good() };
    vec![
        (ServerConfig { url: None, ..good() }, "exactly one of url_file and url"),
        (ServerConfig { url_file: Some("x".into()), ..good() }, "exactly one of url_file and url"),
        (table("a.b.c"), "table name \"a.b.c\" cannot be used"),
        (table("x\";drop"), "cannot be used"),
        (table("x`;drop"), "cannot be used"),
        (table(&"o".repeat(64)), "cannot be used"),
        (table("_garam_cursors"), "cannot be used"),
        (
            ServerConfig { key: key("nothing"), ..good() },
            "key column nothing is no column of the rows",
        ),
        (ServerConfig { key: key("name"), ..good() }, "key column name may be null"),
        (
            ServerConfig { key: None, mode: Some(Mode::Ignore), ..good() },
            "mode \"ignore\" needs key",
        ),
        (ServerConfig { mode: Some(Mode::Append), ..good() }, "mode \"append\" keeps every record"),
        (
            ServerConfig { mode: Some(Mode::Insert), ..guard("id") },
            "version has no meaning in mode \"insert\"",
        ),
        (guard("_version"), "files of many hosts have no order of their own"),
        (guard("_ordinal"), "version column _ordinal is no column of the contract"),
        (guard("amount"), "version column amount may be null"),
        (ServerConfig { statement_timeout: Duration::ZERO, ..good() }, "out of bounds: 1s to 1h"),
    ]
}

fn check(sink: fn(ServerConfig) -> SinkConfig, url: &str, label: &str, foreign: (&str, &str)) {
    let good = good(url);
    assert_eq!(sink(good.clone()).label(), label);
    assert!(!format!("{:?}", sink(good.clone())).contains("secret"));
    sink(good.clone()).check(&schema()).unwrap();
    let (foreign, expect) = foreign;
    let foreign = ServerConfig { url: Some(Url(foreign.into())), ..good.clone() };
    for (config, expect) in changes(&good).into_iter().chain([(foreign, expect)]) {
        let found = sink(config).check(&schema()).unwrap_err().to_string();
        assert!(found.contains(expect), "{found}\nnot: {expect}");
    }
}

#[test]
fn postgres_configurations_that_cannot_work_are_refused_without_a_server() {
    check(
        |config| SinkConfig::Postgres(Box::new(PostgresConfig(config))),
        "postgres://u:secret@db.example:5433/shop",
        "postgres db.example:5433/shop table sales.orders",
        ("mysql://h/db", "url holds no PostgreSQL address"),
    );
}

#[test]
fn mysql_configurations_that_cannot_work_are_refused_without_a_server() {
    check(
        |config| SinkConfig::MySql(Box::new(MySqlConfig(config))),
        "mysql://u:secret@db.example:3307/shop",
        "mysql db.example:3307/shop table sales.orders",
        ("postgres://h/db", "url holds no MySQL address"),
    );
}
