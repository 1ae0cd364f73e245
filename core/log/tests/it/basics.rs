//! Appending, claiming, reading, reopening: the rules of the fold as a caller sees them.

use garam_log::{AppendBody, Appended, ClaimDenied, EntryBody, Log, LogError, StreamConfig};
use garam_proto::message::GapReason;
use garam_proto::{LineageId, LogOffset, SessionId};

use crate::kit::*;

#[tokio::test]
async fn what_is_appended_is_read_back_and_survives_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let claimed = granted(&log, 1, 10).await;
    assert_eq!((claimed.state.mark, claimed.state.source_epoch), (0, 1));
    let first = append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    assert_eq!(first, Appended::Durable { offset: LogOffset(1), mark: 4 });
    append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
    let before = read_all(&log, &partition("s", 0)).await.unwrap();
    assert_eq!(payloads(&before), [b"one\n".to_vec(), b"two\n".to_vec()]);
    assert_eq!(before[2].origin.mark, 8);
    assert_eq!(before[1].origin.mark, 4);
    let bounds = log.bounds(&partition("s", 0)).unwrap();
    log.shutdown().await;

    let log = open(dir.path());
    assert_eq!(log.bounds(&partition("s", 0)).unwrap(), bounds);
    let after = read_all(&log, &partition("s", 0)).await.unwrap();
    assert_eq!(payloads(&after), payloads(&before));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.offset, before.fingerprint), (after.offset, after.fingerprint));
        assert_eq!(before.origin, after.origin);
    }
    assert_eq!(
        append(&log, block(1, 10, 8, b"three\n")).await.unwrap(),
        Appended::Durable { offset: LogOffset(3), mark: 14 }
    );
    assert_eq!(read_all(&log, &partition("s", 0)).await.unwrap().len(), 4);
}

#[tokio::test]
async fn repeats_and_holes_and_old_sessions_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let unknown = append(&log, block(1, 10, 0, b"x\n")).await;
    assert!(matches!(unknown, Err(LogError::UnknownOrigin { .. })), "{unknown:?}");
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"abcd\n")).await.unwrap();
    let again = append(&log, block(1, 10, 0, b"abcd\n")).await.unwrap();
    assert_eq!(again, Appended::Repeat { mark: 5 });
    for from in [2, 6] {
        let moved = append(&log, block(1, 10, from, b"abcd\n")).await.unwrap();
        let tail_hash = garam_proto::hash::tail_hash(b"abcd\n");
        assert_eq!(moved, Appended::Reposition { mark: 5, tail_hash, resume: None });
    }
    let taken = granted(&log, 1, 11).await;
    assert_eq!(taken.state.mark, 5);
    assert_eq!(append(&log, block(1, 10, 5, b"late\n")).await.unwrap(), Appended::Stale);
    let stats = log.stats();
    assert_eq!((stats[0].stale, stats[0].repeats, stats[0].appended_records), (1, 1, 1));
    assert_eq!(read_all(&log, &partition("s", 0)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn gaps_and_advances_move_the_mark_and_retire_hides_the_origin() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    let gap = AppendBody::Gap { from: 0, to: 100, at_least: false, reason: GapReason::Truncated };
    append(&log, append_of(1, 10, gap)).await.unwrap();
    let resume = Some(b"token".to_vec());
    let advance = AppendBody::Advance { from: 100, to: 150, tail_hash: 9, resume: resume.clone() };
    append(&log, append_of(1, 10, advance)).await.unwrap();
    let agent = origin(1).agent;
    let known = log.candidates(&stream("s"), agent, &descriptor(1)).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].mark, known[0].tail_hash, &known[0].resume), (150, 9, &resume));
    let early = append(&log, append_of(1, 10, AppendBody::Retire { mark: 100 })).await.unwrap();
    assert!(matches!(early, Appended::Reposition { mark: 150, .. }), "{early:?}");
    append(&log, append_of(1, 10, AppendBody::Retire { mark: 150 })).await.unwrap();
    assert!(log.candidates(&stream("s"), agent, &descriptor(1)).unwrap().is_empty());
    log.shutdown().await;

    let log = open(dir.path());
    let entries = read_all(&log, &partition("s", 0)).await.unwrap();
    assert!(matches!(entries[1].body, EntryBody::Gap { from: 0, to: 100, .. }));
    assert!(matches!(entries[2].body, EntryBody::Advance { from: 100, to: 150 }));
    assert!(entries[3].origin.retired);
    let back = granted(&log, 1, 12).await;
    assert_eq!((back.state.mark, back.state.retired), (150, false));
}

