//! Row changes, from lines of JSON on the wire to a table that is the source's: by key and value, over restarts.

use std::path::Path;

use garam_core::app::App;
use garam_core::config::{self, Plan};
use garam_core::pki::Pki;
use garam_sink::sqlite::{QueryLimits, read_only_query};
use serde_json::{Value, json};

use crate::client::Client;
use crate::core_under_test::Core;

fn text(folder: &Path, pipeline: &str, to: &str) -> String {
    format!(
        "data_dir = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\nhandshake_timeout = \"2s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [stream.shop]\n[stream.shop.contract]\nformat = \"changes\"\nkey = \"id\"\ntables = [\"shop.orders\"]\n\
         [stream.shop.contract.columns]\nid = \"bigint not null\"\nname = \"text not null\"\nn = \"int\"\n\
         [pipeline.p]\nfrom = \"shop\"\n{pipeline}\n\
         [pipeline.p.to.sqlite]\npath = {:?}\ntable = \"orders\"\n{to}\n",
        folder.join("core"),
        folder.join("data.sqlite"),
    )
}

fn plan(folder: &Path, pipeline: &str, to: &str) -> Result<Plan, config::ConfigError> {
    config::parse("test", &text(folder, pipeline, to)).and_then(config::Config::check)
}

async fn start(to: &str) -> Core {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path(), "", to).unwrap();
    Pki::at(&plan.pki_dir).init("test").unwrap();
    let app = App::start(plan.clone()).await.unwrap();
    Core { app, plan, folder }
}

fn event(op: &str, before: &Value, after: &Value) -> String {
    let source = json!({"db": "shop", "table": "orders", "ts_ms": 1_795_476_244_000_u64});
    format!("{}\n", json!({"op": op, "before": before, "after": after, "source": source}))
}

fn row(id: i64, name: &str, n: i64) -> Value {
    json!({"id": id, "name": name, "n": n})
}

async fn rows(core: &Core, sql: &str) -> Vec<String> {
    let path = core.folder.path().join("data.sqlite");
    let Ok(answer) = read_only_query(&path, sql, QueryLimits::default()).await else {
        return Vec::new();
    };
    let row = |row: Vec<garam_sink::sqlite::QueryValue>| {
        row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
    };
    answer.rows.into_iter().map(row).collect()
}

async fn figures(core: &Core) -> [u64; 4] {
    let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
    let pipeline = &status["pipelines"][0];
    ["records_in", "delivered", "quarantined", "dropped"]
        .map(|name| pipeline[name].as_u64().unwrap_or_default())
}

/// What a source's log may hold: each kind of event, and what is not for this table.
fn story() -> [String; 2] {
    let none = Value::Null;
    let other =
        json!({"op": "c", "after": row(9, "other", 9), "source": {"db": "shop", "table": "users"}});
    let wrapped = json!({"schema": {}, "payload":
        {"op": "r", "after": row(4, "four", 4), "source": {"db": "shop", "table": "orders"}}});
    let first = [
        event("c", &none, &row(1, "one", 1)),
        event("c", &none, &row(2, "two", 2)),
        event("r", &none, &row(3, "three", 3)),
        format!("{wrapped}\n"),
        format!("{other}\n"),
        event("d", &row(2, "two", 2), &none),
        "null\n".to_owned(),
    ];
    let second = [
        event("u", &row(1, "one", 1), &row(1, "uno", 10)),
        // The key changes: 3 is gone, 5 is there.
        event("u", &row(3, "three", 3), &row(5, "five", 5)),
        // A delete that knows the key alone.
        event("d", &json!({"id": 4}), &none),
        event("c", &none, &row(4, "again", 44)),
        // Not a whole row, and a row without its name: put aside, never null.
        event("u", &none, &json!({"id": 1, "n": 11})),
        event("c", &none, &json!({"id": 6, "name": null, "n": 6})),
    ];
    [first.concat(), second.concat()]
}

