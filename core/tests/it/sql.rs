//! A pipeline with SQL, from the wire to SQLite: each record is delivered, put aside or left out, once, over restarts.

use std::path::Path;
use std::process::{Command, Output};

use garam_core::app::App;
use garam_core::config::{self, Plan};
use garam_core::pki::Pki;
use garam_sink::sqlite::{QueryLimits, read_only_query};
use serde_json::Value;

use crate::client::Client;
use crate::core_under_test::Core;

const SQL: &str = "select id, 'n' || cast(100 / n as text) as line from input where word <> 'skip'";

fn text(folder: &Path, sql: &str) -> String {
    format!(
        "data_dir = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\nhandshake_timeout = \"2s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [stream.logs.contract]\nformat = \"json\"\n[stream.logs.contract.columns]\nid = \"bigint not null\"\nword = \"text\"\nn = \"int\"\n\
         [stream.logs]\n[pipeline.p]\nfrom = \"logs\"\nsql = \"{sql}\"\n\
         [pipeline.p.to.sqlite]\npath = {:?}\ntable = \"lines\"\n",
        folder.join("core"),
        folder.join("data.sqlite"),
    )
}

fn plan(folder: &Path, sql: &str) -> Result<Plan, config::ConfigError> {
    config::parse("test", &text(folder, sql)).and_then(config::Config::check)
}

async fn start() -> Core {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path(), SQL).unwrap();
    Pki::at(&plan.pki_dir).init("test").unwrap();
    let app = App::start(plan.clone()).await.unwrap();
    Core { app, plan, folder }
}

/// Of ten records one has n = 0, two are to be left out, one breaks the contract.
fn records(ids: std::ops::Range<i64>) -> String {
    let record = |id: i64| match id % 10 {
        0 => format!("{{\"id\":{id},\"word\":\"go\",\"n\":0}}\n"),
        3 | 6 => format!("{{\"id\":{id},\"word\":\"skip\",\"n\":0}}\n"),
        7 => format!("{{\"id\":{id},\"word\":\"go\",\"n\":\"many\"}}\n"),
        _ => format!("{{\"id\":{id},\"word\":\"go\",\"n\":{}}}\n", 1 + id % 4),
    };
    ids.map(record).collect()
}

async fn rows(core: &Core, sql: &str) -> Vec<String> {
    let limits = QueryLimits { rows: 1_000_000, ..QueryLimits::default() };
    let path = core.folder.path().join("data.sqlite");
    let Ok(answer) = read_only_query(&path, sql, limits).await else { return Vec::new() };
    let row = |row: Vec<garam_sink::sqlite::QueryValue>| {
        row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
    };
    answer.rows.into_iter().map(row).collect()
}

async fn figures(core: &Core) -> [u64; 4] {
    let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
    let pipeline = &status["pipelines"][0];
    ["records_in", "delivered", "quarantined", "dropped"]
        .map(|name| pipeline[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_delivered_put_aside_or_left_out_once_over_a_restart() {
    let core = start().await;
    let identity = core.identity("web-1");
    let (first, second) = (records(0..500), records(500..1000));
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, &first).await;
    agent.acked(1, first.len() as u128).await;
    // In the middle of whatever the pipeline does.
    let core = core.restart().await;
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, first.len() as u128, &second).await;
    agent.acked(1, (first.len() + second.len()) as u128).await;
    core.eventually("all records are accounted for", || async {
        figures(&core).await == [1000, 600, 200, 200]
    })
    .await;

    let expected: Vec<String> = (0..1000_i64)
        .filter(|id| ![0, 3, 6, 7].contains(&(id % 10)))
        .map(|id| format!("{id}|n{}", 100 / (1 + id % 4)))
        .collect();
    assert_eq!(rows(&core, "select id, line from lines order by id").await, expected);
    let named = "select count(distinct hex(_origin) || hex(_position) || _ordinal) from lines";
    assert_eq!(rows(&core, named).await, ["600"]);
    assert_eq!(rows(&core, "select distinct _host from lines").await, ["web-1"]);
    let (_, metrics) = core.ask_plainly("/metrics").await;
    let filtered = metrics.lines().find(|line| line.contains("reason=\"filtered\"")).unwrap();
    assert!(filtered.ends_with(" 200"), "{filtered}");

    let aside = json(&core, &["dlq", "ls", "p"]);
    let of = |reason: &str| {
        aside.as_array().unwrap().iter().filter(|one| one["reason"] == reason).count()
    };
    assert_eq!((of("sql"), of("type")), (100, 100));
    let told = aside.as_array().unwrap().iter().find(|one| one["reason"] == "sql").unwrap();
    assert_eq!(told["detail"], "column line: Divide by zero error");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_sql_is_a_new_plan_and_mended_records_are_delivered_once() {
    let mut core = start().await;
    let identity = core.identity("web-1");
    let text = records(0..10);
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, &text).await;
    agent.acked(1, text.len() as u128).await;
    core.eventually("all are accounted for", || async { figures(&core).await == [10, 6, 2, 2] })
        .await;
    let before = rows(&core, "select distinct plan from _garam_cursors").await;

    let mended = "select id, 'n' || coalesce(cast(100 / nullif(n, 0) as text), '?') as line from input where word <> 'skip'";
    core.plan = plan(core.folder.path(), mended).unwrap();
    let core = core.restart().await;
    let asked = json(&core, &["dlq", "requeue", "p", "--reason", "sql", "--yes", "--wait", "30"]);
    assert_eq!(asked["records"], 1);
    core.eventually("the mended record is delivered", || async {
        rows(&core, "select line from lines where id = 0").await == ["n?"]
    })
    .await;
    assert_eq!(rows(&core, "select count(*) from lines").await, ["7"]);
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, text.len() as u128, "{\"id\":11,\"word\":\"go\",\"n\":0}\n").await;
    core.eventually("the new SQL is at work", || async {
        rows(&core, "select line from lines where id = 11").await == ["n?"]
    })
    .await;
    let after = rows(&core, "select distinct plan from _garam_cursors").await;
    assert!(after.iter().all(|plan| !before.contains(plan)), "{before:?} {after:?}");
}

fn garam(core: &Core, arguments: &[&str]) -> Output {
    let folder = core.folder.path();
    std::fs::write(folder.join("garam.toml"), text(folder, SQL)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_garam"));
    command.arg("--config").arg(folder.join("garam.toml")).args(arguments).current_dir(folder);
    command.output().unwrap()
}

fn json(core: &Core, arguments: &[&str]) -> Value {
    let output = garam(core, &[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn sql_that_does_not_fit_is_refused_at_the_start_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |sql: &str| plan(folder.path(), sql).unwrap_err().to_string();
    let text = refused("select count(*) as n from input");
    assert!(
        text.contains("pipeline.p.sql") && text.contains("the aggregate count() is refused"),
        "{text}"
    );
    let text = refused("select idd from input");
    assert!(text.contains("there is no column idd: did you mean id?"), "{text}");
    let upsert =
        self::text(folder.path(), "select word from input") + "mode = \"upsert\"\nkey = \"id\"\n";
    let text =
        config::parse("test", &upsert).and_then(config::Config::check).unwrap_err().to_string();
    assert!(text.contains("pipeline.p.to.sqlite") && text.contains("id"), "{text}");
}
