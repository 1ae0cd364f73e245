//! What the agent may take: descriptors, bytes per second, bytes of deleted files; and what it leaves alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use garam_proto::StreamName;
use garam_proto::message::{GapReason, Hold};

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

const FILES: usize = 600;
const DESCRIPTORS: u32 = 128;

#[test]
fn many_more_files_than_descriptors_lose_nothing_whatever_happens_to_them() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log*", "");
    let mut oracle = Oracle::default();
    let name = |number: usize| format!("{number}.log");
    for number in 0..FILES {
        oracle.append(&host.log(&name(number)), 3);
    }
    host.start_with_descriptors(DESCRIPTORS);
    oracle.settle(&core);
    assert!(host.descriptors() <= DESCRIPTORS as usize);
    for round in 0..3 {
        for number in (round..FILES).step_by(7) {
            let path = host.log(&name(number));
            match number % 4 {
                0 => oracle.append(&path, 2),
                1 => {
                    oracle.append(&path, 1);
                    fs::rename(&path, host.log(&format!("{number}.log.{round}"))).unwrap();
                    oracle.append(&path, 1);
                }
                2 => {
                    fs::remove_file(&path).unwrap();
                    oracle.append(&path, 5);
                }
                _ => {
                    fs::File::create(&path).unwrap();
                    oracle.append(&path, 4);
                }
            }
        }
        oracle.settle(&core);
        assert!(host.descriptors() <= DESCRIPTORS as usize);
    }
    host.kill();
    for number in 0..FILES {
        oracle.append(&host.log(&name(number)), 1);
    }
    host.start_with_descriptors(DESCRIPTORS);
    oracle.settle(&core);
    assert!(!host.stderr().contains("Too many open files"));
}

#[test]
fn no_more_is_read_in_a_second_than_the_rate_allows() {
    let core = Core::start();
    let mut host = Host::with_ship(&core, "*.log", "", "rate = \"64KiB\"\nblock_size = \"64KiB\"");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    while fs::metadata(&path).map_or(0, |found| found.len()) < 320 * 1024 {
        oracle.append(&path, 500);
    }
    let start = Instant::now();
    host.start();
    oracle.settle(&core);
    // 320 KiB, less the second that was saved and the block that is read on credit.
    assert!(start.elapsed() >= Duration::from_millis(2_500), "{:?}", start.elapsed());
}

#[test]
fn a_file_too_old_to_be_begun_is_left_alone_until_it_is_written_and_a_known_one_goes_on() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "ignore_older = \"1h\"");
    let mut oracle = Oracle::default();
    let age = |path: &Path| {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    };
    let (known, old) = (host.log("known.log"), host.log("old.log"));
    oracle.append(&known, 50);
    let mut ignored = Oracle::default();
    ignored.append(&old, 1);
    age(&old);
    host.start();
    oracle.settle(&core);
    host.terminate();
    oracle.append(&known, 50);
    age(&known);
    host.start();
    oracle.settle(&core);
    assert_eq!(core.state().origins.len(), 1, "known continues, old is not begun");
    oracle.written.extend(ignored.written);
    oracle.append(&old, 1);
    oracle.settle(&core);
}

#[test]
fn deleted_files_beyond_the_limit_are_given_up_as_gaps_of_exactly_what_was_seen() {
    let core = Core::start();
    let mut host = Host::with_ship(&core, "*.log", "", "hold_unlinked = \"1MiB\"");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("live.log"), 10);
    host.start();
    oracle.settle(&core);
    let stream = StreamName::new("raw").unwrap();
    let hold = |held| {
        let stream = stream.clone();
        core.state().held = Some(Hold { stream, partition: None, held, why: "test".into() });
        core.nudge();
    };
    hold(true);
    let unread = |bytes: u64| {
        eventually("the agent sees what it may not read", || {
            host.status().is_some_and(|status| status.totals.unread_bytes == bytes)
        });
    };
    let kept = 700_000;
    for (name, letter, seen) in [("old.log", "o", kept), ("new.log", "n", 2 * kept)] {
        fs::write(host.log(name), format!("{}\n", letter.repeat(kept as usize - 1))).unwrap();
        unread(seen);
    }
    fs::remove_file(host.log("old.log")).unwrap();
    fs::remove_file(host.log("new.log")).unwrap();
    eventually("one is given up", || host.stderr().contains("giving one up"));
    hold(false);
    eventually("the younger one arrives whole", || {
        core.lines("raw").iter().any(|line| line.len() == kept as usize - 1)
    });
    let gaps = || {
        let state = core.state();
        state.origins.values().flat_map(|held| held.gaps.clone()).collect::<Vec<_>>()
    };
    eventually("the gap is reported", || !gaps().is_empty());
    assert_eq!(gaps(), [(0, u128::from(kept), GapReason::Removed)]);
}

#[test]
fn a_file_that_cannot_be_read_is_reported_and_tried_again() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    // A link to itself cannot be opened, not even by root.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    host.start();
    eventually("it is reported", || host.stderr().contains("cannot read file"));
    fs::remove_file(&path).unwrap();
    oracle.append(&path, 10);
    oracle.settle(&core);
}

#[test]
fn files_that_change_places_are_followed_by_what_they_are() {
    for running in [true, false] {
        let core = Core::start();
        let mut host = Host::new(&core, "*.log", "");
        let mut oracle = Oracle::default();
        let (a, b, between) = (host.log("a.log"), host.log("b.log"), host.log("between"));
        for round in 0..3 {
            oracle.append(&a, 20 + round);
            oracle.append(&b, 30);
            if running && round == 0 {
                host.start();
            }
            if !running {
                host.start();
            }
            oracle.settle(&core);
            if !running {
                host.terminate();
            }
            fs::rename(&a, &between).unwrap();
            fs::rename(&b, &a).unwrap();
            fs::rename(&between, &b).unwrap();
        }
        assert_eq!(core.state().origins.len(), 2, "running: {running}");
    }
}
