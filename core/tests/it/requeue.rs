//! What was put aside, out of the operator's hands: mended, requeued, exported, purged; by the real command line.

use std::process::{Command, Output};

use serde_json::Value;

use crate::client::Client;
use crate::core_under_test::Core;

const STRICT: &str = "[stream.logs.contract]\nformat = 'json'\nunknown = 'drop'\n[stream.logs.contract.columns]\nline = 'int not null'\n";
const LENIENT: &str = "[stream.logs.contract]\nformat = 'json'\nunknown = 'drop'\n[stream.logs.contract.columns]\n\
    line = { type = 'int not null', cast = 'lenient' }\n";

fn garam(core: &Core, contract: &str, arguments: &[&str]) -> Output {
    let folder = core.folder.path();
    let text = format!(
        "data_dir = {:?}\n[gateway]\nlisten = {:?}\n[admin]\nlisten = {:?}\n{contract}[stream.logs]\n[pipeline.p]\nfrom = \"logs\"\n\
         [pipeline.p.to.sqlite]\npath = {:?}\ntable = \"lines\"\n",
        folder.join("core"),
        core.app.gateway_addr().to_string(),
        core.app.admin_addr().to_string(),
        folder.join("data.sqlite"),
    );
    std::fs::write(folder.join("garam.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_garam"));
    command.arg("--config").arg(folder.join("garam.toml")).args(arguments).current_dir(folder);
    command.output().unwrap()
}

