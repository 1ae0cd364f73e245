//! Files that are renamed, kept open by their writers, unlinked, while the agent runs, is down, or may not send.

use std::fs;

use super::Trial;

#[test]
fn h8_a_rename_while_the_agent_was_down() {
    for lose in [false, true] {
        let mut trial = Trial::new("a.log*", "");
        trial.append("a.log", 200);
        trial.host.start();
        trial.settle();
        trial.host.terminate();
        trial.append("a.log", 50);
        fs::rename(trial.host.log("a.log"), trial.host.log("a.log.1")).unwrap();
        trial.append("a.log", 50);
        if lose {
            trial.host.lose_state();
        }
        trial.host.start();
        trial.settle();
        assert_eq!(trial.core.lines("raw"), trial.oracle.written, "in order, state lost: {lose}");
        assert_eq!(trial.core.state().origins.len(), 2);
    }
}

#[test]
fn h9_a_writer_that_keeps_the_old_file_long_after_it_left_the_globs() {
    let mut trial = Trial::new("a.log", "");
    trial.append("a.log", 50);
    trial.host.start();
    trial.settle();
    let mut late = fs::OpenOptions::new().append(true).open(trial.host.log("a.log")).unwrap();
    fs::rename(trial.host.log("a.log"), trial.host.log("rotated")).unwrap();
    for _ in 0..3 {
        trial.append("a.log", 20);
        trial.settle();
        trial.oracle.write(&mut late, 50);
        trial.settle();
    }
    assert_eq!(trial.core.state().origins.len(), 2);
}

#[test]
fn h10_rotations_while_the_core_takes_nothing() {
    let mut trial = Trial::new("a.log*", "");
    trial.append("a.log", 100);
    trial.host.start();
    trial.settle();
    trial.hold(true);
    for number in 1..=3 {
        trial.append("a.log", 100);
        let rotated = trial.host.log(&format!("a.log.{number}"));
        fs::rename(trial.host.log("a.log"), rotated).unwrap();
        trial.append("a.log", 100);
        trial.files(number + 1);
    }
    trial.hold(false);
    trial.settle();
    assert_eq!(trial.core.lines("raw"), trial.oracle.written, "in order over all rotations");
}

#[test]
fn h11_a_rotated_file_is_unlinked_while_the_core_takes_nothing() {
    let mut trial = Trial::new("a.log*", "");
    trial.append("a.log", 100);
    trial.host.start();
    trial.settle();
    trial.hold(true);
    trial.append("a.log", 1000);
    fs::rename(trial.host.log("a.log"), trial.host.log("a.log.1")).unwrap();
    trial.append("a.log", 100);
    trial.files(2);
    fs::remove_file(trial.host.log("a.log.1")).unwrap();
    trial.append("a.log", 100);
    trial.hold(false);
    trial.settle();
    assert_eq!(trial.core.lines("raw"), trial.oracle.written);
}
