//! An older record never overwrites a newer row, and is counted.

use garam_sink::ServerConfig;
use garam_sink::mysql::Mode::{self, Update, Upsert};
use garam_stage::contract::OneOrMany;

use super::Base;
use crate::fixture::{batch, refused, row, schema, written};

at_every_server!(
    an_older_record_changes_nothing_and_is_counted,
    a_row_without_a_version_is_older_than_any,
    update_tells_stale_from_missing,
    the_version_before_a_refused_one_is_found,
);

/// The fixture's rows with `name` as key and `id` as version.
fn guarded(base: &impl Base, mode: Mode) -> ServerConfig {
    ServerConfig {
        key: Some(OneOrMany::One("name".into())),
        version: Some("id".into()),
        ..base.config(mode)
    }
}

/// `name` must be `not null` to be a key: the contract of these tests says so.
fn strict() -> arrow_schema::SchemaRef {
    let schema = schema();
    let strict = |field: &std::sync::Arc<arrow_schema::Field>| match field.name().as_str() {
        "name" => field.as_ref().clone().with_nullable(false),
        _ => field.as_ref().clone(),
    };
    arrow_schema::Schema::new(schema.fields().iter().map(strict).collect::<Vec<_>>()).into()
}

const SHOW: &str = "select name, id from orders order by name";

async fn an_older_record_changes_nothing_and_is_counted(base: impl Base) {
    let (mut destination, start) = base.ready_for(&guarded(&base, Upsert), strict()).await;

    // Inside a batch: 5 beats 3 though 3 comes later; 7 comes twice.
    let first = [row(5, "a", 1), row(3, "a", 2), row(7, "b", 3), row(7, "b", 4), row(1, "c", 5)];
    let cursor = written(destination.write(&batch(&start, &first)).await);
    assert_eq!(base.lines(SHOW).await, "a | 5\nb | 7\nc | 1");
    assert_eq!(cursor.counters.dropped.get("stale"), Some(&1));
    assert_eq!(cursor.counters.delivered, 4);

    // Across batches: 4 and 2 are older than 5; an equal one may be rewritten.
    let second = [row(2, "a", 6), row(4, "a", 7), row(7, "b", 8), row(2, "c", 9), row(9, "d", 10)];
    let cursor = written(destination.write(&batch(&cursor, &second)).await);
    assert_eq!(base.lines(SHOW).await, "a | 5\nb | 7\nc | 2\nd | 9");
    let rewritten = "select _position from orders where name = 'b'";
    assert_eq!(base.lines(rewritten).await, "8");
    assert_eq!(cursor.counters.dropped.get("stale"), Some(&3));
    assert_eq!(cursor.counters.delivered, 7);
    assert!(cursor.counters.balanced());
}

async fn a_row_without_a_version_is_older_than_any<B: Base>(base: B) {
    let (mut destination, start) = base.ready_for(&guarded(&base, Upsert), strict()).await;
    let cursor = written(destination.write(&batch(&start, &[row(5, "a", 1)])).await);
    base.execute(B::LET_ID_BE_NULL).await;
    base.execute("update orders set id = null").await;
    written(destination.write(&batch(&cursor, &[row(-3, "a", 2)])).await);
    assert_eq!(base.lines(SHOW).await, "a | -3");
}

async fn update_tells_stale_from_missing(base: impl Base) {
    let (mut destination, start) = base.ready_for(&guarded(&base, Update), strict()).await;
    base.execute(
        "insert into orders (name, id, _host, _path, _origin, _position, _ordinal, _version, _ingest_time) \
         select n, 10, '', '', '', 0, 0, '', now() from (select 'a' as n union select 'b') as s",
    )
    .await;
    let offered = [row(11, "a", 1), row(9, "b", 2), row(12, "z", 3)];
    let cursor = written(destination.write(&batch(&start, &offered)).await);
    assert_eq!(base.lines(SHOW).await, "a | 11\nb | 10");
    assert_eq!(cursor.counters.delivered, 1);
    assert_eq!(cursor.counters.dropped.get("stale"), Some(&1));
    assert_eq!(cursor.counters.dropped.get("missing"), Some(&1));
}

async fn the_version_before_a_refused_one_is_found(base: impl Base) {
    let (mut destination, start) = base.ready_for(&guarded(&base, Upsert), strict()).await;
    base.execute("alter table orders add check (id <> 8 and id <> 7)").await;
    let offered = [row(6, "a", 1), row(7, "a", 2), row(8, "a", 3)];
    let found = refused(destination.write(&batch(&start, &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
    written(destination.write(&batch(&start, &offered[..1])).await);
    assert_eq!(base.lines(SHOW).await, "a | 6");
}
