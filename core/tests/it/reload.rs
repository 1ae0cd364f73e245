//! A changed configuration in a core that runs: what changed begins anew, what did not is not touched, what cannot be is refused whole.

use std::process::{Command, Output};

use garam_core::app::App;
use garam_core::config::{self, Config, Target};
use garam_core::pki::Pki;
use garam_core::supervise::{Snapshot, State};
use garam_sink::sqlite::{QueryLimits, read_only_query};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _};

use crate::client::Client;
use crate::core_under_test::Core;

/// Two pipelines of two streams; `DIR` is the folder.
const BEFORE: &str = "\
data_dir = 'DIR/core'
[gateway]
listen = '127.0.0.1:0'
[admin]
listen = '127.0.0.1:0'
[stream.logs]
[stream.web]
[pipeline.p]
from = 'logs'
to.sqlite = { path = 'DIR/data.sqlite', table = 'lines' }
[pipeline.q]
from = 'web'
to.sqlite = { path = 'DIR/web.sqlite', table = 'lines' }
";

/// A core that runs by a file which can be changed.
struct Changing {
    core: Core,
}

impl Changing {
    async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garam.toml");
        std::fs::write(&path, text.replace("DIR", &folder.path().display().to_string())).unwrap();
        let plan = config::load(&path).and_then(Config::check).unwrap();
        Pki::at(&plan.pki_dir).init("test").unwrap();
        let app = App::start(plan.clone()).await.unwrap();
        app.reads(&path);
        let changing = Self { core: Core { app, plan, folder } };
        changing.began("p").await;
        changing
    }

    fn write(&self, text: &str) {
        let folder = self.core.folder.path();
        let text = text.replace("DIR", &folder.display().to_string());
        std::fs::write(folder.join("garam.toml"), text).unwrap();
    }

    async fn reload(&self, text: &str) -> (u16, String) {
        self.write(text);
        self.core.ask_by("POST", "/v1/reload").await
    }

    /// The flow has a cursor of its own.
    async fn began(&self, pipeline: &str) {
        let name = format!("pipeline {pipeline} has not begun");
        self.core
            .eventually("it begins", || async {
                let (status, body) = self.core.ask("/v1/status").await;
                status == 200 && !body.contains(&name)
            })
            .await;
    }

    async fn tree(&self) -> Snapshot {
        serde_json::from_str(&self.core.ask("/v1/tree").await.1).unwrap()
    }

    /// Whether the branch runs, and since when.
    async fn uptime(&self, pipeline: &str) -> Option<u64> {
        let tree = self.tree().await;
        tree.at(&format!("data/pipelines/{pipeline}")).and_then(|node| node.uptime_ms)
    }

    /// The epoch of the pipeline's cursor: one more for each flow that took it over.
    async fn epoch(&self, pipeline: &str) -> u64 {
        let plan = self.core.plan.pipelines.iter().find(|plan| plan.name == pipeline).unwrap();
        let Target::Sink(sink) = &plan.to else { panic!("{pipeline} writes a stream") };
        sink.read_cursors().await.unwrap().first().unwrap().epoch
    }

    async fn rows(&self, file: &str, sql: &str) -> Vec<String> {
        let path = self.core.folder.path().join(file);
        let limits = QueryLimits { rows: 1_000_000, ..QueryLimits::default() };
        let Ok(answer) = read_only_query(&path, sql, limits).await else { return Vec::new() };
        let text = |row: &Vec<garam_sink::sqlite::QueryValue>| {
            row.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        answer.rows.iter().map(text).collect()
    }

    async fn holds(&self, file: &str, sql: &str, expect: &[&str]) {
        self.core
            .eventually(&format!("{file} holds {expect:?}"), || async {
                self.rows(file, sql).await == expect
            })
            .await;
    }

    async fn agent(&self) -> Client {
        Client::connect(self.core.app.gateway_addr(), &self.core.identity("web-1")).await.unwrap()
    }

    fn garam(&self, arguments: &[&str]) -> Output {
        let folder = self.core.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_garam"));
        command.arg("--config").arg(folder.join("garam.toml")).args(arguments);
        command.output().unwrap()
    }

    /// The item of one thing in what `garam check` says of the changes.
    fn checked(&self, text: &str, code: i32) -> Value {
        self.write(text);
        let output = self.garam(&["check", "-o", "json"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["changes"].clone()
    }
}

fn item<'a>(changes: &'a Value, name: &str) -> &'a Value {
    changes["items"].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap()
}

