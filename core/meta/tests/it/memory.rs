//! Remembered cursors and counted attempts.

use garam_proto::{LogOffset, PipelineId};
use garam_stage::{CursorKey, CursorMemory, SlotRange};

use crate::Place;

fn key(partition: u32) -> CursorKey {
    CursorKey { pipeline: PipelineId([5; 16]), partition, slots: SlotRange::ALL }
}

#[tokio::test]
async fn the_first_cursor_of_a_key_is_durable_at_once() {
    let place = Place::new();
    let meta = place.open().await;
    assert_eq!(meta.remembered(&key(0)).await.unwrap(), None);
    for partition in 0..3 {
        meta.remember(&key(partition), LogOffset(u64::from(partition) + 7)).await.unwrap();
    }
    // Another handle sees what a crash would leave.
    let after_crash = place.open().await;
    for partition in 0..3 {
        let next = after_crash.remembered(&key(partition)).await.unwrap();
        assert_eq!(next, Some(LogOffset(u64::from(partition) + 7)));
    }
    assert_eq!(after_crash.remembered(&key(3)).await.unwrap(), None);
}

#[tokio::test]
async fn later_cursors_are_known_at_once_and_durable_after_a_flush() {
    let place = Place::new();
    let meta = place.open().await;
    let on_disk = || place.number("select next from cursors");
    for next in 1..20 {
        meta.remember(&key(0), LogOffset(next)).await.unwrap();
        assert_eq!(meta.remembered(&key(0)).await.unwrap(), Some(LogOffset(next)));
    }
    meta.flush().await.unwrap();
    assert_eq!(on_disk().await, 19);
    // Nothing is left to write.
    place.execute("update cursors set next = 99").await;
    meta.flush().await.unwrap();
    assert_eq!(on_disk().await, 99);
}

#[tokio::test]
async fn attempts_are_counted_per_offset_and_survive() {
    let place = Place::new();
    let meta = place.open().await;
    let (at, later) = (LogOffset(10), LogOffset(11));
    assert_eq!(meta.attempts(&key(0), at).await.unwrap(), 0);
    assert_eq!(meta.count_attempt(&key(0), at).await.unwrap(), 1);
    assert_eq!(meta.count_attempt(&key(0), at).await.unwrap(), 2);

    let after_crash = place.open().await;
    assert_eq!(after_crash.attempts(&key(0), at).await.unwrap(), 2);
    assert_eq!(after_crash.attempts(&key(0), later).await.unwrap(), 0);
    assert_eq!(after_crash.attempts(&key(1), at).await.unwrap(), 0);
    assert_eq!(after_crash.count_attempt(&key(0), later).await.unwrap(), 1);
    assert_eq!(after_crash.attempts(&key(0), at).await.unwrap(), 0);

    after_crash.clear_attempts(&key(0)).await.unwrap();
    assert_eq!(meta.attempts(&key(0), later).await.unwrap(), 0);
}

#[tokio::test]
async fn an_offset_beyond_an_integer_is_refused() {
    let place = Place::new();
    let meta = place.open().await;
    let failure = meta.count_attempt(&key(0), LogOffset(u64::MAX)).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the cursor's offset is 18446744073709551615, above what an SQLite integer holds"
    );
}