#[track_caller]
fn ends(core: &Core, contract: &str, arguments: &[&str], code: i32) -> String {
    let output = garam(core, contract, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text + &String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(core: &Core, contract: &str, arguments: &[&str]) -> Value {
    let output = garam(core, contract, &[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn waits(core: &Core, count: u64) {
    let wanted = format!("\"waiting\":{count},");
    core.eventually(&format!("{count} records wait"), || async {
        core.ask("/v1/status").await.1.contains(&wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_is_delivered_once_after_the_contract_is_mended() {
    let core = Core::with("", STRICT).await;
    let identity = core.identity("web-1");
    let text = "{\"line\":1}\n{\"line\":\"7\"}\n{\"line\":3}\n{\"line\":\"x\"}\n";
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, text).await;
    agent.acked(1, text.len() as u128).await;
    core.delivered(&["1", "3"]).await;
    waits(&core, 2).await;

    let listed = json(&core, STRICT, &["dlq", "ls", "p"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["reason"], &listed[0]["state"]), (&"type".into(), &"waiting".into()));
    assert_eq!(listed[0]["detail"], "column line: expected int, found \"7\"");
    let tapped = core.ask("/v1/tap/p?limit=2&from=earliest&stage=quarantined").await.1;
    let tapped: Vec<Value> =
        tapped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(tapped.len(), 2);
    for (tapped, listed) in tapped.iter().zip(listed) {
        assert_eq!((&tapped["id"], &tapped["detail"]), (&listed["id"], &listed["detail"]));
        assert_eq!(tapped["quarantined"], listed["reason"]);
    }
    assert_eq!(tapped[0]["record"], "{\"line\":\"7\"}");
    let text = ends(&core, STRICT, &["dlq", "requeue", "p", "--all"], 2);
    assert!(text.contains("2 records put aside as type: to be delivered again"), "{text}");
    assert!(text.contains("nothing was changed: give --yes to do it"), "{text}");
    let text = ends(&core, STRICT, &["dlq", "requeue", "p"], 2);
    assert!(text.contains("which records? Give ids, --reason or --all"), "{text}");
    let text = ends(&core, STRICT, &["dlq", "requeue", "p", "9.9", "--yes"], 3);
    assert!(text.contains("pipeline p has no quarantined record 9.9"), "{text}");
    ends(&core, STRICT, &["dlq", "requeue", "p", "seven", "--yes"], 2);

    // Still broken: put aside again, nothing delivered twice.
    let id = listed[0]["id"].as_str().unwrap();
    ends(&core, STRICT, &["dlq", "requeue", "p", id, "--yes", "--wait", "30"], 0);
    let again = || async {
        let shown = json(&core, STRICT, &["dlq", "ls", "p"]);
        shown.as_array().unwrap().iter().filter(|aside| aside["stream"] != "logs").count() == 1
    };
    core.eventually("it is put aside again", again).await;
    let text = ends(&core, STRICT, &["dlq", "requeue", "p", id, "--yes"], 3);
    assert!(text.contains(&format!("record {id} is requeued already")), "{text}");

    let core = core.restart_with(LENIENT).await;
    let asked = json(&core, LENIENT, &["dlq", "requeue", "p", "--all", "--yes", "--wait", "30"]);
    assert_eq!((&asked["records"], &asked["done"]["taken"]), (&2.into(), &2.into()));
    core.delivered(&["1", "3", "7"]).await;
    waits(&core, 1).await;
    let core = core.restart_with(LENIENT).await;
    waits(&core, 1).await;
    core.delivered(&["1", "3", "7"]).await;
    let figures = || async {
        let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
        let pipeline = &status["pipelines"][0];
        let figures = ["records_in", "requeued", "delivered", "quarantined"];
        figures.map(|figure| pipeline[figure].as_u64().unwrap()) == [7, 3, 3, 4]
    };
    core.eventually("both lanes are counted", figures).await;

    let requests = json(&core, LENIENT, &["dlq", "requests", "p"]);
    let states: Vec<_> = requests.as_array().unwrap().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["done", "done"]);
    let shown = ends(&core, LENIENT, &["dlq", "export", "p", "--raw", "--to", "bad.log"], 0);
    assert!(shown.contains("1 records"), "{shown}");
    let kept = std::fs::read_to_string(core.folder.path().join("bad.log")).unwrap();
    assert_eq!(kept, "{\"line\":\"x\"}\n");
    ends(&core, LENIENT, &["dlq", "export", "p", "--to", "bad.log"], 6);
    ends(&core, LENIENT, &["dlq", "purge", "p", "--all", "--yes", "--wait", "30"], 0);
    waits(&core, 0).await;
    ends(&core, LENIENT, &["dlq", "purge", "p", "--all", "--yes"], 3);
    let all = json(&core, LENIENT, &["dlq", "ls", "p", "--all"]);
    let states: Vec<_> = all.as_array().unwrap().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["requeued", "requeued", "requeued", "purged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_most_records_break_parks_the_pipeline_with_one_error() {
    let core = Core::with("", STRICT).await;
    let identity = core.identity("web-1");
    let text = "{\"line\":\"x\"}\n".repeat(200);
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, &text).await;
    agent.acked(1, text.len() as u128).await;
    core.eventually("the pipeline is parked", || async {
        core.ask("/v1/status").await.1.contains("is parked")
    })
    .await;
    let (_, status) = core.ask("/v1/status").await;
    let told = "200 of 200 records from offset";
    assert!(status.contains(told), "{status}");
    assert!(status.contains("the first with type: column line: expected int, found"), "{status}");
    assert!(status.contains("nothing was put aside"), "{status}");
    let listed = json(&core, STRICT, &["dlq", "ls", "p"]);
    assert_eq!(listed.as_array().unwrap().len(), 0);
    // A contract that fits, and nothing was lost.
    let core = core
        .restart_with(&LENIENT.replace("cast = 'lenient'", "default = 5, on_breach = 'default'"))
        .await;
    core.eventually("all are delivered", || async { core.lines().await.len() == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_waits_over_restarts_and_goes_on_where_it_stood() {
    let core = Core::with("", STRICT).await;
    let identity = core.identity("web-1");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "{\"line\":1}\n").await;
    core.delivered(&["1"]).await;
    ends(&core, STRICT, &["pause", "p"], 2);
    ends(&core, STRICT, &["pause", "p", "--reason", "table is rebuilt"], 0);
    let is_paused = || async {
        let status = core.ask("/v1/status").await.1;
        status.contains("\"state\":\"paused\"")
            && status.contains("\"paused\":\"table is rebuilt\"")
    };
    core.eventually("it is paused", is_paused).await;
    // The flow has stopped when the tree says what it waits for.
    core.eventually("it waits", || async {
        core.ask("/v1/tree").await.1.matches("an operator: it is paused").count() >= 1
    })
    .await;
    agent.push(1, 1, 1, 11, "{\"line\":2}\n").await;
    agent.acked(1, 22).await;
    let core = core.restart_with(STRICT).await;
    assert!(core.ask("/v1/status").await.1.contains("\"state\":\"paused\""));
    assert_eq!(core.lines().await, ["1"]);
    let told = ends(&core, STRICT, &["resume", "p"], 0);
    assert!(told.contains("a running core lets it go on"), "{told}");
    core.delivered(&["1", "2"]).await;
}

/// What the core is unhealthy for.
async fn complaints(core: &Core) -> String {
    let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
    status["why"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_too_long_is_an_alarm_until_it_is_gone() {
    let core = Core::with("", &format!("{STRICT}[pipeline.p.quarantine]\nmax_age = '0s'\n")).await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-1")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "{\"line\":\"x\"}\n").await;
    core.eventually("the alarm", || async {
        complaints(&core).await.contains("quarantine of p: 1 records wait, the oldest for ")
    })
    .await;
    assert_eq!(core.ask_plainly("/readyz").await.0, 503);
    ends(&core, STRICT, &["dlq", "purge", "p", "--all", "--yes", "--wait", "30"], 0);
    core.eventually("no alarm", || async { !complaints(&core).await.contains("quarantine") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_that_fills_is_an_alarm_and_a_full_one_stops_the_pipeline_without_a_loss() {
    let tables = format!("{STRICT}[pipeline.p.quarantine]\nquota = '64MiB'\nmax_share = 1.0\n");
    let core = Core::with("", &tables).await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-1")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut at, mut sent) = (0, 0_u32);
    let mut send = async |agent: &mut Client| {
        let noise: String =
            std::iter::repeat_with(|| random.alphanumeric()).take(1 << 20).collect();
        let line = format!("{{\"line\":\"{}\"}}\n", &noise[..1_000_000]);
        agent.push(1, 1, 1, at, &line).await;
        at += line.len() as u128;
        agent.acked(1, at).await;
        sent += 1;
        sent
    };
    let filling = "bytes are used, the pipeline stops when it is full: raise quarantine.quota";
    while !complaints(&core).await.contains(filling) {
        assert!(send(&mut agent).await < 90, "no alarm at four fifths of 64 MiB");
    }
    // It stops with what it could not put aside still in the log.
    let full = "full: its ";
    while !complaints(&core).await.contains(full) {
        assert!(send(&mut agent).await < 200, "more than 64 MiB are put aside");
    }
    let sent = send(&mut agent).await;
    let settled = async |core: &Core| {
        let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
        status["pipelines"][0]["quarantined"].as_u64().unwrap()
    };
    assert!(settled(&core).await < u64::from(sent));
    // Requests are carried out all the same; what they leave behind is kept until the stream has let go of those records.
    ends(&core, STRICT, &["dlq", "purge", "p", "--all", "--yes", "--wait", "30"], 0);
    waits(&core, 0).await;
    let core = core.restart_with(&tables.replace("64MiB", "128MiB")).await;
    core.eventually("every record is put aside", || async {
        settled(&core).await == u64::from(sent)
    })
    .await;
    core.eventually("no alarm", || async { !complaints(&core).await.contains("quarantine") }).await;
}
