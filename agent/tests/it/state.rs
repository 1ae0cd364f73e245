//! Kills, lost and damaged state, restored cores: where reading goes on.

use std::fs;

use garam_proto::message::ClaimReason;

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

#[test]
fn a_killed_agent_continues_with_and_without_its_state() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    for round in 0..6 {
        oracle.append(&host.log("a.log"), 300);
        oracle.append(&host.log("b.log"), 3);
        host.start();
        if round % 2 == 0 {
            oracle.settle(&core);
        }
        host.kill();
        if round % 3 == 2 {
            host.lose_state();
        }
    }
    host.start();
    oracle.settle(&core);
    assert_eq!(core.state().origins.len(), 2, "no file became a second origin");
}

#[test]
fn a_rotation_while_the_agent_was_down_loses_and_repeats_nothing() {
    for (include, lose) in
        [("app.log", false), ("app.log", true), ("app.log*", false), ("app.log*", true)]
    {
        let core = Core::start();
        let mut host = Host::new(&core, include, "");
        let mut oracle = Oracle::default();
        let path = host.log("app.log");
        oracle.append(&path, 100);
        host.start();
        oracle.settle(&core);
        host.terminate();
        oracle.append(&path, 50);
        fs::rename(&path, host.log("app.log.1")).unwrap();
        oracle.append(&path, 50);
        if lose {
            host.lose_state();
        }
        host.start();
        oracle.settle(&core);
        assert_eq!(core.lines("raw"), oracle.written, "{include}, state lost: {lose}");
    }
}

#[test]
fn an_older_checkpoint_is_overruled_by_the_cores_mark() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    host.terminate();
    let old = fs::read(host.state().join("checkpoint")).unwrap();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    host.terminate();
    fs::write(host.state().join("checkpoint"), old).unwrap();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    assert_eq!(core.state().origins.len(), 1);
}

#[test]
fn a_restored_core_is_sent_again_what_it_forgot() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    let backup = core.state().origins.clone();
    oracle.append(&host.log("a.log"), 100);
    oracle.append(&host.log("younger.log"), 100);
    oracle.settle(&core);
    core.state().origins = backup;
    core.cut_connections();
    // Nothing new is written: idle files are claimed again too.
    oracle.settle(&core);
    host.kill();
    core.state().origins.clear();
    host.start();
    oracle.settle(&core);
}

#[test]
fn a_core_that_holds_other_content_gets_a_branch_from_the_own_frontier() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    oracle.append(&path, 100);
    host.start();
    oracle.settle(&core);
    host.terminate();
    let mark = fs::metadata(&path).unwrap().len() as u128;
    // A clone of this host shipped other bytes under the same generation.
    for held in core.state().origins.values_mut() {
        held.mark += 500;
        held.tail_hash = 4711;
    }
    oracle.append(&path, 100);
    host.start();
    oracle.settle(&core);
    let state = core.state();
    let branch = state.origins.values().find(|held| held.reason == ClaimReason::Branched).unwrap();
    assert_eq!(branch.start, mark);
}

#[test]
fn another_stream_in_the_configuration_continues_from_the_checkpoint() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    host.terminate();
    let text = fs::read_to_string(host.config()).unwrap();
    fs::write(host.config(), text.replace("stream = \"raw\"", "stream = \"other\"")).unwrap();
    let mut others = Oracle::default();
    others.append(&host.log("a.log"), 10);
    host.start();
    eventually("new lines go to the other stream", || core.lines("other") == others.written);
    oracle.check(&core);
    let state = core.state();
    assert!(state.origins.values().any(|held| held.reason == ClaimReason::StreamChanged));
}

/// What may become of a state file on a bad day.
fn damage(bytes: &mut Vec<u8>, way: usize) {
    let half = bytes.len() / 2;
    match way {
        0 => bytes.truncate(half),
        1 => bytes.clear(),
        2 => bytes[half..].fill(0),
        3 => bytes.fill(0),
        _ => bytes[half] ^= 4,
    }
}

#[test]
fn a_damaged_checkpoint_costs_nothing_and_nothing_is_read_twice() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 1000);
    host.start();
    oracle.settle(&core);
    host.terminate();
    for way in 0..5 {
        for names in [&["checkpoint"][..], &["checkpoint", "checkpoint.prev"]] {
            for name in names {
                let path = host.state().join(name);
                let mut bytes = fs::read(&path).unwrap();
                damage(&mut bytes, way);
                fs::write(&path, bytes).unwrap();
            }
            let mark = core.state().origins.values().map(|held| held.mark).sum::<u128>();
            oracle.append(&host.log("a.log"), 10);
            host.start();
            oracle.settle(&core);
            let read = fs::metadata(host.log("a.log")).unwrap().len() - mark as u64;
            eventually("only what is new was read", || {
                host.status().is_some_and(|status| status.totals.bytes_acked == read)
            });
            assert_eq!(host.status().unwrap().totals.bytes_read, read, "{names:?}, way {way}");
            // Twice, so that both generations are whole again.
            oracle.append(&host.log("a.log"), 1);
            oracle.settle(&core);
            host.terminate();
            assert!(host.stderr().contains("checkpoint is damaged"));
        }
    }
    assert_eq!(core.state().origins.len(), 1, "the file never became a second origin");
}

#[test]
fn a_newer_checkpoint_is_left_alone() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let path = host.state().join("checkpoint");
    let newer = "garam-agent-checkpoint 9 00000000 0\n";
    fs::write(&path, newer).unwrap();
    host.start();
    assert_eq!(host.exit_code(), Some(78));
    assert!(host.stderr().contains("upgrade the agent"));
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_file_begun_at_its_end_is_not_read_from_its_beginning_when_the_state_is_lost() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "start_at = \"end\"");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    fs::write(&path, "before the agent\n".repeat(100)).unwrap();
    host.start();
    eventually("the file is claimed", || core.state().origins.len() == 1);
    host.kill();
    host.lose_state();
    oracle.append(&path, 20);
    host.start();
    oracle.settle(&core);
    assert_eq!(core.lines("raw"), oracle.written);
    assert_eq!(core.state().origins.len(), 1, "no file became a second origin");
}
