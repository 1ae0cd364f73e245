//! Torn tails are cut, damage is told and never delivered, and what looks like an entry inside a payload is not one.

use std::path::{Path, PathBuf};

use garam_log::inspect::{self, ProblemKind};
use garam_log::{AppendBody, Appended, EmbeddedLog, Entry, EntryBody, Log, LogError};

use crate::kit::*;
use crate::world::world;

fn newest_segment(dir: &Path) -> PathBuf {
    let listed = std::fs::read_dir(dir.join("s/0000")).unwrap();
    listed.map(|entry| entry.unwrap().path()).max().unwrap()
}

/// What can be told about an entry.
fn shown(entry: &Entry) -> String {
    format!("{entry:?}")
}

/// Two sealed segments and an active one, each synced entry by entry.
async fn three_segments(dir: &Path) -> Vec<String> {
    let (_, _, env) = world();
    let mut config = config(dir);
    config.segment_size = 4096;
    let log = EmbeddedLog::open_with(config, env).unwrap();
    granted(&log, 1, 10).await;
    let mut mark = 0;
    for i in 0..14u8 {
        let payload = vec![b'a' + i; 700];
        append(&log, block(1, 10, mark, &payload)).await.unwrap();
        mark += 700;
    }
    until("the segments roll", async || log.stats()[0].segments == 3).await;
    append(&log, append_of(1, 10, AppendBody::Retire { mark })).await.unwrap();
    granted(&log, 2, 10).await;
    let entries = read_all(&log, &partition("s", 0)).await.unwrap();
    log.shutdown().await;
    entries.iter().map(shown).collect()
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_loses_only_what_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    let log = EmbeddedLog::open_with(config(dir.path()), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    let path = newest_segment(dir.path());
    let mut ends = vec![(std::fs::metadata(&path).unwrap().len() as usize, 2)];
    append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
    ends.push((std::fs::metadata(&path).unwrap().len() as usize, 3));
    append(&log, block(1, 10, 8, b"three\n")).await.unwrap();
    log.shutdown().await;
    let whole = std::fs::read(&path).unwrap();
    ends.push((whole.len(), 4));
    let truth = ["one\n", "two\n", "three\n"];
    for cut in ends[0].0..=whole.len() {
        for garbage in [&b""[..], &[0; 100], b"GRe1 and more of it, as if an entry began here"] {
            std::fs::write(&path, [&whole[..cut], garbage].concat()).unwrap();
            let log = EmbeddedLog::open_with(config(dir.path()), env.clone()).unwrap();
            let entries = read_all(&log, &partition("s", 0)).await.unwrap();
            let expected = ends.iter().rev().find(|(end, _)| *end <= cut).unwrap().1;
            assert_eq!(entries.len(), expected, "cut at {cut}");
            let found: Vec<_> =
                payloads(&entries).into_iter().map(|p| String::from_utf8(p).unwrap()).collect();
            assert_eq!(found, truth[..expected - 1]);
            let next = append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
            assert_eq!(matches!(next, Appended::Durable { .. }), expected == 2, "{next:?}");
            log.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_told_or_harmless_but_never_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let truth = three_segments(dir.path()).await;
    let newest = newest_segment(dir.path());
    let mut files: Vec<_> = std::fs::read_dir(dir.path().join("s/0000")).unwrap().collect();
    assert_eq!(files.len(), 3);
    let at = partition("s", 0);
    let (mut told, mut cut) = (0, 0);
    for file in files.drain(..) {
        let path = file.unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut altered = whole.clone();
            altered[byte] ^= 1 << (byte % 8);
            std::fs::write(&path, &altered).unwrap();
            let read: Vec<_> = match inspect::entries(dir.path(), &at, None) {
                Ok(entries) => entries.collect(),
                Err(error) => vec![Err(error)],
            };
            for (entry, expected) in read.iter().zip(&truth) {
                if let Ok(entry) = entry {
                    assert_eq!(&shown(entry), expected, "byte {byte} of {}", path.display());
                }
            }
            match read.last() {
                Some(Err(error)) => {
                    let known =
                        matches!(error, LogError::Damaged { .. } | LogError::NewerFormat { .. });
                    assert!(known, "byte {byte}: {error}");
                    told += 1;
                }
                _ => {
                    assert_eq!(path, newest, "byte {byte} of a sealed segment is not noticed");
                    cut += 1;
                }
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    // Only the entries of the last sync can be taken for a torn tail.
    assert!(told > 8000 && cut < 800, "told {told}, cut {cut}");
}

#[tokio::test]
async fn damage_below_what_was_synced_stops_the_partition_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
    append(&log, block(1, 10, 8, b"three\n")).await.unwrap();
    log.shutdown().await;
    let path = newest_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let two = bytes.windows(4).position(|w| w == b"two\n").unwrap();
    bytes[two] = b'T';
    std::fs::write(&path, &bytes).unwrap();

    let log = open(dir.path());
    let at = partition("s", 0);
    let mut reader = log.reader(&at, log.bounds(&at).unwrap().start).await.unwrap();
    assert!(reader.try_next().await.unwrap().is_some());
    assert!(reader.try_next().await.unwrap().is_some());
    let stopped = reader.try_next().await;
    assert!(matches!(stopped, Err(LogError::Damaged { .. })), "{stopped:?}");
    let refused = append(&log, block(1, 10, 14, b"x\n")).await;
    assert!(matches!(refused, Err(LogError::Damaged { .. })), "{refused:?}");
    let claimed = log.claim(claim(1, 11)).await.unwrap().wait().await;
    assert!(matches!(claimed, Err(LogError::Damaged { .. })), "{claimed:?}");
    let asked = log.candidates(&stream("s"), origin(1).agent, &descriptor(1));
    assert!(matches!(asked, Err(LogError::Damaged { .. })), "not an empty answer: {asked:?}");
    log.shutdown().await;
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is changed or deleted");
    let report = &inspect::inspect(dir.path()).unwrap()[0];
    assert_eq!((report.problems[0].kind, report.end.0), (ProblemKind::Damage, 2));
}

#[tokio::test]
async fn a_recovered_tail_is_known_to_be_durable_to_its_last_byte() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"only\n")).await.unwrap();
    log.shutdown().await;
    open(dir.path()).shutdown().await;
    let path = newest_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let log = open(dir.path());
    let read = read_all(&log, &partition("s", 0)).await;
    assert!(matches!(read, Err(LogError::Damaged { .. })), "{read:?}");
}

#[tokio::test]
async fn an_entry_forged_inside_a_payload_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, b"one\n")).await.unwrap();
    append(&log, block(1, 10, 4, b"two\n")).await.unwrap();
    log.shutdown().await;
    // Bytes of real entries that claim a lot to be durable, from a segment with another salt.
    let entries = std::fs::read(newest_segment(dir.path())).unwrap();
    let victim = tempfile::tempdir().unwrap();
    let log = open(victim.path());
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, &entries)).await.unwrap();
    log.shutdown().await;
    let path = newest_segment(victim.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let payload = bytes.len() - entries.len();
    bytes[payload - 1] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let log = open(victim.path());
    assert_eq!(read_all(&log, &partition("s", 0)).await.unwrap().len(), 1, "a torn tail is cut");
}