#[tokio::test]
async fn a_gap_of_unknown_size_ends_its_generation() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    let gap = |to| AppendBody::Gap { from: 0, to, at_least: true, reason: GapReason::Purged };
    let wide = append(&log, append_of(1, 10, gap(2))).await;
    assert!(matches!(wide, Err(LogError::Invalid { .. })), "{wide:?}");
    append(&log, append_of(1, 10, gap(1))).await.unwrap();
    let again = append(&log, append_of(1, 10, gap(1))).await.unwrap();
    assert_eq!(again, Appended::Repeat { mark: 1 });
    assert!(log.candidates(&stream("s"), origin(1).agent, &descriptor(1)).unwrap().is_empty());
}

#[tokio::test]
async fn a_lineage_stays_in_its_partition_when_partitions_are_added() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for n in 1..=8 {
        granted(&log, n, 10).await;
    }
    log.shutdown().await;

    let mut wider = config(dir.path());
    wider.streams[0].partitions = 4;
    let log = garam_log::EmbeddedLog::open(wider).unwrap();
    for n in 1..=8 {
        let mut successor = claim(n + 100, 11);
        successor.lineage = LineageId(u64::from(n));
        let claimed = log.claim(successor).await.unwrap().wait().await.unwrap();
        assert_eq!(claimed.partition.index, 0, "lineage {n} moved");
    }
    let mut spread = std::collections::BTreeSet::new();
    for n in 20..=60 {
        spread.insert(granted(&log, n, 11).await.partition.index);
    }
    assert_eq!(spread.len(), 4, "new lineages use all partitions");
    log.shutdown().await;

    let refused = garam_log::EmbeddedLog::open(config(dir.path())).err().unwrap();
    assert!(refused.to_string().contains("set partitions = 4"), "{refused}");
}

#[tokio::test]
async fn source_epochs_grow_over_streams_partitions_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let two = || {
        let mut config = config(dir.path());
        config.streams.push(StreamConfig::new(stream("t")));
        garam_log::EmbeddedLog::open(config).unwrap()
    };
    let log = two();
    assert_eq!(granted(&log, 1, 10).await.state.source_epoch, 1);
    assert_eq!(granted(&log, 2, 10).await.state.source_epoch, 2);
    assert_eq!(granted(&log, 1, 11).await.state.source_epoch, 1, "a known origin keeps its epoch");
    let mut elsewhere = claim(3, 10);
    elsewhere.stream = stream("t");
    let claimed = log.claim(elsewhere).await.unwrap().wait().await.unwrap();
    assert_eq!(claimed.state.source_epoch, 3);
    log.shutdown().await;

    let log = two();
    let mut seen_more = claim(4, 10);
    seen_more.source_epoch = 70_000;
    let claimed = log.claim(seen_more).await.unwrap().wait().await.unwrap();
    assert_eq!(claimed.state.source_epoch, 70_001);
    assert_eq!(granted(&log, 5, 10).await.state.source_epoch, 70_002);
}