async fn tell(core: &Core, parts: &[String]) {
    let identity = core.identity("db-1");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "shop").await.unwrap();
    let mut at = 0;
    for part in parts {
        agent.push(1, 1, 1, at, part).await;
        at += part.len() as u128;
        agent.acked(1, at).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_follows_inserts_updates_deletes_and_changed_keys_over_a_restart() {
    let core = start("key = \"id\"").await;
    let [first, second] = story();
    tell(&core, std::slice::from_ref(&first)).await;
    let core = core.restart().await;
    let identity = core.folder.path().join("db-1");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "shop").await.unwrap();
    agent.push(1, 1, 1, first.len() as u128, &second).await;
    core.eventually("all records are accounted for", || async {
        figures(&core).await == [13, 9, 2, 2]
    })
    .await;
    let found = rows(&core, "select id, name, n from orders order by id").await;
    assert_eq!(found, ["1|uno|10", "4|again|44", "5|five|5"]);
    let columns = rows(&core, "select name from pragma_table_info('orders') where name = '_op'");
    assert!(columns.await.is_empty(), "a table that obeys does not store what it was told");
    let (_, metrics) = core.ask_plainly("/metrics").await;
    for reason in ["filtered", "tombstone"] {
        let line = metrics.lines().find(|line| line.contains(&format!("reason=\"{reason}\"")));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{reason}: {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_keeps_every_change_with_what_it_was() {
    let core = start("").await;
    tell(&core, &story()).await;
    core.eventually("all records are accounted for", || async {
        figures(&core).await == [13, 9, 2, 2]
    })
    .await;
    let found =
        rows(&core, "select id, name, _op, _ordinal from orders order by _position, _ordinal")
            .await;
    assert_eq!(
        found,
        [
            "1|one|insert|0",
            "2|two|insert|0",
            "3|three|insert|0",
            "4|four|insert|0",
            "2|two|delete|0",
            "1|uno|update|0",
            "3|three|delete|0",
            "5|five|insert|1",
            "4|NULL|delete|0",
            "4|again|insert|0",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_source_empties_the_table_only_where_that_is_said() {
    let told = |last: i64| {
        let none = Value::Null;
        let events = [
            event("c", &none, &row(1, "one", 1)),
            event("t", &none, &none),
            event("c", &none, &row(last, "last", 2)),
        ];
        events.concat()
    };
    let core = start("key = \"id\"\ntruncate = \"apply\"").await;
    tell(&core, &[told(2)]).await;
    core.eventually("all is delivered", || async { figures(&core).await == [3, 3, 0, 0] }).await;
    assert_eq!(rows(&core, "select id from orders").await, ["2"]);

    let core = start("key = \"id\"\ntruncate = \"ignore\"").await;
    tell(&core, &[told(2)]).await;
    core.eventually("all is accounted for", || async { figures(&core).await == [3, 2, 0, 1] })
        .await;
    assert_eq!(rows(&core, "select id from orders order by id").await, ["1", "2"]);

    let core = start("key = \"id\"").await;
    tell(&core, &[told(2)]).await;
    core.eventually("the pipeline waits for a person", || async {
        core.ask("/v1/status").await.1.contains("waits for a person: say truncate")
    })
    .await;
    assert!(rows(&core, "select id from orders").await.is_empty(), "nothing of the batch is in");
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let check = |pipeline: &str, to: &str, expect: Option<&str>| {
        let found = plan(folder.path(), pipeline, to).err().map(|error| error.to_string());
        match (&found, expect) {
            (None, None) => {}
            (Some(found), Some(expect)) => assert!(found.contains(expect), "{found}"),
            _ => panic!("{pipeline} {to}: {found:?}, expected {expect:?}"),
        }
    };
    let keyed = "key = \"id\"";
    check("", keyed, None);
    check("sql = \"select n, id as order_id from input\"", "key = \"order_id\"", None);
    check("sql = \"select id from input where n > 1\"", "", None);
    check("sql = \"select id from input where n > 1\"", keyed, Some("write no `where`"));
    check(
        "sql = \"select id + 1 as id from input\"",
        keyed,
        Some("the key of the stream's contract"),
    );
    check("", "key = \"name\"", Some("the key of the stream's contract"));
    check("", "truncate = \"apply\"", Some("truncate has no meaning here"));
}
