//! Real segment files of every format ever released, which each build must go on reading, and the newest of which it must
//! still write byte for byte.
//!
//! `tests/golden/v1/<case>/s/0000/*.seg` are files as a log left them; `tests/golden/v1/<case>.txt` lists every entry they
//! hold. Files of a released format are never changed. After a deliberate change of a format that is *not* released, or for
//! a new case or version, `UPDATE_EXPECT=1 cargo test -p garam-log --test it golden` writes them anew, and git shows what changed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use garam_log::embedded::Env;
use garam_log::{AppendBody, EmbeddedLog, Entry, EntryBody, Log, LogConfig, inspect, offline};
use garam_proto::message::GapReason;

use crate::kit::*;
use crate::world::world;

/// Rolled: a sealed segment and an open one. Branched: the same, then a new life with entries of its own.
const CASES: [&str; 2] = ["rolled", "branched"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn small(dir: &Path) -> LogConfig {
    let mut config = config(dir);
    config.segment_size = 4096;
    config
}

/// The incarnation of the second life must differ from that of the first.
fn other_random(into: &mut [u8]) -> std::io::Result<()> {
    into.fill(0xa5);
    Ok(())
}

/// Writes a case through the public interface, with a clock and randomness that are the same each time.
async fn write(case: &str, dir: &Path) {
    let (_, clock, env) = world();
    clock.pass(Duration::from_millis(0x0102_0304));
    let log = EmbeddedLog::open_with(small(dir), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    granted(&log, 2, 10).await;
    let mut with_resume = block(1, 10, 0, b"hello\n");
    if let AppendBody::Block { header, .. } = &mut with_resume.body {
        header.resume = Some(b"at 6".to_vec());
    }
    append(&log, with_resume).await.unwrap();
    append(&log, block(2, 10, 0, "größer\n".as_bytes())).await.unwrap();
    let gap = AppendBody::Gap { from: 6, to: 9, at_least: false, reason: GapReason::Truncated };
    append(&log, append_of(1, 10, gap)).await.unwrap();
    let advance = AppendBody::Advance { from: 9, to: 300, tail_hash: 7, resume: None };
    append(&log, append_of(1, 10, advance)).await.unwrap();
    clock.pass(Duration::from_millis(1000));
    append(&log, block(1, 10, 300, &[b'x'; 4096])).await.unwrap();
    until("the segment rolls", async || log.stats()[0].segments == 2).await;
    granted(&log, 3, 11).await;
    append(&log, block(3, 11, 0, b"third\n")).await.unwrap();
    append(&log, append_of(1, 10, AppendBody::Retire { mark: 4396 })).await.unwrap();
    let unknown = AppendBody::Gap { from: 6, to: 7, at_least: true, reason: GapReason::Removed };
    append(&log, append_of(3, 11, unknown)).await.unwrap();
    log.shutdown().await;
    if case == "branched" {
        let env = Env { random: other_random, ..env };
        offline::begin_new_life(&env, dir, &partition("s", 0), 65_536).unwrap();
        let log = EmbeddedLog::open_with(small(dir), env).unwrap();
        granted(&log, 2, 12).await;
        append(&log, block(2, 12, 9, b"after the branch\n")).await.unwrap();
        log.shutdown().await;
    }
}

/// The segments of a folder, by name.
fn segments(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let listed = std::fs::read_dir(dir.join("s/0000")).unwrap();
    let mut segments: Vec<_> = listed
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "seg"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    segments.sort();
    segments
}

fn copy_segments(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("s/0000")).unwrap();
    for (name, bytes) in segments(from) {
        std::fs::write(to.join("s/0000").join(name), bytes).unwrap();
    }
}

/// The list: a line per entry, in words of this file, so that only a change of what is read changes it.
fn listed(entries: &[Entry]) -> String {
    let mut list = String::new();
    for entry in entries {
        let origin = &entry.origin;
        let body = match &entry.body {
            EntryBody::Claim => "claim".to_owned(),
            EntryBody::Block { header, payload } => format!(
                "block {}..{} records {} resume {:?} payload {} bytes crc {:08x} {:?}",
                header.from,
                header.to,
                header.records,
                header.resume.as_deref().map(String::from_utf8_lossy),
                payload.len(),
                crc32c::crc32c(payload),
                String::from_utf8_lossy(&payload[..payload.len().min(20)]),
            ),
            EntryBody::Gap { from, to, at_least, reason } => {
                format!("gap {from}..{to} at_least {at_least} {reason:?}")
            }
            EntryBody::Advance { from, to } => format!("advance {from}..{to}"),
            EntryBody::Retire => "retire".to_owned(),
        };
        writeln!(
            list,
            "{} {:016x} origin {:02x} of {} {} epoch {} mark {}: {body}",
            entry.offset.0,
            entry.fingerprint.0,
            origin.origin.generation.0[0],
            origin.host,
            origin.source,
            origin.source_epoch,
            origin.mark,
        )
        .unwrap();
    }
    list
}

fn inspected(dir: &Path) -> String {
    let at = partition("s", 0);
    let entries: Result<Vec<_>, _> = inspect::entries(dir, &at, None).unwrap().collect();
    listed(&entries.unwrap())
}

#[tokio::test]
async fn every_entry_of_the_golden_files_is_read_as_it_was_written() {
    for case in CASES {
        let list = std::fs::read_to_string(golden().join(format!("{case}.txt"))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        copy_segments(&golden().join(case), dir.path());
        assert_eq!(inspected(dir.path()), list, "{case}");
        let at = partition("s", 0);
        let reports = inspect::inspect(dir.path()).unwrap();
        assert!(reports[0].problems.is_empty(), "{case}: {:?}", reports[0].problems);
        let verified = offline::verify(dir.path(), std::slice::from_ref(&at), &mut |_| {}).unwrap();
        assert!(verified[0].damage.is_empty(), "{case}: {:?}", verified[0].damage);
        assert_eq!(verified[0].torn, None, "{case}");
        assert_eq!(verified[0].entries, list.lines().count() as u64, "{case}");

        let log = EmbeddedLog::open(small(dir.path())).unwrap();
        assert_eq!(listed(&read_all(&log, &at).await.unwrap()), list, "{case}");
        let lives = log.ancestors(&at).unwrap().len();
        assert_eq!(lives, usize::from(case == "branched"), "{case}");
        log.shutdown().await;
        assert_eq!(inspected(dir.path()), list, "{case}: after it was opened");
    }
}

#[tokio::test]
async fn the_same_records_are_written_with_the_bytes_of_the_golden_files() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        write(case, dir.path()).await;
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            replace(case, dir.path());
        }
        let (written, known) = (segments(dir.path()), segments(&golden().join(case)));
        let names = |segments: &[(String, Vec<u8>)]| {
            segments.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&written), names(&known), "{case}");
        for ((name, written), (_, known)) in written.iter().zip(&known) {
            let differs = written.iter().zip(known).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{case}: {name} differs at this byte");
            assert_eq!(written.len(), known.len(), "{case}: length of {name}");
        }
    }
}

fn replace(case: &str, dir: &Path) {
    let into = golden().join(case);
    if into.try_exists().unwrap() {
        std::fs::remove_dir_all(&into).unwrap();
    }
    copy_segments(dir, &into);
    std::fs::write(golden().join(format!("{case}.txt")), inspected(dir)).unwrap();
}
