//! Dimensions in a running core: what an operator sees when they are read, replaced, broken and away.

use std::path::Path;

use garam_core::config;
use garam_sink::sqlite::{QueryLimits, read_only_query};
use serde_json::Value;

use crate::client::Client;
use crate::core_under_test::Core;

/// Replaces a file as its owner should.
fn put(path: &Path, content: &str) {
    let beside = path.with_extension("next");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn tables(users: &Path) -> String {
    format!(
        "[dimension.users]\nkey = \"id\"\nrefresh = \"1s\"\n[dimension.users.columns]\nid = \"bigint not null\"\ntier = \"varchar\"\n\
         [dimension.users.from.file]\npath = {users:?}\nformat = \"csv\"\n"
    )
}

/// Looks a user up by the length of the line.
const JOIN: &str =
    "select line, tier from input left join users on id = cast(character_length(line) as bigint)";

/// A core with a second pipeline, `q`, that joins the dimension.
async fn joining(users: &Path) -> Core {
    let folder = tempfile::tempdir().unwrap();
    let joined = format!(
        "{}[pipeline.q]\nfrom = \"logs\"\nsql = \"{JOIN}\"\n[pipeline.q.dimension.users]\nmissing = \"null\"\n\
         [pipeline.q.to.sqlite]\npath = {:?}\ntable = \"joined\"\n",
        tables(users),
        folder.path().join("joined.sqlite"),
    );
    Core::with_tables_in(folder, &joined).await
}

/// What `q` has delivered.
async fn joined(core: &Core) -> Vec<String> {
    let sql = "select line || ' ' || coalesce(tier, '-') from joined order by rowid";
    let database = core.folder.path().join("joined.sqlite");
    let answer = read_only_query(&database, sql, QueryLimits::default()).await;
    let rows = answer.map(|answer| answer.rows).unwrap_or_default();
    rows.into_iter().flatten().map(|value| value.to_string()).collect()
}

async fn is_joined(core: &Core, expected: &[&str]) {
    core.eventually(&format!("{expected:?} are joined"), || async {
        joined(core).await == expected
    })
    .await;
}

async fn dimension(core: &Core) -> Value {
    let (status, body) = core.ask("/v1/dimensions/users").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn becomes(core: &Core, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    core.eventually(what, || async { holds(&dimension(core).await) }).await;
    dimension(core).await
}

async fn why(core: &Core) -> String {
    let status: Value = serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
    status["why"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_replaced_broken_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.csv");
    put(&users, "id,tier\n1,gold\n");
    let core = Core::with("", &tables(&users)).await;
    let first = becomes(&core, "it is read", |d| d["state"] == "ok" && d["rows"] == 1).await;
    put(&users, "tier,id\nsilver,2\ngold,1\n");
    let second = becomes(&core, "it is replaced", |d| d["rows"] == 2).await;
    assert_ne!(first["snapshot"], second["snapshot"]);

    put(&users, "id,tier\n1,gold\n1,silver\n");
    let stale = becomes(&core, "it is stale", |d| d["state"] == "stale").await;
    assert_eq!((&stale["rows"], &stale["snapshot"]), (&second["rows"], &second["snapshot"]));
    let told = why(&core).await;
    assert!(
        told.contains("dimension users cannot be refreshed, its last good rows are used"),
        "{told}"
    );
    assert!(
        told.contains("rows 1 and 2 have the same key (id)") && !told.contains("id = 1"),
        "{told}"
    );
    let (status, told) = core.ask_by("POST", "/v1/dimensions/users/refresh").await;
    assert_eq!(status, 503);
    assert!(
        told.ends_with("it must name one row: id = 1"),
        "who asks for it sees the value: {told}"
    );

    put(&users, "id,tier\n1,gold\n2,silver\n");
    let mended = becomes(&core, "it is mended", |d| d["state"] == "ok").await;
    assert_eq!(mended["snapshot"], second["snapshot"], "the same rows are the same snapshot");
    let (status, told) = core.ask_by("POST", "/v1/dimensions/users/refresh").await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((status, &told["swapped"], &told["rows"]), (200, &false.into(), &2.into()));
    let metrics = core.ask_plainly("/metrics").await.1;
    assert!(metrics.contains("garam_dimension_rows{dimension=\"users\"} 2"), "{metrics}");
    assert!(metrics.contains("garam_dimension_failing{dimension=\"users\"} 0"), "{metrics}");
    let tree = core.ask("/v1/tree").await.1;
    assert!(tree.contains("data/dimensions/users"), "{tree}");
    let audit = std::fs::read_to_string(core.plan.data_dir.join("audit/audit.jsonl")).unwrap();
    let noted: Vec<&str> =
        audit.lines().filter(|line| line.contains("admin-dimension-refresh")).collect();
    assert_eq!(noted.len(), 2, "{audit}");
    assert!(noted[0].contains("\"refused\"") && noted[1].contains("\"allowed\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_waits_for_a_dimension_that_was_never_read_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.csv");
    let core = joining(&users).await;
    let identity = core.identity("web-01");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.acked(1, 4).await;
    core.eventually("the wait is told", || async {
        let told = why(&core).await;
        told.contains("dimension users was never read, so pipeline q waits: cannot read")
            && told.contains("No such file or directory")
            && told.contains("remove the cause, then it goes on by itself")
    })
    .await;
    core.delivered(&["one"]).await;
    assert_eq!(joined(&core).await, Vec::<String>::new());
    put(&users, "id,tier\n3,gold\n");
    is_joined(&core, &["one gold"]).await;

    // The source is away at the next start: it goes on with what lies on disk, and says how old that is.
    std::fs::remove_file(&users).unwrap();
    let core = core.restart().await;
    let stale = becomes(&core, "it is from disk", |d| d["state"] == "stale").await;
    assert_eq!((&stale["from_disk"], &stale["rows"]), (&true.into(), &1.into()));
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 4, "two\nthree\n").await;
    is_joined(&core, &["one gold", "two gold", "three -"]).await;
    put(&users, "id,tier\n3,gold\n");
    becomes(&core, "it is found again", |d| d["state"] == "ok" && d["from_disk"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_are_each_answered_after_a_reading_of_their_own_or_a_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.csv");
    put(&users, "id,tier\n0,gold\n");
    let core = joining(&users).await;
    for round in 1..=5 {
        put(&users, &format!("id,tier\n{round},gold\n"));
        let asked = (0..8).map(|_| core.ask_by("POST", "/v1/dimensions/users/refresh"));
        let mut snapshots: Vec<String> = Vec::new();
        for (status, body) in futures_util::future::join_all(asked).await {
            assert_eq!(status, 200, "{body}");
            let told: Value = serde_json::from_str(&body).unwrap();
            snapshots.push(told["snapshot"].as_str().unwrap().to_owned());
        }
        let now = dimension(&core).await["snapshot"].as_str().unwrap().to_owned();
        assert!(snapshots.iter().all(|snapshot| *snapshot == now), "{snapshots:?}, {now}");
    }
    let kept = std::fs::read_dir(core.plan.data_dir.join("dimensions/users")).unwrap();
    let kept = kept.filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "snapshot")
    });
    assert_eq!(kept.count(), 2);
}

#[test]
fn a_pipeline_joins_what_is_configured_and_in_a_way_that_works() {
    let refused = |more: &str| {
        let text = format!(
            "[stream.logs]\n{}[pipeline.p]\nfrom = \"logs\"\nsql = \"{JOIN}\"\n[pipeline.p.to.sqlite]\npath = \"x\"\ntable = \"t\"\n{more}",
            tables(Path::new("users.csv"))
        );
        let checked = config::parse("test", &text).and_then(config::Config::check);
        checked.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(refused("[pipeline.p.dimension.users]\nmissing = \"default\"\n"), Ok(()));
    assert_eq!(
        refused("[pipeline.p.dimension.items]\n").unwrap_err(),
        "configuration key pipeline.p.dimension.items: dimension items is not configured; there is users"
    );
    let unused = "[dimension.items]\nkey = \"id\"\n[dimension.items.columns]\nid = \"int not null\"\n\
                  [dimension.items.from.file]\npath = \"x\"\nformat = \"csv\"\n[pipeline.p.dimension.items]\n";
    assert_eq!(
        refused(unused).unwrap_err(),
        "configuration key pipeline.p.dimension.items: the pipeline's SQL does not join it: write `join items using (…)`, or leave this out"
    );
    let into_stream = format!(
        "[stream.logs]\n[stream.out.contract]\nformat = \"json\"\n[stream.out.contract.columns]\nline = \"text\"\n\
         {}[pipeline.p]\nfrom = \"logs\"\nsql = \"{JOIN}\"\n[pipeline.p.to.stream]\nname = \"out\"\n",
        tables(Path::new("users.csv"))
    );
    let told = config::parse("test", &into_stream).and_then(config::Config::check).unwrap_err();
    assert!(told.to_string().contains("join in the pipeline that reads it"), "{told}");
    let told = refused(
        "[dimension.Users]\nkey = \"id\"\n[dimension.Users.columns]\nid = \"int not null\"\n[dimension.Users.from.file]\npath = \"x\"\nformat = \"csv\"\n",
    );
    let told = told.unwrap_err();
    assert!(
        told.starts_with("configuration key dimension.Users: \"Users\" cannot name a table"),
        "{told}"
    );
}
