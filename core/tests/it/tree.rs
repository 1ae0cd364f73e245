//! The tree over the real rooms: what an operator sees, and that a failing branch fails alone.

use garam_core::supervise::{Snapshot, State};
use sqlx::{Connection as _, Executor as _};

use crate::client::Client;
use crate::core_under_test::Core;

async fn tree(core: &Core) -> Snapshot {
    let (status, body) = core.ask("/v1/tree").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_core_is_ready_and_its_tree_is_whole() {
    let core = Core::start().await;
    core.eventually("readiness", || async { core.ask("/readyz").await.0 == 200 }).await;
    let tree = tree(&core).await;
    for path in ["admin/http", "data/meta", "data/log", "data/gateway", "data/pipelines/p/p0"] {
        let node = tree.at(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert!(
            !matches!(node.state, State::Parked | State::BackingOff { .. }),
            "{path}: {:?}",
            node.state
        );
        assert_eq!(node.generation, 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_broke_parks_its_own_branch_and_nobody_elses() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    core.delivered(&["one"]).await;
    let path = core.folder.path().join("data.sqlite");
    let mut database =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    database.execute("drop table lines; create table lines (other text) strict").await.unwrap();
    agent.push(1, 1, 1, 4, "two\n").await;
    agent.acked(1, 8).await;

    core.eventually("the branch is parked", || async {
        tree(&core).await.at("data/pipelines/p").is_some_and(|node| node.state == State::Parked)
    })
    .await;
    let tree = tree(&core).await;
    for path in ["data/meta", "data/log", "data/gateway"] {
        assert_eq!(
            tree.at(path).unwrap().generation,
            1,
            "{path} was restarted for another's fault"
        );
    }
    let (status, body) = core.ask("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("data/pipelines/p is parked"), "{body}");
    agent.push(1, 1, 1, 8, "three\n").await;
    agent.acked(1, 14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_what_happened_and_only_configured_labels() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    core.delivered(&["one", "two"]).await;
    let wanted = "garam_pipeline_delivered_records_total{pipeline=\"p\",partition=\"0\"} 2";
    core.eventually("the delivered counter", || async {
        core.ask("/metrics").await.1.contains(wanted)
    })
    .await;
    let (_, text) = core.ask("/metrics").await;
    assert!(text.contains("garam_sessions 1"), "{text}");
    assert!(
        !text.contains("web-01") && !text.contains("/test.log"),
        "hosts and paths are no labels: {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_rows_and_takes_nothing() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    agent.acked(1, 8).await;
    let (status, body) = core.ask("/v1/tap/p?limit=2&from=earliest").await;
    assert_eq!(status, 200, "{body}");
    let rows: Vec<serde_json::Value> =
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["line"], "one");
    assert_eq!(rows[1]["_host"], "web-01");
    core.delivered(&["one", "two"]).await;
    assert_eq!(core.ask("/v1/tap/nobody").await.0, 404);
}
