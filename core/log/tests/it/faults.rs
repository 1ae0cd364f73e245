//! A disk that fails: what was acknowledged stays, what was not is answered with an error, nobody else is touched.

use std::io::ErrorKind;

use garam_log::{Appended, EmbeddedLog, Log, LogError, State, StreamConfig};
use garam_proto::LogOffset;

use crate::kit::*;
use crate::world::{Fault, world};

fn with_neighbour(dir: &std::path::Path) -> garam_log::LogConfig {
    let mut config = config(dir);
    config.segment_size = 4096;
    config.streams.push(StreamConfig::new(stream("t")));
    config
}

async fn neighbour_lives(log: &EmbeddedLog) {
    let mut elsewhere = claim(200, 10);
    elsewhere.stream = stream("t");
    log.claim(elsewhere).await.unwrap().wait().await.unwrap();
}

/// A failure that is never retried: the partition stops, its durable entries stay readable, a restart goes on.
async fn check_stops(fault: Fault, at: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    disk.breaks(fault, at);
    let failed = append(&log, block(1, 10, 4, b"two\n")).await;
    assert!(matches!(failed, Err(LogError::Stopped { .. })), "{fault:?}: {failed:?}");
    disk.heals();
    let later = append(&log, block(1, 10, 4, b"two\n")).await;
    assert!(matches!(later, Err(LogError::Stopped { .. })), "{fault:?} was retried: {later:?}");
    let repeated = append(&log, block(1, 10, 0, b"one\n")).await;
    assert!(matches!(repeated, Err(LogError::Stopped { .. })), "{repeated:?}");
    assert!(
        matches!(&log.stats()[0].state, State::Stopped(why) if why.contains("restart the core"))
    );
    assert!(log.candidates(&stream("s"), origin(1).agent, &descriptor(1)).is_err());
    neighbour_lives(&log).await;
    assert_eq!(read_all(&log, &partition("s", 0)).await.unwrap().len(), 2);
    log.shutdown().await;

    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env).unwrap();
    let entries = read_all(&log, &partition("s", 0)).await.unwrap();
    assert_eq!(payloads(&entries)[0], b"one\n");
    let mark = entries.last().unwrap().origin.mark;
    let goes_on = append(&log, block(1, 10, mark, b"three\n")).await.unwrap();
    assert!(matches!(goes_on, Appended::Durable { .. }), "{goes_on:?}");
}

#[tokio::test]
async fn a_failed_sync_stops_the_partition_and_is_never_retried() {
    check_stops(Fault::Sync, "/s/0000/").await;
}

#[tokio::test]
async fn a_failed_write_stops_the_partition() {
    check_stops(Fault::Write(ErrorKind::InvalidData), "/s/0000/").await;
}

#[tokio::test]
async fn a_full_disk_holds_the_stream_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    disk.breaks(Fault::Write(ErrorKind::StorageFull), "/s/0000/");
    let claimed = log.claim(claim(2, 10)).await.unwrap();
    let appended = log.append(&partition("s", 0), block(1, 10, 4, b"two\n")).await.unwrap();
    let refused = (claimed.wait().await, appended.wait().await);
    assert!(matches!(refused.0, Err(LogError::Full { .. })), "{refused:?}");
    assert!(matches!(refused.1, Err(LogError::Full { .. })), "{refused:?}");
    assert!(matches!(&log.stats()[0].state, State::Full(why) if why.contains("disk is full")));
    let known = log.candidates(&stream("s"), origin(2).agent, &descriptor(2)).unwrap();
    assert!(known.is_empty(), "a claim that was refused is not known");
    neighbour_lives(&log).await;
    disk.heals();
    until("the stream takes blocks again", async || {
        match append(&log, block(1, 10, 4, b"two\n")).await {
            Ok(taken) => {
                assert_eq!(taken, Appended::Durable { offset: LogOffset(2), mark: 8 });
                true
            }
            Err(error) => {
                assert!(matches!(error, LogError::Full { .. }), "{error}");
                false
            }
        }
    })
    .await;
    let unknown = append(&log, block(2, 10, 0, b"x\n")).await;
    assert!(matches!(unknown, Err(LogError::UnknownOrigin { .. })), "{unknown:?}");
    granted(&log, 2, 10).await;
    until("the state is shown", async || log.stats()[0].state == State::Ok).await;
    log.shutdown().await;
    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env).unwrap();
    let entries = read_all(&log, &partition("s", 0)).await.unwrap();
    assert_eq!(payloads(&entries), [b"one\n".to_vec(), b"two\n".to_vec()]);
}

