//! A whole core that delivers into real MariaDB and MySQL servers, which are killed under it.

use sqlx::Connection as _;

use crate::client::Client;
use crate::core_under_test::Core;
use crate::testbed::Server;

async fn lines(url: &str) -> Vec<String> {
    let Ok(mut connection) = sqlx::MySqlConnection::connect(url).await else { return Vec::new() };
    let sql = "select line from `lines` order by _position";
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap_or_default()
}

async fn lines_arrive_once_over_a_killed_server_and_a_restarted_core(kind: &'static str) {
    let server = Server::start(kind, "killed");
    let url = &server.url;
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("db.url");
    std::fs::write(&address, url).unwrap();
    let core = Core::delivering(folder, &format!("mysql]\nurl_file = {address:?}")).await;
    let identity = core.identity("web-01");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(0));
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    agent.acked(1, 8).await;
    core.eventually("two lines", || async { lines(url).await == ["one", "two"] }).await;

    // The server is gone; what is acknowledged meanwhile waits in the log.
    server.kill();
    agent.push(1, 1, 1, 8, "three\n").await;
    agent.acked(1, 14).await;
    server.start_again();
    let expected = ["one", "two", "three"];
    core.eventually("three lines", || async { lines(url).await == expected }).await;

    let core = core.restart().await;
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(14));
    agent.push(1, 1, 1, 14, "four\n").await;
    agent.acked(1, 19).await;
    let expected = ["one", "two", "three", "four"];
    core.eventually("four lines", || async { lines(url).await == expected }).await;
    let rows = "garam_sink_rows_total{pipeline=\"p\",table=\"lines\"} 1";
    core.eventually("the row is counted", || async { core.ask("/metrics").await.1.contains(rows) })
        .await;
    let (_, status) = core.ask("/v1/status").await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let sink = &status["pipelines"][0]["sink"];
    assert_eq!(sink["table"], "lines");
    assert_eq!(sink["rows"], 1);
    assert_eq!(sink["refused"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_reach_mariadb_once_over_a_killed_server_and_a_restarted_core() {
    lines_arrive_once_over_a_killed_server_and_a_restarted_core("mariadb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_reach_mysql_once_over_a_killed_server_and_a_restarted_core() {
    lines_arrive_once_over_a_killed_server_and_a_restarted_core("mysql").await;
}
