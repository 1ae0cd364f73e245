//! The cursor row: who may move it, and that it keeps what it is given.

use std::collections::BTreeMap;

use garam_proto::{Incarnation, LogOffset};
use garam_sink::sqlite::read_cursors;
use garam_stage::WriteMode::Append;
use garam_stage::{Counters, Cursor, FailureKind, PlanId, SlotRange};

use crate::fixture::{Place, batch, first_cursor, rows, written};

#[tokio::test]
async fn a_cursor_keeps_every_field() {
    let place = Place::new();
    let mut destination = place.destination(Append);
    destination.prepare().await.unwrap();
    let mut full = Cursor {
        incarnation: Incarnation([0xFE; 16]),
        next: LogOffset(i64::MAX as u64),
        fingerprint: u64::MAX,
        epoch: 41,
        plan: PlanId(1 << 63),
        slot_map_epoch: u32::MAX,
        quarantine_next: LogOffset(17),
        counters: Counters {
            records_in: 100,
            delivered: 90,
            quarantined: 4,
            dropped: BTreeMap::from([("filtered".into(), 5), ("sta\"le".into(), 1)]),
            gap_units: 1 << 40,
            gaps: 3,
        },
        ..first_cursor()
    };
    full.key.partition = u32::MAX;
    full.key.slots = SlotRange { first: 512, last: 1023 };
    destination.begin(&full).await.unwrap();
    assert_eq!(read_cursors(&place.path()).await.unwrap(), [full.clone()]);

    let taken = destination.take_over(&full.key, 10).await.unwrap().unwrap();
    assert_eq!(taken, Cursor { epoch: 42, ..full.clone() });
    let taken = destination.take_over(&full.key, 100).await.unwrap().unwrap();
    assert_eq!(taken, Cursor { epoch: 101, ..full });
}

#[tokio::test]
async fn what_an_integer_cannot_hold_is_refused() {
    let place = Place::new();
    let mut destination = place.destination(Append);
    destination.prepare().await.unwrap();
    let cursor = Cursor { next: LogOffset(1 << 63), ..first_cursor() };
    let failure = destination.begin(&cursor).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the cursor's offset is 9223372036854775808, above what a signed integer of 64 bits holds"
    );
    assert_eq!(read_cursors(&place.path()).await.unwrap(), []);
}

#[tokio::test]
async fn there_is_no_cursor_before_the_first() {
    let place = Place::new();
    let mut destination = place.destination(Append);
    destination.prepare().await.unwrap();
    let key = first_cursor().key;
    assert_eq!(destination.take_over(&key, 5).await.unwrap(), None);
    assert_eq!(read_cursors(&place.path()).await.unwrap(), []);
    destination.begin(&first_cursor()).await.unwrap();
    let failure = destination.begin(&first_cursor()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
}

#[tokio::test]
async fn a_writer_of_an_older_epoch_writes_nothing() {
    let place = Place::new();
    let (mut old, start) = place.ready(Append).await;
    let mut new = place.destination(Append);
    let taken = new.take_over(&start.key, start.epoch).await.unwrap().unwrap();
    assert_eq!(taken.epoch, 2);

    let failure = old.write(&batch(&start, &rows(0..5))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    assert_eq!(
        failure.to_string(),
        "another writer moved the cursor of pipeline 07070707-0707-0707-0707-070707070707 partition 0: expected next=0 epoch=1"
    );
    assert_eq!(place.count().await, 0);
    written(new.write(&batch(&taken, &rows(0..5))).await);
    assert_eq!(place.count().await, 5);
}

#[tokio::test]
async fn a_batch_that_does_not_begin_at_the_cursor_writes_nothing() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    let first = batch(&start, &rows(0..5));
    let cursor = written(destination.write(&first).await);

    // The batch that is in already, offered again.
    let failure = destination.write(&first).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    // One that skips an entry.
    let ahead = Cursor { next: LogOffset(2), ..cursor.clone() };
    let failure = destination.write(&batch(&ahead, &rows(5..9))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    // One of another life of the log.
    let foreign = Cursor { incarnation: Incarnation([1; 16]), ..cursor.clone() };
    let failure = destination.write(&batch(&foreign, &rows(5..9))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);

    assert_eq!(place.count().await, 5);
    assert_eq!(read_cursors(&place.path()).await.unwrap(), [cursor]);
}

#[tokio::test]
async fn cursors_of_several_partitions_do_not_meet() {
    let place = Place::new();
    let (mut destination, zero) = place.ready(Append).await;
    let mut one = zero.clone();
    one.key.partition = 1;
    destination.begin(&one).await.unwrap();
    let one = written(destination.write(&batch(&one, &rows(0..3))).await);
    assert_eq!(read_cursors(&place.path()).await.unwrap(), [zero, one]);
}

#[tokio::test]
async fn an_edited_cursor_is_named_not_guessed() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    place.execute("update _garam_cursors set next = -1").await;
    let failure = destination.take_over(&start.key, 0).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Corrupt);
    let text = failure.to_string().replace(&place.path().display().to_string(), "DB");
    assert_eq!(text, "cursor column next of DB holds -1");
}

#[tokio::test]
async fn a_cursor_table_of_another_version_is_left_alone() {
    let place = Place::new();
    place.execute("create table _garam_cursors (pipeline text, next integer, shape text)").await;
    let failure = place.destination(Append).prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema);
    assert_eq!(
        failure.to_string(),
        "table _garam_cursors was made by another version of Garam (columns pipeline,next,shape): upgrade Garam, nothing was changed"
    );
}

#[tokio::test]
async fn a_database_without_cursors_has_none() {
    let place = Place::new();
    place.execute("create table t (a)").await;
    assert_eq!(read_cursors(&place.path()).await.unwrap(), []);
}
