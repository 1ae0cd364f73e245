//! Kills, state that is torn, a core that is away, configurations that change under load.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use garam_proto::message::{Bye, ByeReason};

use super::Trial;
use crate::agent;
use crate::core::eventually;

fn away(trial: &Trial, away: bool) {
    let text = "maintenance".to_owned();
    trial.core.state().refuse = away.then_some(Bye { reason: ByeReason::Shutdown, text });
    if away {
        trial.core.cut_connections();
    }
}

#[test]
fn h13_a_kill_while_the_core_is_away() {
    let mut trial = Trial::new("*.log", "");
    away(&trial, true);
    trial.host.start();
    trial.append("a.log", 2000);
    eventually("the agent has seen all and sent nothing", || {
        let size = fs::metadata(trial.host.log("a.log")).unwrap().len();
        trial.host.status().is_some_and(|status| status.totals.unread_bytes == size)
    });
    trial.host.kill();
    away(&trial, false);
    trial.host.start();
    trial.settle();
}

#[test]
fn h19_a_checkpoint_torn_at_any_place_loses_nothing_and_reads_nothing_twice() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 500);
    trial.append("b.log", 500);
    trial.host.start();
    trial.settle();
    trial.host.terminate();
    let path = trial.host.state().join("checkpoint");
    let whole = fs::read(&path).unwrap();
    let previous = fs::read(trial.host.state().join("checkpoint.prev")).unwrap();
    // Every single length is torn in the checkpoint's own tests; here the agent starts on a few of each kind.
    for at in (0..whole.len()).step_by(whole.len() / 6).chain([whole.len() - 1]) {
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        for torn in [&whole[..at], &zeroed] {
            let mark: u128 = trial.core.state().origins.values().map(|held| held.mark).sum();
            fs::write(&path, torn).unwrap();
            fs::write(trial.host.state().join("checkpoint.prev"), &previous).unwrap();
            trial.append("a.log", 5);
            trial.host.start();
            trial.settle();
            let now: u128 = trial.core.state().origins.values().map(|held| held.mark).sum();
            let read = trial.host.status().unwrap().totals.bytes_read;
            assert_eq!(u128::from(read), now - mark, "only what is new is read, torn at {at}");
            trial.host.kill();
        }
    }
    assert_eq!(trial.core.state().origins.len(), 2);
}

#[test]
fn h23_a_state_folder_without_room_pauses_reading_and_moves_no_offset() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 100);
    trial.host.start();
    trial.settle();
    // A folder in the place of the temporary file fails like a full disk, also for root.
    eventually("the obstacle stands", || {
        fs::create_dir(trial.host.state().join("checkpoint.tmp")).is_ok()
    });
    trial.append("a.log", 100);
    eventually("the agent says so", || trial.host.stderr().contains("cannot write checkpoint"));
    eventually("reading is paused", || {
        trial.host.status().is_some_and(|s| s.files.iter().any(|file| file.state == "paused"))
    });
    let settled = trial.core.lines("raw").len();
    trial.append("a.log", 100);
    eventually("what is written meanwhile is seen and not read", || {
        trial.host.status().is_some_and(|status| status.totals.unread_bytes > 0)
    });
    assert_eq!(trial.core.lines("raw").len(), settled);
    fs::remove_dir(trial.host.state().join("checkpoint.tmp")).unwrap();
    trial.settle();
}

#[test]
fn h24_limits_that_are_changed_while_data_waits() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 5000);
    trial.core.state().withhold = true;
    trial.host.start();
    eventually("something is on its way", || !trial.core.lines("raw").is_empty());
    for (round, ship) in [
        "window = \"1MiB\"\nblock_size = \"64KiB\"",
        "block_size = \"1MiB\"\ncodec = \"none\"",
        "hold_unlinked = \"1MiB\"\nrate = \"50MiB\"",
    ]
    .into_iter()
    .enumerate()
    {
        trial.append("a.log", 1000);
        trial.host.configure(&trial.core, "*.log", "", ship);
        trial.host.reload();
        eventually("the configuration is taken over", || {
            trial.host.stderr().matches("configuration read again").count() == round + 1
        });
    }
    trial.core.state().withhold = false;
    trial.core.nudge();
    trial.settle();
    assert_eq!(trial.core.lines("raw"), trial.oracle.written);
}

#[test]
fn h25_a_stop_and_a_start_while_the_core_is_away() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 1000);
    trial.core.state().withhold = true;
    trial.host.start();
    eventually("something is on its way", || !trial.core.lines("raw").is_empty());
    away(&trial, true);
    eventually("the agent knows", || trial.host.status().is_some_and(|status| !status.connected));
    assert_eq!(trial.host.terminate(), Some(0));
    trial.append("a.log", 1000);
    trial.host.start();
    eventually("the agent runs", || trial.host.status().is_some());
    trial.core.state().withhold = false;
    away(&trial, false);
    trial.settle();
}

fn age(path: &Path) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

#[test]
fn h31_a_known_file_beyond_ignore_older_is_not_read_again_after_a_restart() {
    let mut trial = Trial::new("*.log", "ignore_older = \"1h\"");
    trial.append("a.log", 100);
    trial.host.start();
    trial.settle();
    age(&trial.host.log("a.log"));
    for _ in 0..2 {
        trial.host.terminate();
        trial.host.start();
        trial.settle();
    }
    assert_eq!(trial.host.status().unwrap().totals.bytes_read, 0);
    assert_eq!(trial.core.state().origins.len(), 1);
}

#[test]
fn h32_one_line_after_a_long_idle_is_all_that_is_read() {
    let mut trial = Trial::new("*.log", "ignore_older = \"1h\"");
    trial.append("a.log", 100);
    trial.host.start();
    trial.settle();
    trial.host.terminate();
    age(&trial.host.log("a.log"));
    trial.host.start();
    trial.settle();
    let before = fs::metadata(trial.host.log("a.log")).unwrap().len();
    trial.append("a.log", 1);
    trial.settle();
    let after = fs::metadata(trial.host.log("a.log")).unwrap().len();
    assert_eq!(trial.host.status().unwrap().totals.bytes_read, after - before);
}

#[test]
fn h40_a_certificate_that_is_replaced_under_load() {
    let mut trial = Trial::new("*.log", "");
    trial.host.start();
    for _ in 0..3 {
        trial.append("a.log", 2000);
        let sessions = trial.core.state().sessions;
        trial.core.pki.issue_agent(&trial.host.state().join("identity"), true);
        trial.core.cut_connections();
        eventually("it connects again", || trial.core.state().sessions > sessions);
    }
    trial.settle();
}

#[test]
fn h42_a_second_agent_on_one_state_folder_is_refused() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 10);
    trial.host.start();
    trial.settle();
    let output = agent::run(&["run", "--config", trial.host.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another agent"));
    trial.append("a.log", 10);
    trial.settle();
}
