//! Damage is found wherever it is, and a repair keeps everything that is sound and counts the rest.

use std::collections::BTreeMap;
use std::path::Path;

use garam_log::embedded::Env;
use garam_log::offline::{self, RepairPlan, Verified};
use garam_log::{AppendBody, Appended, EmbeddedLog, Entry, EntryBody, Log, LogError, inspect};
use garam_proto::{OriginId, PartitionId};

use crate::kit::*;
use crate::world::Disk;

/// A disk that can be broken, and randomness that is never the same: incarnations differ.
fn world() -> (Disk, (), Env) {
    let (disk, _, env) = crate::world::world();
    (disk, (), Env { random, ..env })
}

fn random(into: &mut [u8]) -> std::io::Result<()> {
    fastrand::fill(into);
    Ok(())
}

fn at() -> PartitionId {
    partition("s", 0)
}

fn small(dir: &Path) -> garam_log::LogConfig {
    let mut config = config(dir);
    config.segment_size = 4096;
    config
}

/// Three origins over four segments; the last of them is registered in the second one.
async fn four_segments(dir: &Path, env: &Env) -> Vec<Entry> {
    let log = EmbeddedLog::open_with(small(dir), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    granted(&log, 2, 10).await;
    let mut marks = [0; 4];
    for i in 0..24usize {
        let n = 1 + i % if i > 9 { 3 } else { 2 };
        if i == 10 {
            granted(&log, 3, 11).await;
        }
        let session = if n == 3 { 11 } else { 10 };
        let payload = vec![b'a' + i as u8; 520];
        append(&log, block(n as u8, session, marks[n], &payload)).await.unwrap();
        marks[n] += 520;
        if i % 7 == 6 {
            let segments = 1 + (i + 1) / 7;
            until("the segment rolls", async || log.stats()[0].segments == segments).await;
        }
    }
    append(&log, append_of(3, 11, AppendBody::Retire { mark: marks[3] })).await.unwrap();
    granted(&log, 1, 12).await;
    let entries = read_all(&log, &at()).await.unwrap();
    log.shutdown().await;
    entries
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("s/0000");
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(dir.join("s/0000")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    copy
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let listed = std::fs::read_dir(dir.join("s/0000")).unwrap();
    let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    files
}

fn verified(dir: &Path) -> Verified {
    offline::verify(dir, &[at()], &mut |_| {}).unwrap().remove(0)
}

/// Per origin, how many bytes lie in blocks and how many in gaps.
fn covered(entries: &[Entry]) -> BTreeMap<OriginId, (u128, u128)> {
    let mut covered: BTreeMap<OriginId, (u128, u128)> = BTreeMap::new();
    for entry in entries {
        let sum = covered.entry(entry.origin.origin).or_default();
        match &entry.body {
            EntryBody::Block { header, .. } => sum.0 += header.to - header.from,
            EntryBody::Gap { from, to, .. } => sum.1 += to - from,
            _ => {}
        }
    }
    covered
}

/// The sum of all origins' marks at the end.
fn marks_of(entries: &[Entry]) -> u128 {
    let last = entries.iter().map(|entry| (entry.origin.origin, entry.origin.mark));
    last.collect::<BTreeMap<_, _>>().values().sum()
}

/// Repairs what is damaged and checks everything that a repair promises. Returns the entries that are left.
async fn repaired(dir: &Path, env: &Env, truth: &[Entry], what: &str) -> Option<Vec<Entry>> {
    let found = verified(dir);
    let Some(plan) = offline::plan_repair(env, dir, &at()).unwrap() else {
        assert!(found.damage.is_empty(), "{what}: {found:?}");
        return None;
    };
    assert!(!found.damage.is_empty(), "{what}");
    assert_eq!(plan.hopeless, None, "{what}");
    let done = offline::repair(env, dir, &plan).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(done.aside.iter().all(|path| path.try_exists().unwrap()), "{what}: kept aside");
    let log = EmbeddedLog::open_with(small(dir), env.clone()).unwrap();
    let bounds = log.bounds(&at()).unwrap();
    assert_eq!(bounds.incarnation, done.incarnation);
    let ancestors = log.ancestors(&at()).unwrap();
    assert_eq!((ancestors[0].incarnation, ancestors[0].until), (plan.incarnation, plan.branch));
    let entries = read_all(&log, &at()).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    let start = bounds.start.0 as usize;
    let mut kept = 0;
    for (entry, expected) in entries.iter().zip(&truth[start..]) {
        assert_eq!(entry.offset, expected.offset);
        if entry.offset < plan.branch {
            assert_eq!(entry.fingerprint, expected.fingerprint, "{what}: below the branch");
        }
        if let EntryBody::Block { payload, .. } = &entry.body {
            let EntryBody::Block { payload: original, .. } = &expected.body else {
                panic!("{what}: {entry:?} was no block")
            };
            assert_eq!((payload, entry.fingerprint), (original, expected.fingerprint), "{what}");
            kept += 1;
        }
    }
    let lost: u64 = plan.damage.iter().map(|d| d.offsets.end - d.offsets.start).sum();
    let before = truth[start..].iter().filter(|e| matches!(e.body, EntryBody::Block { .. }));
    let blocks = before.count() as u64;
    // What is cut at the end has no number: the marks went back, and agents send it again.
    let resent: u128 = marks_of(&truth[start..]) - marks_of(&entries);
    let unnumbered = resent.div_ceil(520) as u64;
    assert!(
        kept + lost + unnumbered >= blocks,
        "{what}: {kept} of {blocks} blocks are left, {lost} lost, {unnumbered} to be sent again"
    );
    // Sent and read again: the log is one that can be written.
    let state = granted(&log, 1, 99).await.state;
    let next = append(&log, block(1, 99, state.mark, b"new\n")).await.unwrap();
    assert!(matches!(next, Appended::Durable { .. }), "{what}: {next:?}");
    log.shutdown().await;
    let after = verified(dir);
    assert!(after.damage.is_empty() && after.torn.is_none(), "{what}: {after:?}");
    assert_eq!(offline::plan_repair(env, dir, &at()).unwrap(), None);
    assert!(inspect::inspect(dir).unwrap()[0].problems.is_empty(), "{what}");
    Some(entries)
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_verified_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    let truth = four_segments(dir.path(), &env).await;
    assert_eq!(files(dir.path()).len(), 4);
    assert!(verified(dir.path()).damage.is_empty());
    let (mut repairs, mut torn) = (0, 0);
    for (number, file) in files(dir.path()).iter().enumerate() {
        let whole = std::fs::read(file).unwrap();
        // Every byte of the front and around an entry's header, some of the payloads.
        for byte in (0..whole.len()).filter(|byte| byte % 41 == 0 || *byte < 120) {
            let copy = copy_of(dir.path());
            let victim = &files(copy.path())[number];
            let mut altered = whole.clone();
            altered[byte] ^= 1 << (byte % 8);
            std::fs::write(victim, &altered).unwrap();
            // The version is not damage but a newer build's.
            if (8..10).contains(&byte) {
                continue;
            }
            match repaired(copy.path(), &env, &truth, &format!("byte {byte} of {number}")).await {
                Some(_) => repairs += 1,
                None => torn += 1,
            }
        }
    }
    assert!(repairs > 500 && torn < 60, "{repairs} repairs, {torn} torn tails");
}

#[tokio::test]
async fn what_a_repair_gives_up_is_counted_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    let truth = four_segments(dir.path(), &env).await;
    let all = covered(&truth);
    for seed in 0..60u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let copy = copy_of(dir.path());
        let number = random.usize(..3);
        let victim = files(copy.path()).swap_remove(number);
        let mut bytes = std::fs::read(&victim).unwrap();
        // Behind the front; what it says is tested by itself.
        let from = random.usize(400..bytes.len());
        let to = (from + random.usize(1..2500)).min(bytes.len());
        bytes[from..to].fill(random.u8(..));
        std::fs::write(&victim, &bytes).unwrap();
        let what = format!("seed {seed}: {from}..{to} of {number}");
        let Some(left) = repaired(copy.path(), &env, &truth, &what).await else {
            panic!("{what}: not noticed")
        };
        for (origin, (blocks, gaps)) in covered(&left) {
            let (before, none) = all[&origin];
            assert_eq!((blocks + gaps, none), (before, 0), "{what}: {origin}");
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_a_counted_loss_and_a_missing_front_moves_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    let truth = four_segments(dir.path(), &env).await;
    let copy = copy_of(dir.path());
    std::fs::remove_file(&files(copy.path())[1]).unwrap();
    let left = repaired(copy.path(), &env, &truth, "missing segment").await.unwrap();
    let (before, after) = (covered(&truth), covered(&left));
    for (origin, (blocks, _)) in before {
        assert_eq!(after[&origin].0 + after[&origin].1, blocks, "{origin}");
    }

    let copy = copy_of(dir.path());
    let first = files(copy.path()).remove(0);
    std::fs::write(&first, b"nothing of a segment").unwrap();
    let left = repaired(copy.path(), &env, &truth, "oldest segment").await.unwrap();
    assert!(left[0].offset.0 > 0);
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_the_old_partition_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _, env) = world();
    four_segments(dir.path(), &env).await;
    let damaged = copy_of(dir.path());
    for number in [0, 1] {
        let file = &files(damaged.path())[number];
        let mut bytes = std::fs::read(file).unwrap();
        bytes[1500] ^= 1;
        std::fs::write(file, &bytes).unwrap();
    }
    let plan: RepairPlan =
        offline::plan_repair(&env, damaged.path(), &at()).unwrap().expect("it is damaged");
    let (mut old, mut new) = (0, 0);
    for step in 1.. {
        let copy = copy_of(damaged.path());
        let mut plan = plan.clone();
        move_plan(&mut plan, damaged.path(), copy.path());
        disk.dies_at(step);
        let done = offline::repair(&env, copy.path(), &plan);
        disk.revives();
        // Whatever comes first, a verification or the core: it sees one or the other.
        let log = EmbeddedLog::open_with(small(copy.path()), env.clone()).unwrap();
        let incarnation = log.bounds(&at()).unwrap().incarnation;
        let read = read_all(&log, &at()).await;
        log.shutdown().await;
        if incarnation == plan.incarnation {
            assert!(matches!(read, Err(LogError::Damaged { .. })), "step {step}");
            assert!(done.is_err());
            let again = offline::plan_repair(&env, copy.path(), &at()).unwrap().unwrap();
            offline::repair(&env, copy.path(), &again).unwrap();
            old += 1;
        } else {
            assert!(read.is_ok(), "step {step}: {:?}", read.err());
            new += 1;
        }
        assert!(verified(copy.path()).damage.is_empty(), "step {step}");
        if done.is_ok() {
            break;
        }
    }
    assert!(old > 5 && new > 3, "{old} crashes left the old partition, {new} the new one");
}

/// The same plan for a copy of the folder.
fn move_plan(plan: &mut RepairPlan, from: &Path, to: &Path) {
    let moved = |path: &mut std::path::PathBuf| {
        *path = to.join(path.strip_prefix(from).unwrap());
    };
    plan.damage.iter_mut().for_each(|damage| moved(&mut damage.file));
    plan.rewritten.iter_mut().for_each(moved);
}

#[tokio::test]
async fn a_running_log_is_not_repaired_and_a_plan_that_is_old_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    four_segments(dir.path(), &env).await;
    let file = files(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1500] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let plan = offline::plan_repair(&env, dir.path(), &at()).unwrap().unwrap();
    let log = EmbeddedLog::open_with(small(dir.path()), env.clone()).unwrap();
    let refused = offline::repair(&env, dir.path(), &plan);
    assert!(matches!(refused, Err(LogError::Locked { .. })), "{refused:?}");
    log.shutdown().await;
    bytes[3000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let refused = offline::repair(&env, dir.path(), &plan);
    assert!(matches!(refused, Err(LogError::Invalid { .. })), "{refused:?}");
}

#[tokio::test]
async fn verifying_a_log_that_is_being_written_finds_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    let log = EmbeddedLog::open_with(small(dir.path()), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    let folder = dir.path().to_path_buf();
    let looking = tokio::task::spawn_blocking(move || {
        for _ in 0..200 {
            let found = verified(&folder);
            assert!(found.damage.is_empty(), "{found:?}");
        }
    });
    let mut mark = 0;
    while !looking.is_finished() {
        append(&log, block(1, 10, mark, &[b'x'; 300])).await.unwrap();
        mark += 300;
        if mark > 300 * 3000 {
            break;
        }
    }
    looking.await.unwrap();
    log.shutdown().await;
}
