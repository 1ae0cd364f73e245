//! A pipeline that writes several databases: each record at one place, once, over restarts.

use std::path::Path;

use garam_core::app::App;
use garam_core::config::{self, Config};
use garam_sink::sqlite::{QueryLimits, read_only_query};

use crate::client::Client;
use crate::core_under_test::Core;

/// Main and two more files.
const FILES: [&str; 3] = ["data.sqlite", "b.sqlite", "c.sqlite"];

async fn sharded() -> Core {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    let to = format!("sqlite]\npath = {:?}\nkey = \"line\"", at(FILES[0]));
    let shard = |name: &str, file: &str| {
        format!("[[pipeline.p.to.sqlite.shard]]\nname = \"{name}\"\npath = {:?}\n", at(file))
    };
    let shards = shard("b", FILES[1]) + &shard("c", FILES[2]);
    Core::delivering_with(folder, &to, &shards).await
}

/// The lines of each file.
async fn placed(folder: &Path) -> [Vec<String>; 3] {
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for (found, file) in all.iter_mut().zip(FILES) {
        let sql = "select line from lines order by line";
        let limits = QueryLimits { rows: 100_000, ..QueryLimits::default() };
        if let Ok(answer) = read_only_query(&folder.join(file), sql, limits).await {
            let text = |row: Vec<_>| row.first().map(ToString::to_string);
            found.extend(answer.rows.into_iter().filter_map(text));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_in_one_shard_over_restarts_and_other_shards_are_refused() {
    let mut core = sharded().await;
    let home = core.folder.path().to_owned();
    let identity = core.identity("web-1");
    let mut sent = Vec::new();
    for round in 0..3 {
        // A file of its own in each round.
        let mut at = 0_u128;
        let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
        agent.claim(1, 1 + round, "logs").await.unwrap();
        for _ in 0..20 {
            let line = format!("line {:04}", sent.len());
            agent.push(1, 1 + round, 1, at, &format!("{line}\n")).await;
            at += line.len() as u128 + 1;
            sent.push(line);
        }
        let expected = sent.len();
        core.eventually("all are delivered", || async {
            placed(&home).await.iter().map(Vec::len).sum::<usize>() == expected
        })
        .await;
        core = core.restart().await;
    }
    let found = placed(&home).await;
    assert!(found.iter().all(|lines| lines.len() > 5), "{found:?}");
    let mut found = found.concat();
    found.sort();
    assert_eq!(found, sent);
    core.eventually("the counters add up", || async {
        let status: serde_json::Value =
            serde_json::from_str(&core.ask("/v1/status").await.1).unwrap();
        status["pipelines"][0]["delivered"].as_u64() == Some(60)
    })
    .await;

    let Core { app, plan, folder } = core;
    app.stop(std::time::Duration::from_secs(20)).await.unwrap();
    drop(app);
    let fewer = format!(
        "data_dir = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[stream.logs]\n[pipeline.p]\n\
         from = \"logs\"\n[pipeline.p.to.sqlite]\npath = {:?}\nkey = \"line\"\ntable = \"lines\"\n",
        plan.data_dir,
        home.join(FILES[0]),
    );
    let fewer = config::parse("test", &fewer).and_then(Config::check).unwrap();
    let refused = App::start(fewer).await.err().unwrap().to_string();
    assert!(
        refused.contains(
            "pipeline p has its rows in shards main, b, c, and the configuration says main: put those back; other shards need a \
             pipeline of another name"
        ),
        "{refused}"
    );
    App::start(plan).await.unwrap().stop(std::time::Duration::from_secs(20)).await.unwrap();
    drop(folder);
}