#[tokio::test]
async fn leftovers_of_an_interrupted_recovery_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let truth = three_segments(dir.path()).await;
    let left = dir.path().join("s/0000/00000000000000000010.seg.tmp");
    std::fs::write(&left, b"half a copy").unwrap();
    let log = open(dir.path());
    let entries = read_all(&log, &partition("s", 0)).await.unwrap();
    assert_eq!(entries.iter().map(shown).collect::<Vec<_>>(), truth);
    assert!(!left.try_exists().unwrap());
}

#[tokio::test]
async fn one_damaged_partition_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let two = || {
        let mut config = config(dir.path());
        config.streams.push(garam_log::StreamConfig::new(stream("t")));
        EmbeddedLog::open(config).unwrap()
    };
    let log = two();
    granted(&log, 1, 10).await;
    log.shutdown().await;
    std::fs::write(newest_segment(dir.path()), b"nothing of a segment").unwrap();
    let log = two();
    let damaged = log.claim(claim(9, 10)).await.unwrap().wait().await;
    assert!(matches!(damaged, Err(LogError::Damaged { .. })), "{damaged:?}");
    let mut elsewhere = claim(2, 10);
    elsewhere.stream = stream("t");
    log.claim(elsewhere).await.unwrap().wait().await.unwrap();
    let entries = read_all(&log, &partition("t", 0)).await.unwrap();
    assert!(matches!(entries[0].body, EntryBody::Claim));
}

#[tokio::test]
async fn a_batch_of_which_only_the_later_pages_reached_the_disk_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    let log = EmbeddedLog::open_with(config(dir.path()), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    disk.stall();
    let at = partition("s", 0);
    let first = log.append(&at, block(1, 10, 0, b"one\n")).await.unwrap();
    until("the first is on its way", async || log.progress().busy_for.is_some()).await;
    let mut tickets = vec![first];
    for (i, payload) in [b"two\n", b"thr\n", b"fou\n"].iter().enumerate() {
        let append = block(1, 10, 4 + 4 * i as u128, *payload);
        tickets.push(log.append(&at, append).await.unwrap());
    }
    disk.resume();
    for ticket in tickets {
        ticket.wait().await.unwrap();
    }
    log.shutdown().await;
    let path = newest_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let two = bytes.windows(4).position(|w| w == b"two\n").unwrap();
    bytes[two - 20..two + 4].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let log = EmbeddedLog::open_with(config(dir.path()), env).unwrap();
    let entries = read_all(&log, &at).await.unwrap();
    assert_eq!(payloads(&entries), [b"one\n"], "nothing of that batch was acknowledged");
}
