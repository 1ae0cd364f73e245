//! A whole core that delivers into a real PostgreSQL server, which is killed under it.

use sqlx::Connection as _;

use crate::client::Client;
use crate::core_under_test::Core;
use crate::testbed::{Server, lines_arrive_once_over_a_kill};

async fn lines(url: &str) -> Vec<String> {
    let Ok(mut connection) = sqlx::PgConnection::connect(url).await else { return Vec::new() };
    let sql = "select line from lines order by _position";
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_reach_postgres_once_over_a_killed_server_and_a_restarted_core() {
    lines_arrive_once_over_a_kill("postgres", "postgres", lines).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_everything_parks_its_pipeline_which_goes_on_by_itself_once_it_may() {
    let server = Server::start("postgres", "refusing");
    let url = &server.url;
    let mut owner = sqlx::PgConnection::connect(&server.admin_url).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let core = Core::delivering(folder, &format!("postgres]\nurl = {url:?}")).await;
    let identity = core.identity("web-01");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(0));
    agent.push(1, 1, 1, 0, "0\n").await;
    agent.acked(1, 2).await;
    core.eventually("the first line", || async { lines(url).await == ["0"] }).await;

    let disconnect =
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'garam'";
    let cases = [
        (
            "alter role garam set default_transaction_read_only = on",
            "alter role garam reset default_transaction_read_only",
            "transactions are read-only for this role",
        ),
        (
            "alter table lines owner to postgres; revoke all on lines from garam",
            "alter table lines owner to garam",
            "table lines",
        ),
        ("alter role garam nologin", "alter role garam login", "not permitted to log in"),
    ];
    let mut expected = vec!["0".to_owned()];
    for (number, (breaks, mends, said)) in (1..).zip(cases) {
        for sql in [breaks, disconnect] {
            sqlx::raw_sql(sql).execute(&mut owner).await.unwrap();
        }
        agent.push(1, 1, 1, number * 2, &format!("{number}\n")).await;
        agent.acked(1, number * 2 + 2).await;
        core.eventually(&format!("the branch is parked: {said}"), || async {
            let why = core.ask("/readyz").await.1;
            why.contains("data/pipelines/p is parked")
                && why.contains(said)
                && why.contains("tried again by itself")
        })
        .await;
        sqlx::raw_sql(mends).execute(&mut owner).await.unwrap();
        expected.push(number.to_string());
        core.eventually("it goes on by itself", || async { lines(url).await == expected }).await;
    }
}
