//! Two databases as one destination: cut off between any two messages, and with rows that change nothing.

use garam_sink::mysql::Mode::Upsert;
use garam_sink::mysql::Url;
use garam_sink::{ServerConfig, ServerShard, SinkConfig};
use garam_stage::contract::OneOrMany;
use garam_stage::slots::{key_hashes, slot_of};
use garam_stage::{Cursor, FailureKind, SlotMap, SlotRange};

use super::Base;
use crate::fixture::{batch, first_cursor, refused, row, rows, schema, written};
use crate::proxy::{Proxy, Rule};
use crate::shards::{commit_part, joined};

at_every_server!(
    a_shard_cut_off_at_any_step_leaves_nothing_lost_and_nothing_twice,
    what_changes_nothing_is_counted_once_though_a_shard_was_ahead,
    a_row_that_one_shard_refuses_keeps_the_others_from_committing,
);

/// The first base with the second one as shard.
fn both(main: &impl Base, other: &impl Base, ports: [u16; 2]) -> ServerConfig {
    let shard = ServerShard {
        name: "b".into(),
        url_file: None,
        url: Some(Url(other.url(ports[1]))),
        password_file: None,
        table: None,
    };
    let url = Some(Url(main.url(ports[0])));
    ServerConfig { url, shard: vec![shard], ..main.config(Upsert) }
}

/// The pipeline's cursor and both shards'.
async fn cursors(main: &impl Base, other: &impl Base) -> (Cursor, Vec<Cursor>) {
    let mut all = main.cursors().await;
    all.extend(other.cursors().await);
    let at = all.iter().position(|cursor| cursor.key.slots == SlotRange::ALL).unwrap();
    let pipeline = all.remove(at);
    assert_eq!(all.len(), 2);
    (pipeline, all)
}

async fn a_shard_cut_off_at_any_step_leaves_nothing_lost_and_nothing_twice<B: Base>(main: B) {
    let mut apart = 0;
    for cut in [0, 1] {
        for rule in [Rule::CutBefore as fn(usize) -> Rule, Rule::CutAfter as fn(usize) -> Rule] {
            for step in 0.. {
                let places = [main.another().await, main.another().await];
                let proxies = [Proxy::before(main.port()).await, Proxy::before(main.port()).await];
                let ports = [proxies[0].port, proxies[1].port];
                let config = places[0].sink(&both(&places[0], &places[1], ports));
                let mut destination = config.build(&schema()).unwrap();
                destination.prepare().await.unwrap();
                destination.begin(&first_cursor()).await.unwrap();
                let start = first_cursor();
                proxies[cut].rule(rule(step));
                let outcome = destination.write(&batch(&start, &rows(0..100))).await;
                proxies[cut].rule(Rule::Pass);
                drop(destination);

                let mut next = config.build(&schema()).unwrap();
                let cursor = next.take_over(&start.key, 0).await.unwrap().unwrap();
                let (_, shards) = cursors(&places[0], &places[1]).await;
                apart += usize::from(shards.iter().any(|shard| shard.next != cursor.next));
                let cursor = match cursor.next.0 {
                    0 => written(next.write(&batch(&cursor, &rows(0..100))).await),
                    _ => cursor,
                };
                written(next.write(&batch(&cursor, &rows(100..150))).await);
                let counts = [places[0].count().await, places[1].count().await];
                assert_eq!(counts[0] + counts[1], 150, "{counts:?}");
                assert!(counts.iter().all(|count| *count > 0));
                let (pipeline, shards) = cursors(&places[0], &places[1]).await;
                assert_eq!((pipeline.counters.records_in, pipeline.counters.delivered), (150, 150));
                assert_eq!(shards.iter().map(|s| s.counters.delivered).sum::<u64>(), 150);
                match outcome {
                    Ok(_) if step > 0 => break,
                    Ok(_) => {}
                    Err(failure) => {
                        let kinds = [FailureKind::Unknown, FailureKind::Unreachable];
                        assert!(kinds.contains(&failure.kind), "{failure}");
                    }
                }
            }
        }
    }
    assert!(apart > 0, "no cut fell between the two commits");
}