#[tokio::test]
async fn claims_are_denied_in_another_stream_and_above_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.streams[0].max_origins = 2;
    config.streams.push(StreamConfig::new(stream("t")));
    let log = garam_log::EmbeddedLog::open(config).unwrap();
    granted(&log, 1, 10).await;
    granted(&log, 2, 10).await;
    let third = log.claim(claim(3, 10)).await.unwrap().wait().await;
    let denied =
        matches!(third, Err(LogError::Denied(ClaimDenied::TooManyOrigins { limit: 2, .. })));
    assert!(denied, "{third:?}");
    append(&log, append_of(1, 10, AppendBody::Retire { mark: 0 })).await.unwrap();
    granted(&log, 3, 10).await;
    let mut elsewhere = claim(2, 10);
    elsewhere.stream = stream("t");
    let moved = log.claim(elsewhere).await.unwrap().wait().await;
    assert!(matches!(moved, Err(LogError::Denied(ClaimDenied::OtherStream { .. }))), "{moved:?}");
}

#[tokio::test]
async fn a_reader_waits_and_resumes_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let at = partition("s", 0);
    let mut reader = log.reader(&at, LogOffset(0)).await.unwrap();
    assert!(reader.try_next().await.unwrap().is_none());
    let waiting = tokio::spawn(async move {
        let first = reader.next().await.unwrap();
        let second = reader.next().await.unwrap();
        (first, second, reader)
    });
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"hello\n")).await.unwrap();
    let (first, second, mut reader) = waiting.await.unwrap();
    assert_eq!((first.offset, second.offset), (LogOffset(0), LogOffset(1)));
    assert_eq!(first.origin.claim, SessionId(10));

    let mut late = log.reader(&at, LogOffset(1)).await.unwrap();
    assert_eq!(late.next().await.unwrap().fingerprint, second.fingerprint);
    assert_eq!(late.position(), LogOffset(2));
    assert_eq!(log.fingerprint(&at, LogOffset(0)).await.unwrap().0, 0);
    assert_eq!(log.fingerprint(&at, LogOffset(1)).await.unwrap(), first.fingerprint);
    assert_eq!(log.fingerprint(&at, LogOffset(2)).await.unwrap(), second.fingerprint);
    let beyond = log.reader(&at, LogOffset(3)).await.err().unwrap();
    assert!(matches!(beyond, LogError::OutOfRange { .. }), "{beyond}");

    let ended = tokio::spawn(async move { reader.next().await });
    log.shutdown().await;
    assert!(matches!(ended.await.unwrap(), Err(LogError::Closed)));
    let closed = log.append(&at, block(1, 10, 6, b"x\n")).await.err().unwrap();
    assert!(matches!(closed, LogError::Closed), "{closed}");
    assert!(!log.progress().alive);
}

#[tokio::test]
async fn a_stream_can_be_added_while_the_log_runs() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let quarantine = StreamConfig::new(stream("_quarantine.p1"));
    log.add_stream(quarantine.clone()).await.unwrap();
    log.add_stream(quarantine.clone()).await.unwrap();
    let other = StreamConfig { partitions: 2, ..quarantine };
    assert!(matches!(log.add_stream(other).await, Err(LogError::Invalid { .. })));
    let mut first = claim(1, 10);
    first.stream = stream("_quarantine.p1");
    log.claim(first).await.unwrap().wait().await.unwrap();
    assert_eq!(log.streams().len(), 2);
    assert_eq!(log.bounds(&partition("_quarantine.p1", 0)).unwrap().end, LogOffset(1));
}

#[tokio::test]
async fn a_block_that_contradicts_itself_is_refused_at_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    let mut altered = block(1, 10, 0, b"hello\n");
    if let AppendBody::Block { payload, .. } = &mut altered.body {
        *payload = b"hullo\n".as_slice().into();
    }
    assert!(matches!(append(&log, altered).await, Err(LogError::Invalid { .. })));
    let mut foreign = block(1, 10, 0, b"hello\n");
    foreign.origin = origin(2);
    assert!(matches!(append(&log, foreign).await, Err(LogError::Invalid { .. })));
}

#[tokio::test]
async fn a_second_process_is_told_that_the_folder_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let second = garam_log::EmbeddedLog::open(config(dir.path())).err().unwrap();
    assert!(matches!(second, LogError::Locked { .. }), "{second}");
    log.shutdown().await;
    open(dir.path()).shutdown().await;
}
