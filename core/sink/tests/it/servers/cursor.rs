//! The cursor row: who may move it, and that it keeps what it is given.

use std::collections::BTreeMap;

use garam_proto::{Incarnation, LogOffset};
use garam_sink::mysql::Mode::Append;
use garam_stage::{Counters, Cursor, FailureKind, PlanId, SlotRange};

use super::Base;
use crate::fixture::{batch, first_cursor, rows, written};

at_every_server!(
    a_cursor_keeps_every_field,
    what_a_bigint_cannot_hold_is_refused,
    there_is_no_cursor_before_the_first,
    a_writer_of_an_older_epoch_writes_nothing,
    a_batch_that_does_not_begin_at_the_cursor_writes_nothing,
    a_destination_restored_to_an_older_state_goes_on_from_there,
    an_edited_cursor_is_named_not_guessed,
    a_cursor_table_of_another_version_is_left_alone,
);

async fn a_cursor_keeps_every_field(base: impl Base) {
    let mut destination = base.destination(Append);
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
    assert_eq!(base.cursors().await, [full.clone()]);

    let taken = destination.take_over(&full.key, 10).await.unwrap().unwrap();
    assert_eq!(taken, Cursor { epoch: 42, ..full.clone() });
    let taken = destination.take_over(&full.key, 100).await.unwrap().unwrap();
    assert_eq!(taken, Cursor { epoch: 101, ..full });
}

async fn what_a_bigint_cannot_hold_is_refused(base: impl Base) {
    let mut destination = base.destination(Append);
    destination.prepare().await.unwrap();
    let cursor = Cursor { next: LogOffset(1 << 63), ..first_cursor() };
    let failure = destination.begin(&cursor).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the cursor's offset is 9223372036854775808, above what a signed integer of 64 bits holds"
    );
    assert_eq!(base.cursors().await, []);
}

async fn there_is_no_cursor_before_the_first(base: impl Base) {
    assert_eq!(base.cursors().await, []);
    let mut destination = base.destination(Append);
    destination.prepare().await.unwrap();
    let key = first_cursor().key;
    assert_eq!(destination.take_over(&key, 5).await.unwrap(), None);
    assert_eq!(base.cursors().await, []);
    destination.begin(&first_cursor()).await.unwrap();
    let failure = destination.begin(&first_cursor()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
}

async fn a_writer_of_an_older_epoch_writes_nothing(base: impl Base) {
    let (mut old, start) = base.ready(Append).await;
    let mut new = base.destination(Append);
    let taken = new.take_over(&start.key, start.epoch).await.unwrap().unwrap();
    assert_eq!(taken.epoch, 2);

    let failure = old.write(&batch(&start, &rows(0..5))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    assert_eq!(
        failure.to_string(),
        "another writer moved the cursor of pipeline 07070707-0707-0707-0707-070707070707 partition 0: expected next=0 epoch=1"
    );
    assert_eq!(base.count().await, 0);
    written(new.write(&batch(&taken, &rows(0..5))).await);
    assert_eq!(base.count().await, 5);
}

async fn a_batch_that_does_not_begin_at_the_cursor_writes_nothing(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    let first = batch(&start, &rows(0..5));
    let cursor = written(destination.write(&first).await);
    let ahead = Cursor { next: LogOffset(2), ..cursor.clone() };
    let foreign = Cursor { incarnation: Incarnation([1; 16]), ..cursor.clone() };
    // The batch that is in already; one that skips an entry; one of another life of the log.
    for wrong in [first, batch(&ahead, &rows(5..9)), batch(&foreign, &rows(5..9))] {
        let failure = destination.write(&wrong).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Fenced);
    }
    assert_eq!(base.count().await, 5);
    assert_eq!(base.cursors().await, [cursor]);
}

async fn a_destination_restored_to_an_older_state_goes_on_from_there(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    let first = written(destination.write(&batch(&start, &rows(0..5))).await);
    base.execute("create table kept as select * from orders; create table place as select * from _garam_cursors").await;
    let second = written(destination.write(&batch(&first, &rows(5..9))).await);
    base.execute(
        "delete from orders; insert into orders select * from kept; \
         delete from _garam_cursors; insert into _garam_cursors select * from place",
    )
    .await;
    let failure = destination.write(&batch(&second, &rows(9..12))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    let restored = destination.take_over(&start.key, second.epoch).await.unwrap().unwrap();
    assert_eq!((restored.next, restored.epoch), (first.next, 2));
    written(destination.write(&batch(&restored, &rows(5..9))).await);
    assert_eq!(base.lines("select count(*), count(distinct id) from orders").await, "9 | 9");
}

async fn an_edited_cursor_is_named_not_guessed(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    base.execute("update _garam_cursors set next = -1").await;
    let failure = destination.take_over(&start.key, 0).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Corrupt);
    let place = format!("127.0.0.1:{}/{}", base.port(), base.database());
    assert_eq!(failure.to_string(), format!("cursor column next at {place} holds -1"));
}

async fn a_cursor_table_of_another_version_is_left_alone(base: impl Base) {
    base.execute("create table _garam_cursors (pipeline text, next integer, shape text)").await;
    let failure = base.destination(Append).prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema);
    assert_eq!(
        failure.to_string(),
        "table _garam_cursors was made by another version of Garam (columns pipeline,next,shape): upgrade Garam, nothing was changed"
    );
}