async fn what_changes_nothing_is_counted_once_though_a_shard_was_ahead<B: Base>(main: B) {
    let other = main.another().await;
    // `name` is the key and `id` the version.
    let strict = schema();
    let strict = strict.fields().iter().map(|field| match field.name().as_str() {
        "name" => field.as_ref().clone().with_nullable(false),
        _ => field.as_ref().clone(),
    });
    let strict = std::sync::Arc::new(arrow_schema::Schema::new(strict.collect::<Vec<_>>()));
    let config = |shard| ServerConfig {
        key: Some(OneOrMany::One("name".into())),
        version: Some("id".into()),
        shard,
        ..main.config(Upsert)
    };
    let shards = both(&main, &other, [main.port(); 2]).shard;
    let config_of_both = main.sink(&config(shards));
    let mut destination = config_of_both.build(&strict).unwrap();
    destination.prepare().await.unwrap();
    destination.begin(&first_cursor()).await.unwrap();
    let newer: Vec<_> = (0..40).map(|i| row(1000, &format!("key {i}"), i)).collect();
    let cursor = written(destination.write(&batch(&first_cursor(), &newer)).await);
    drop(destination);

    // Every second row is older than the one there; shard b had committed its part of all three entries.
    let part = |entry: u128| -> Vec<_> {
        let id = |i: u128| if i.is_multiple_of(2) { 5 } else { 2000 };
        (0..40).map(|i| row(id(i), &format!("key {i}"), 100 + 40 * entry + i)).collect()
    };
    let parts = [part(0), part(1), part(2)];
    let whole = joined(&cursor, &parts);
    let map = SlotMap::even(1, &["main", "b"]);
    let hashes = key_hashes(&whole.rows, &[1]).unwrap();
    let is_own = |row: usize| map.part_of(slot_of(hashes[row])) == 1;
    let b = other.sink(&ServerConfig { url: other.config(Upsert).url, ..config(Vec::new()) });
    commit_part(b.build(&strict).unwrap(), map.parts[1].slots, is_own, &whole).await;

    let mut destination = config_of_both.build(&strict).unwrap();
    let mut cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
    assert_eq!(cursor.next.0, 1);
    for part in &parts {
        cursor = written(destination.write(&batch(&cursor, part)).await);
        assert!(cursor.counters.balanced());
    }
    // One row a key and entry: 40 at first, then 20 newer and 20 older ones three times.
    assert_eq!(cursor.counters.records_in, 160);
    assert_eq!(cursor.counters.dropped.get("stale"), Some(&60));
    assert_eq!(cursor.counters.delivered, 100);
    let (pipeline, shards) = cursors(&main, &other).await;
    assert_eq!(pipeline.counters, cursor.counters);
    assert!(shards.iter().all(|shard| shard.counters.balanced()));
    assert_eq!(shards.iter().map(|shard| shard.counters.delivered).sum::<u64>(), 100);

    // A shard is ahead again when an operator has all of it delivered once more: the pipeline has not met what it counted.
    drop(destination);
    let ahead = batch(&cursor, &part(3));
    commit_part(b.build(&strict).unwrap(), map.parts[1].slots, is_own, &ahead).await;
    let mut destination = config_of_both.build(&strict).unwrap();
    let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
    let mut back = batch(&cursor, &[]);
    back.rows = arrow_array::RecordBatch::new_empty(std::sync::Arc::clone(&strict));
    back.to = Cursor { next: first_cursor().next, fingerprint: 0, ..cursor.clone() };
    let mut cursor = written(destination.write(&back).await);
    assert_eq!(cursor, back.to);
    for part in [newer].iter().chain(&parts) {
        cursor = written(destination.write(&batch(&cursor, part)).await);
        assert!(cursor.counters.balanced());
    }
    // Of keys that have version 2000 all older ones are stale now: 20 of the first entry, and 20 of each later one.
    assert_eq!(cursor.counters.dropped.get("stale"), Some(&(60 + 20 + 60)));
    let (pipeline, shards) = cursors(&main, &other).await;
    assert_eq!(pipeline.counters, cursor.counters);
    let stale = |shard: &Cursor| shard.counters.dropped.get("stale").copied().unwrap_or(0);
    assert_eq!(shards.iter().map(stale).sum::<u64>(), 140);
}

async fn a_row_that_one_shard_refuses_keeps_the_others_from_committing<B: Base>(main: B) {
    let other = main.another().await;
    let config: SinkConfig = main.sink(&both(&main, &other, [main.port(); 2]));
    let mut destination = config.build(&schema()).unwrap();
    destination.prepare().await.unwrap();
    destination.begin(&first_cursor()).await.unwrap();
    let mut offered = rows(0..60);
    let map = SlotMap::even(1, &["main", "b"]);
    let hashes = key_hashes(&crate::fixture::record_batch(&offered), &[0]).unwrap();
    let at = hashes.iter().position(|hash| map.part_of(slot_of(*hash)) == 1).unwrap();
    B::spoil(&mut offered[at]);
    let found = refused(destination.write(&batch(&first_cursor(), &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [at]);
    assert_eq!((main.count().await, other.count().await), (0, 0));
    offered.remove(at);
    written(destination.write(&batch(&first_cursor(), &offered)).await);
    assert_eq!(main.count().await + other.count().await, 59);
}
