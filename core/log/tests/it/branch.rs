//! A partition that begins a new life keeps its entries, names its ancestors, and stays one a core can open.

use garam_log::embedded::Env;
use garam_log::{EmbeddedLog, Log, inspect, offline};
use garam_proto::{Incarnation, LogOffset};

use crate::kit::*;

/// Incarnation and ancestors `(incarnation, until)` as an open log tells them.
fn lives(log: &EmbeddedLog) -> (Incarnation, Vec<(Incarnation, u64)>) {
    let at = partition("s", 0);
    let ancestors = log.ancestors(&at).unwrap();
    let ancestors = ancestors.iter().map(|a| (a.incarnation, a.until.0)).collect();
    (log.bounds(&at).unwrap().incarnation, ancestors)
}

#[tokio::test]
async fn a_new_life_shares_what_lies_below_its_branch() {
    let dir = tempfile::tempdir().unwrap();
    let at = partition("s", 0);
    let log = open(dir.path());
    let epoch = granted(&log, 1, 10).await.state.source_epoch;
    append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    let (first, none) = lives(&log);
    assert!(none.is_empty());
    log.shutdown().await;

    offline::begin_new_life(&Env::default(), dir.path(), &at, 65_536).unwrap();
    let log = open(dir.path());
    let (second, ancestors) = lives(&log);
    assert_ne!(first, second);
    assert_eq!(ancestors, [(first, 2)]);
    append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
    assert!(granted(&log, 2, 10).await.state.source_epoch > epoch + 65_536);
    let entries = read_all(&log, &at).await.unwrap();
    assert_eq!(payloads(&entries), [b"one\n", b"two\n"]);
    log.shutdown().await;

    offline::begin_new_life(&Env::default(), dir.path(), &at, 0).unwrap();
    let log = open(dir.path());
    assert_eq!(lives(&log).1, [(second, 4), (first, 2)]);
    assert_eq!(payloads(&read_all(&log, &at).await.unwrap()), [b"one\n", b"two\n"]);
    assert!(log.reader(&at, LogOffset(4)).await.unwrap().try_next().await.unwrap().is_none());
    log.shutdown().await;
    let report = &inspect::inspect(dir.path()).unwrap()[0];
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.ancestors.len(), 2);
}

#[tokio::test]
async fn a_segment_of_a_life_that_is_no_ancestor_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    log.shutdown().await;
    let stranger = tempfile::tempdir().unwrap();
    open(stranger.path()).shutdown().await;
    offline::begin_new_life(&Env::default(), dir.path(), &partition("s", 0), 0).unwrap();
    let file = "s/0000/00000000000000000000.seg";
    std::fs::copy(stranger.path().join(file), dir.path().join(file)).unwrap();
    let log = open(dir.path());
    let read = read_all(&log, &partition("s", 0)).await;
    assert!(matches!(read, Err(garam_log::LogError::Damaged { .. })), "{read:?}");
}
