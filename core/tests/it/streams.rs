//! A stream placed anew by key in another, and from there into a table: every record once, over restarts;
//! each key in one partition, in order.

use std::collections::{BTreeMap, BTreeSet};

use garam_core::config;
use garam_sink::sqlite::{QueryLimits, QueryValue, read_only_query};

use crate::client::Client;
use crate::core_under_test::Core;

const USERS: u64 = 40;

fn tables(folder: &std::path::Path) -> String {
    format!(
        "[stream.raw.contract]\nformat = 'json'\nunknown = 'drop'\n[stream.raw.contract.columns]\n\
         id = 'bigint not null'\nuser = 'text not null'\n\
         [stream.keyed]\npartitions = 3\n[stream.keyed.contract]\nformat = 'json'\nunknown = 'drop'\n\
         [stream.keyed.contract.columns]\nid = 'bigint not null'\nuser = 'text not null'\n\
         source = {{ type = 'text', from = '_host' }}\n\
         [pipeline.place]\nfrom = 'raw'\nmax_rows = 50\n[pipeline.place.to.stream]\nname = 'keyed'\nkey = ['user']\n\
         [pipeline.keep]\nfrom = 'keyed'\n[pipeline.keep.to.sqlite]\npath = {:?}\ntable = 'kept'\n",
        folder.join("kept.sqlite"),
    )
}

/// Columns of the table, row by row in the order in which they came in.
async fn kept(core: &Core) -> Vec<Vec<QueryValue>> {
    let sql = "select id, user, hex(_origin), source from kept order by _origin, _position";
    let limits = QueryLimits { rows: 1_000_000, ..QueryLimits::default() };
    let answer = read_only_query(&core.folder.path().join("kept.sqlite"), sql, limits).await;
    answer.map(|answer| answer.rows).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_placed_by_key_arrive_once_and_in_the_order_of_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path());
    let core = Core::with_tables_in(folder, &tables).await;
    let identity = core.identity("web-1");
    let mut core = Some(core);
    let (mut sent, mut mark, mut good) = (0_u64, 0_u128, BTreeSet::new());
    for round in 0..4 {
        let running = core.take().unwrap();
        let gateway = running.app.gateway_addr();
        let mut agent = Client::connect(gateway, &identity).await.unwrap();
        agent.claim(1, 1, "raw").await.unwrap();
        for _ in 0..5 {
            let mut text = String::new();
            for id in sent..sent + 100 {
                match id % 97 {
                    13 => text += "not json\n",
                    _ => {
                        good.insert(id);
                        text += &format!("{{\"id\":{id},\"user\":\"u{}\"}}\n", id % USERS);
                    }
                }
            }
            sent += 100;
            agent.push(1, 1, 1, mark, &text).await;
            mark += text.len() as u128;
            agent.acked(1, mark).await;
        }
        drop(agent);
        core = Some(match round {
            3 => running,
            _ => running.restart().await,
        });
    }
    let core = core.unwrap();
    core.eventually("all are kept", || async { kept(&core).await.len() >= good.len() }).await;
    let rows = kept(&core).await;
    let number = |value: &QueryValue| value.to_string().parse::<u64>().unwrap();
    let ids: Vec<u64> = rows.iter().map(|row| number(&row[0])).collect();
    assert_eq!(ids.len(), good.len(), "none twice");
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), good);
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        let (id, user, origin) = (number(&row[0]), row[1].to_string(), row[2].to_string());
        places.entry(user.clone()).or_default().insert(origin);
        let before = last.insert(user, id);
        assert!(before < Some(id), "a key's records stay in order");
        assert_eq!(row[3].to_string(), "web-1", "where it came from goes along");
    }
    assert!(places.values().all(|origins| origins.len() == 1), "a key has one place: {places:?}");
    let all: BTreeSet<&String> = places.values().flatten().collect();
    assert_eq!(all.len(), 3, "every partition has its share");
    let status = core.ask("/v1/status").await.1;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let pipelines = status["pipelines"].as_array().unwrap();
    let place = pipelines.iter().find(|pipeline| pipeline["name"] == "place").unwrap();
    let bad = sent - good.len() as u64;
    assert_eq!((&place["delivered"], &place["quarantined"]), (&good.len().into(), &bad.into()));
}

fn refused(tables: &str) -> String {
    let text = format!("data_dir = '/nowhere'\n[stream.a]\n{tables}");
    let plan = config::parse("test", &text).and_then(config::Config::check);
    plan.unwrap_err().to_string()
}

#[test]
fn a_stream_that_cannot_take_the_records_is_refused_with_what_to_do() {
    let to = |name: &str, key: &str| {
        format!("[pipeline.p]\nfrom = 'a'\n[pipeline.p.to.stream]\nname = '{name}'\nkey = {key}\n")
    };
    let unknown = refused(&to("b", "[]"));
    assert!(unknown.contains("stream b is not configured; there is a"), "{unknown}");
    let format = refused(&format!("[stream.b]\n{}", to("b", "[]")));
    assert!(format.contains("records come as JSON objects, say format = \"json\""), "{format}");
    let json = "[stream.b.contract]\nformat = 'json'\n[stream.b.contract.columns]\nline = 'text'\n";
    let key = refused(&format!("{json}{}", to("b", "['who']")));
    assert!(key.contains("key column who is not among the rows' columns"), "{key}");
    let circle = refused(&format!(
        "{json}{}[pipeline.q]\nfrom = 'b'\n[pipeline.q.to.stream]\nname = 'b'\n",
        to("b", "['line']")
    ));
    assert!(circle.contains("stream b would come back to itself through pipeline q"), "{circle}");
}