#[tokio::test]
async fn a_disk_too_full_for_the_next_segment_keeps_the_present_one() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env).unwrap();
    granted(&log, 1, 10).await;
    disk.breaks(Fault::Create(ErrorKind::StorageFull), ".seg.tmp");
    append(&log, block(1, 10, 0, &[b'x'; 5000])).await.unwrap();
    until("the stream holds", async || matches!(log.stats()[0].state, State::Full(_))).await;
    disk.heals();
    until("the segment rolls", async || log.stats()[0].segments == 2).await;
    until("blocks are taken", async || append(&log, block(1, 10, 5000, b"y\n")).await.is_ok())
        .await;
    assert_eq!(read_all(&log, &partition("s", 0)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_disk_too_full_to_open_a_partition_opens_it_when_there_is_room() {
    for fault in [Fault::Create(ErrorKind::StorageFull), Fault::Write(ErrorKind::StorageFull)] {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _, env) = world();
        let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env.clone()).unwrap();
        granted(&log, 1, 10).await;
        append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
        log.shutdown().await;
        disk.breaks(fault, "/s/0000/");
        let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env).unwrap();
        let at = partition("s", 0);
        assert!(matches!(&log.stats()[0].state, State::Full(why) if why.contains("free space")));
        assert!(matches!(log.bounds(&at), Err(LogError::Full { .. })));
        let refused = append(&log, block(1, 10, 4, b"two\n")).await;
        assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
        neighbour_lives(&log).await;
        disk.heals();
        until("the partition is open", async || log.stats()[0].state == State::Ok).await;
        append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
        let entries = read_all(&log, &at).await.unwrap();
        assert_eq!(payloads(&entries), [b"one\n".to_vec(), b"two\n".to_vec()]);
    }
}

#[tokio::test]
async fn a_new_segment_that_may_not_be_there_stops_the_partition() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    disk.breaks(Fault::SyncDir, "/s/0000");
    append(&log, block(1, 10, 0, &[b'x'; 5000])).await.unwrap();
    until("the partition stops", async || matches!(log.stats()[0].state, State::Stopped(_))).await;
    disk.heals();
    neighbour_lives(&log).await;
    log.shutdown().await;
    let log = EmbeddedLog::open_with(with_neighbour(dir.path()), env).unwrap();
    assert_eq!(read_all(&log, &partition("s", 0)).await.unwrap().len(), 2);
    append(&log, block(1, 10, 5000, b"y\n")).await.unwrap();
}

#[tokio::test]
async fn requests_that_wait_together_share_one_sync_and_a_stuck_writer_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, clock, env) = world();
    let log = EmbeddedLog::open_with(config(dir.path()), env).unwrap();
    granted(&log, 1, 10).await;
    until("the writer rests", async || log.progress().busy_for.is_none()).await;
    let before = disk.syncs();
    disk.stall();
    let mut tickets = Vec::new();
    for i in 0..200u32 {
        let append = block(1, 10, u128::from(i) * 4, b"abc\n");
        tickets.push(log.append(&partition("s", 0), append).await.unwrap());
    }
    until("the writer hangs", async || log.progress().busy_for.is_some()).await;
    let beats = log.progress().beats;
    clock.pass(std::time::Duration::from_secs(60));
    let progress = log.progress();
    assert!(progress.busy_for >= Some(std::time::Duration::from_secs(60)), "{progress:?}");
    assert_eq!(progress.beats, beats);
    assert_eq!(log.bounds(&partition("s", 0)).unwrap().end, LogOffset(1), "nothing is shown yet");
    disk.resume();
    for ticket in tickets {
        assert!(matches!(ticket.wait().await, Ok(Appended::Durable { .. })));
    }
    let syncs = disk.syncs() - before;
    assert!(syncs <= 100, "200 appends took {syncs} syncs");
}

#[tokio::test]
async fn a_full_queue_makes_the_caller_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    let mut config = config(dir.path());
    config.queue_bytes = 64 * 1024;
    let log = EmbeddedLog::open_with(config, env).unwrap();
    granted(&log, 1, 10).await;
    disk.stall();
    let at = partition("s", 0);
    let large = vec![b'x'; 40_000];
    let first = log.append(&at, block(1, 10, 0, &large)).await.unwrap();
    let second = {
        let (log, at, large) = (log.clone(), at.clone(), large.clone());
        tokio::spawn(async move { log.append(&at, block(1, 10, 40_000, &large)).await })
    };
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished(), "80 000 bytes wait in a queue of 65 536");
    disk.resume();
    assert!(first.wait().await.is_ok());
    assert!(second.await.unwrap().unwrap().wait().await.is_ok());
}
