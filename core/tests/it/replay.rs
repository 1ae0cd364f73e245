//! What the log still holds, delivered again by the real command line: into a table that lost rows, and not where that is not exact.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use sqlx::{Connection as _, Executor as _};

use crate::client::Client;
use crate::core_under_test::Core;

const REQUEST: &str = "6f1b1f4e-6d0a-4a55-9c1e-0d1f8a7c2b11";

fn garam(folder: &Path, more: &str, arguments: &[&str]) -> Output {
    let text = format!(
        "data_dir = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[stream.logs]\n[pipeline.p]\n\
         from = \"logs\"\n[pipeline.p.to.sqlite]\npath = {:?}\ntable = \"lines\"\n{more}\n",
        folder.join("core"),
        folder.join("data.sqlite"),
    );
    std::fs::write(folder.join("garam.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_garam"));
    command.arg("--config").arg(folder.join("garam.toml")).args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn ends(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = garam(folder, "", arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text + &String::from_utf8(output.stdout).unwrap()
}

async fn execute(folder: &Path, sql: &'static str) {
    let path = folder.join("data.sqlite");
    let mut database =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    database.execute(sql).await.unwrap();
}

async fn counts(core: &Core) -> [u64; 3] {
    let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
    let pipeline = &status["pipelines"][0];
    ["records_in", "delivered", "dropped"].map(|figure| pipeline[figure].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lost_rows_is_made_whole_and_the_rest_stays_as_it_is() {
    let core = Core::start().await;
    let home = core.folder.path().to_owned();
    let folder = home.as_path();
    let identity = core.identity("web-1");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    for (number, line) in ["one\n", "two\n", "six\n"].iter().enumerate() {
        agent.push(1, 1, 1, 4 * number as u128, line).await;
    }
    core.delivered(&["one", "two", "six"]).await;
    execute(folder, "delete from lines where line <> 'one'").await;

    let told = ends(folder, &["replay", "p", "--from", "2099-01-01T00:00:00Z", "--yes"], 3);
    assert!(told.contains("p has delivered nothing since then"), "{told}");
    let told = ends(folder, &["replay", "p", "--from", "99", "--yes"], 6);
    assert!(told.contains("partition logs/0: the log holds 0 to 4, not 99"), "{told}");
    let told = ends(folder, &["replay", "p", "--from", "1h"], 2);
    assert!(told.contains("up to the cursor at 4: 3 records, 12 B as they were read"), "{told}");
    assert!(told.contains("nothing was changed: give --yes to do it"), "{told}");
    ends(folder, &["replay", "p", "--from", "1h", "--dry-run"], 0);
    assert_eq!(core.lines().await, ["one"]);

    let asked = ["replay", "p", "--from", "1h", "--yes", "--request", REQUEST, "--wait", "30"];
    ends(folder, &asked, 0);
    core.delivered(&["one", "two", "six"]).await;
    core.eventually("it is counted", || async { counts(&core).await == [6, 5, 1] }).await;
    let told = ends(folder, &asked, 0);
    assert!(told.contains(&format!("request {REQUEST} is carried out already")), "{told}");
    agent.push(1, 1, 1, 12, "ten\n").await;
    core.delivered(&["one", "two", "six", "ten"]).await;
    assert_eq!(counts(&core).await, [7, 6, 1], "once");
    assert_eq!(ends(folder, &["dlq", "requests", "-o", "json"], 0).trim(), "[]");
    let audit = std::fs::read_to_string(core.plan.data_dir.join("audit/audit.jsonl")).unwrap();
    assert!(audit.contains("\"what\":\"replay\"") && audit.contains(REQUEST), "{audit}");

    let output = garam(folder, "key = 'line'", &["replay", "p", "--from", "0", "--yes"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{told}");
    let why =
        "cannot be replayed exactly: old rows are put over newer ones until the log is caught up";
    assert!(told.contains(why), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_asked_of_a_core_that_is_down_or_paused_waits_for_it() {
    let core = Core::start().await;
    let home = core.folder.path().to_owned();
    let folder = home.as_path();
    let identity = core.identity("web-1");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    core.delivered(&["one"]).await;
    ends(folder, &["pause", "p", "--reason", "repair"], 0);
    core.eventually("it is paused", || async {
        core.ask("/v1/status").await.1.contains("\"state\":\"paused\"")
    })
    .await;
    execute(folder, "delete from lines").await;
    ends(folder, &["replay", "p", "--from", "0", "--yes", "--wait", "30"], 0);
    assert!(core.ask("/v1/status").await.1.contains("\"paused\":\"repair\""), "it stays paused");
    let core = core.restart().await;
    assert!(core.lines().await.is_empty());
    ends(folder, &["resume", "p"], 0);
    core.delivered(&["one"]).await;

    let Core { app, plan, folder: kept } = core;
    app.stop(std::time::Duration::from_secs(20)).await.unwrap();
    drop(app);
    execute(folder, "delete from lines").await;
    ends(folder, &["replay", "p", "--from", "0", "--yes"], 0);
    let app = garam_core::app::App::start(plan.clone()).await.unwrap();
    Core { app, plan, folder: kept }.delivered(&["one"]).await;
}