const LINES: &str = "select line from lines order by rowid";

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_begins_anew_at_a_batch_boundary_and_nothing_else_is_touched() {
    let changing = Changing::start(BEFORE).await;
    changing.began("q").await;
    let mut agent = changing.agent().await;
    agent.claim(1, 1, "logs").await.unwrap();
    agent.claim(2, 2, "web").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.push(2, 2, 1, 0, "get\n").await;
    changing.holds("data.sqlite", LINES, &["one"]).await;
    changing.holds("web.sqlite", LINES, &["get"]).await;
    let (of_p, of_q) = (changing.epoch("p").await, changing.epoch("q").await);
    let began = changing.uptime("q").await.unwrap();

    let faster = BEFORE.replace("[pipeline.p]", "[pipeline.p]\nmax_rows = 7");
    let checked = changing.checked(&faster, 0);
    assert_eq!((&checked["against"], &checked["verdict"]), (&"running".into(), &"applies".into()));
    assert_eq!(item(&checked, "p")["change"], "changed");
    assert_eq!(item(&checked, "q")["change"], "unchanged");
    let (status, body) = changing.reload(&faster).await;
    assert_eq!(status, 200, "{body}");
    changing.began("p").await;
    agent.push(1, 1, 1, 4, "two\n").await;
    agent.push(2, 2, 1, 4, "put\n").await;
    changing.holds("data.sqlite", LINES, &["one", "two"]).await;
    changing.holds("web.sqlite", LINES, &["get", "put"]).await;
    assert_eq!(changing.epoch("p").await, of_p + 1, "one flow after the other");
    assert_eq!(changing.epoch("q").await, of_q, "q was not taken over");
    assert!(changing.uptime("q").await.unwrap() >= began, "q was not restarted");
    let metrics = changing.core.ask("/metrics").await.1;
    let wanted = "garam_pipeline_delivered_records_total{pipeline=\"p\",partition=\"0\"} 2";
    assert!(metrics.contains(wanted), "{metrics}");

    let (status, body) = changing.reload(&faster).await;
    assert!(status == 200 && body.contains("\"verdict\":\"unchanged\""), "{body}");
    assert_eq!(changing.epoch("p").await, of_p + 1, "the same again touches nobody");
    let audit = std::fs::read_to_string(changing.core.plan.data_dir.join("audit/audit.jsonl"));
    assert!(audit.unwrap().contains("\"what\":\"admin-reload\""));

    // A core that does not run is compared with what it ran by.
    changing.core.app.stop(std::time::Duration::from_secs(20)).await.unwrap();
    let checked = changing.checked(BEFORE, 0);
    assert_eq!((&checked["against"], &checked["verdict"]), (&"recorded".into(), &"applies".into()));
    assert_eq!(item(&checked, "p")["details"][0]["before"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_taken_changes_nothing_and_is_told() {
    let changing = Changing::start(BEFORE).await;
    let mut agent = changing.agent().await;
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    changing.holds("data.sqlite", LINES, &["one"]).await;
    let epoch = changing.epoch("p").await;

    let new =
        "[pipeline.new]\nfrom = 'logs'\nto.sqlite = { path = 'DIR/new.sqlite', table = 'lines' }\n";
    let broken = format!("{BEFORE}{}", new.replace("'logs'", "'nobody'"));
    let (status, body) = changing.reload(&broken).await;
    assert!(status == 422 && body.contains("stream nobody is not configured"), "{status} {body}");
    let output = changing.garam(&["reload"]);
    assert_eq!(output.status.code(), Some(78));
    // One thing that cannot be keeps everything else back.
    let moved = format!(
        "{}{new}",
        BEFORE.replace("table = 'lines' }\n[pipeline.q]", "table = 'rows' }\n[pipeline.q]")
    );
    let checked = changing.checked(&moved, 6);
    let refused = &item(&checked, "p")["details"][0]["refused"];
    assert_eq!(refused["needs"], "new_pipeline");
    let (status, body) = changing.reload(&moved).await;
    assert!(status == 409 && body.contains("to.sqlite.table: lines → rows"), "{status} {body}");
    assert!(body.contains("needs a new pipeline: give it another name"), "{body}");
    assert_eq!(changing.garam(&["reload"]).status.code(), Some(6));
    let ports =
        BEFORE.replace("[admin]\nlisten = '127.0.0.1:0'", "[admin]\nlisten = '127.0.0.1:7'");
    assert_eq!(changing.checked(&ports, 0)["verdict"], "restart");
    let (status, body) = changing.reload(&ports).await;
    assert!(
        status == 409 && body.contains("admin.listen") && body.contains("needs a restart"),
        "{body}"
    );

    let (_, status) = changing.core.ask("/v1/status").await;
    assert!(
        status.contains("the changed configuration is not in force: nothing was changed"),
        "{status}"
    );
    assert!(!status.contains("\"new\""), "{status}");
    agent.push(1, 1, 1, 4, "two\n").await;
    changing.holds("data.sqlite", LINES, &["one", "two"]).await;
    assert_eq!(changing.epoch("p").await, epoch);
    assert!(changing.tree().await.at("data/pipelines/new").is_none());
    let (status, body) = changing.reload(BEFORE).await;
    assert_eq!(status, 200, "{body}");
    assert!(!changing.core.ask("/v1/status").await.1.contains("is not in force"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_pipelines_come_and_go_while_others_run() {
    let changing = Changing::start(BEFORE).await;
    changing.began("q").await;
    let epoch = changing.epoch("p").await;
    let mut agent = changing.agent().await;
    agent.claim(1, 1, "web").await.unwrap();
    agent.push(1, 1, 1, 0, "get\n").await;
    agent.acked(1, 4).await;
    changing.holds("web.sqlite", LINES, &["get"]).await;

    // q goes, r comes with a stream of its own and finds what its stream takes in.
    let (kept, _) = BEFORE.split_once("[pipeline.q]").unwrap();
    let other = format!(
        "{kept}[stream.orders]\n[pipeline.r]\nfrom = 'orders'\nto.sqlite = {{ path = 'DIR/r.sqlite', table = 'lines' }}\n"
    );
    let checked = changing.checked(&other, 0);
    assert_eq!(item(&checked, "orders")["change"], "added");
    assert_eq!(item(&checked, "r")["change"], "added");
    assert!(item(&checked, "q")["effect"].as_str().unwrap().contains("garam pause"));
    let (status, body) = changing.reload(&other).await;
    assert_eq!(status, 200, "{body}");
    let tree = changing.tree().await;
    assert!(tree.at("data/pipelines/q").is_none());
    assert!(tree.at("data/pipelines/r").is_some());
    agent.claim(2, 2, "orders").await.unwrap();
    agent.push(2, 2, 1, 0, "beer\n").await;
    agent.push(1, 1, 1, 4, "put\n").await;
    agent.acked(1, 8).await;
    changing.holds("r.sqlite", LINES, &["beer"]).await;
    assert_eq!(changing.rows("web.sqlite", LINES).await, ["get"]);
    assert_eq!(changing.epoch("p").await, epoch);

    // It comes back and goes on at its cursor, as the log still holds what came.
    let (_, again) = BEFORE.split_once("[pipeline.q]").unwrap();
    let both = format!("{other}[pipeline.q]{again}");
    let (status, body) = changing.reload(&both).await;
    assert_eq!(status, 200, "{body}");
    changing.holds("web.sqlite", LINES, &["get", "put"]).await;
    assert!(!matches!(changing.tree().await.at("data/pipelines/q").unwrap().state, State::Parked));
}

const JSON: &str = "[stream.logs]\ncontract = { format = 'json', unknown = 'drop', columns = { id = 'bigint not null' } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_grows_is_taken_once_its_table_has_the_column() {
    let before = BEFORE.replace("[stream.logs]", JSON);
    let changing = Changing::start(&before).await;
    let mut agent = changing.agent().await;
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "{\"id\":1}\n").await;
    let ids = "select id from lines order by id";
    changing.holds("data.sqlite", ids, &["1"]).await;

    let more = before.replace("'bigint not null'", "'bigint not null', note = 'text'");
    let (status, body) = changing.reload(&more).await;
    assert!(status == 409 && body.contains("pipeline p would not deliver"), "{status} {body}");
    assert!(body.contains("note"), "{body}");
    let path = changing.core.folder.path().join("data.sqlite");
    let mut database =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    database.execute("alter table lines add column note text").await.unwrap();
    let (status, body) = changing.reload(&more).await;
    assert_eq!(status, 200, "{body}");
    agent.push(1, 1, 1, 9, "{\"id\":2,\"note\":\"new\"}\n").await;
    changing
        .holds(
            "data.sqlite",
            "select id, coalesce(note, 'none') from lines order by id",
            &["1,none", "2,new"],
        )
        .await;

    let narrower = more.replace("bigint not null", "int not null");
    let checked = changing.checked(&narrower, 6);
    let detail = &item(&checked, "logs")["details"][0];
    assert_eq!((&detail["before"], &detail["after"]), (&"bigint".into(), &"int".into()));
    assert_eq!(detail["refused"]["needs"], "version");
    let (status, body) = changing.reload(&narrower).await;
    assert!(
        status == 409 && body.contains("say version = 2 in the contract if it is meant"),
        "{body}"
    );
    let raised = narrower.replace("format = 'json'", "format = 'json', version = 2");
    assert_eq!(changing.checked(&raised, 0)["verdict"], "applies");
}
