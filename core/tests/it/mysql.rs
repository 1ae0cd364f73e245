//! A whole core that delivers into real MariaDB and MySQL servers, which are killed under it.

use sqlx::Connection as _;

use crate::testbed::lines_arrive_once_over_a_kill;

async fn lines(url: &str) -> Vec<String> {
    let Ok(mut connection) = sqlx::MySqlConnection::connect(url).await else { return Vec::new() };
    let sql = "select line from `lines` order by _position";
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap_or_default()
}

async fn lines_arrive_once_over_a_killed_server_and_a_restarted_core(kind: &'static str) {
    let (core, _server) = lines_arrive_once_over_a_kill(kind, "mysql", lines).await;
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
