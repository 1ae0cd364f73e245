//! Files that are renamed, truncated, rewritten and unlinked under a running agent.

use std::fs;
use std::io::{Seek, Write};

use garam_proto::message::{GapReason, Hold};

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

/// Holds or releases the stream and waits until the agent knows.
fn hold(core: &Core, host: &Host, held: bool) {
    let stream = garam_proto::StreamName::new("raw").unwrap();
    core.state().held = Some(Hold { stream, partition: None, held, why: "test".into() });
    core.nudge();
    eventually("the agent knows of the hold", || {
        host.status().is_some_and(|s| s.files.iter().any(|f| f.state == "held") == held)
    });
}

fn wait_for_unread(host: &Host, bytes: u64) {
    eventually("the agent sees what it may not read", || {
        host.status().is_some_and(|status| status.totals.unread_bytes == bytes)
    });
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_its_successor_begins() {
    for include in ["app.log*", "app.log"] {
        let core = Core::start();
        let mut host = Host::new(&core, include, "");
        let mut oracle = Oracle::default();
        let path = host.log("app.log");
        oracle.append(&path, 100);
        host.start();
        oracle.settle(&core);
        hold(&core, &host, true);
        for generation in 1..4 {
            oracle.append(&path, 100);
            fs::rename(&path, host.log(&format!("app.log.{generation}"))).unwrap();
            oracle.append(&path, 100);
            let known = generation + 1;
            eventually("the successor is met", || {
                host.status().is_some_and(|s| s.files.len() == known)
            });
        }
        hold(&core, &host, false);
        oracle.settle(&core);
        assert_eq!(core.lines("raw"), oracle.written, "order within the lineage, {include}");
        let lineages: std::collections::HashSet<_> =
            core.state().origins.values().map(|held| held.lineage).collect();
        assert_eq!(lineages.len(), 1);
    }
}

#[test]
fn a_successor_waits_until_its_predecessor_is_acknowledged() {
    let core = Core::start();
    let mut host = Host::new(&core, "app.log*", "");
    let mut oracle = Oracle::default();
    let path = host.log("app.log");
    host.start();
    oracle.append(&path, 10);
    oracle.settle(&core);
    core.state().withhold = true;
    oracle.append(&path, 10);
    fs::rename(&path, host.log("app.log.1")).unwrap();
    oracle.append(&path, 10);
    eventually("the successor waits", || {
        host.status().is_some_and(|s| s.files.iter().any(|f| f.state == "waiting"))
    });
    assert_eq!(core.lines("raw").len(), 20);
    core.state().withhold = false;
    core.nudge();
    oracle.settle(&core);
    assert_eq!(core.lines("raw"), oracle.written);
}

#[test]
fn an_unlinked_file_is_read_to_its_end() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    host.start();
    oracle.append(&path, 10);
    oracle.settle(&core);
    hold(&core, &host, true);
    oracle.append(&path, 1000);
    fs::remove_file(&path).unwrap();
    oracle.append(&path, 10);
    eventually("the new file is met", || host.status().is_some_and(|s| s.files.len() == 2));
    hold(&core, &host, false);
    oracle.settle(&core);
}

#[test]
fn copytruncate_after_everything_was_read_loses_nothing() {
    let core = Core::start();
    let mut host = Host::new(&core, "app.log", "");
    let mut oracle = Oracle::default();
    let path = host.log("app.log");
    oracle.append(&path, 100);
    host.start();
    for _ in 0..3 {
        oracle.settle(&core);
        fs::copy(&path, host.log("app.log.1")).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        // Longer than before, so that the size alone does not tell.
        oracle.append(&path, 200);
    }
    oracle.settle(&core);
    assert_eq!(core.lines("raw"), oracle.written);
    let state = core.state();
    assert!(state.origins.values().all(|held| held.gaps.is_empty()));
    assert_eq!(state.origins.values().filter(|held| held.retired).count(), 3);
}

#[test]
fn what_was_truncated_unread_is_a_gap_of_exactly_that_size() {
    let core = Core::start();
    let mut host = Host::new(&core, "app.log", "");
    let mut oracle = Oracle::default();
    let path = host.log("app.log");
    host.start();
    oracle.append(&path, 10);
    oracle.settle(&core);
    hold(&core, &host, true);
    let lost = b"never to be read\n".repeat(10);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&lost).unwrap();
    wait_for_unread(&host, lost.len() as u64);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    oracle.append(&path, 5);
    hold(&core, &host, false);
    oracle.settle(&core);
    let gaps: Vec<_> = core.state().origins.values().flat_map(|held| held.gaps.clone()).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].1 - gaps[0].0, lost.len() as u128);
    assert_eq!(gaps[0].2, GapReason::Truncated);
    eventually("the old content is accounted for", || {
        let status = host.status().unwrap();
        status.totals.gap_bytes == lost.len() as u64 && status.finished.len() == 1
    });
    let status = host.status().unwrap();
    let ended = &status.finished[0];
    let by_reason = |by: &std::collections::BTreeMap<String, u64>| by["truncated"];
    assert_eq!(by_reason(&ended.gap_by), lost.len() as u64);
    assert_eq!(by_reason(&status.totals.gap_by), lost.len() as u64);
    assert_eq!(ended.read + ended.skipped + ended.gap + ended.unread, ended.size);
}

#[test]
fn content_rewritten_in_place_is_read_anew_whatever_its_length() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    host.start();
    oracle.append(&path, 50);
    for _ in 0..3 {
        oracle.settle(&core);
        let len = fs::metadata(&path).unwrap().len();
        let mut text = Vec::new();
        while (text.len() as u64) < len {
            text.extend_from_slice(oracle.line().as_bytes());
            text.push(b'\n');
        }
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.rewind().unwrap();
        file.write_all(&text).unwrap();
        file.set_len(text.len() as u64).unwrap();
    }
    oracle.settle(&core);
}
