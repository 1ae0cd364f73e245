//! A whole core that delivers into a real PostgreSQL server, which is killed under it.

use std::path::Path;
use std::process::Command;

use sqlx::Connection as _;

use crate::client::Client;
use crate::core_under_test::Core;

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../soak-tests/testbed/postgres");

/// Runs the testbed's script; a machine that cannot have a server fails the test.
fn testbed(verb: &str, folder: &Path) -> String {
    let owner = std::process::id().to_string();
    let mut command = Command::new(TESTBED);
    command.arg(verb).arg(folder);
    if verb == "start" {
        command.arg(owner);
    }
    let done = command.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "no PostgreSQL server to test against: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

async fn lines(url: &str) -> Vec<String> {
    let Ok(mut connection) = sqlx::PgConnection::connect(url).await else { return Vec::new() };
    let sql = "select line from lines order by _position";
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_reach_postgres_once_over_a_killed_server_and_a_restarted_core() {
    let place = std::env::temp_dir().join(format!("garam-core-postgres-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("throwaway"), "").unwrap();
    let said: serde_json::Value = serde_json::from_str(&testbed("start", &place)).unwrap();
    let url = said["url"].as_str().unwrap().to_owned();

    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("db.url");
    std::fs::write(&address, &url).unwrap();
    let core = Core::delivering(folder, &format!("postgres]\nurl_file = {address:?}")).await;
    let identity = core.identity("web-01");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(0));
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    agent.acked(1, 8).await;
    core.eventually("two lines", || async { lines(&url).await == ["one", "two"] }).await;

    // The server is gone; what is acknowledged meanwhile waits in the log.
    testbed("kill", &place);
    agent.push(1, 1, 1, 8, "three\n").await;
    agent.acked(1, 14).await;
    testbed("start", &place);
    let expected = ["one", "two", "three"];
    core.eventually("three lines", || async { lines(&url).await == expected }).await;

    let core = core.restart().await;
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(14));
    agent.push(1, 1, 1, 14, "four\n").await;
    agent.acked(1, 19).await;
    let expected = ["one", "two", "three", "four"];
    core.eventually("four lines", || async { lines(&url).await == expected }).await;
}
