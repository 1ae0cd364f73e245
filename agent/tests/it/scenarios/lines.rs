//! Lines without end, lines beyond the limit, holes that are filled later.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::Trial;
use crate::core::eventually;

#[test]
fn h12_a_partial_line_survives_a_kill_and_is_shipped_once() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 3);
    let path = trial.host.log("a.log");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"partial-").unwrap();
    trial.host.start();
    trial.oracle.settle(&trial.core);
    trial.balance(8);
    trial.host.kill();
    file.write_all(b"rest\n").unwrap();
    trial.oracle.written.push("partial-rest".into());
    trial.host.start();
    trial.settle();
}

#[test]
fn h15_a_tiny_file_is_shipped_although_nothing_follows() {
    let trial = Trial::new("*.log", "");
    let mut host = trial.host;
    fs::write(host.log("before.log"), "tiny\n").unwrap();
    host.start();
    eventually("the first arrives", || trial.core.lines("raw") == ["tiny"]);
    fs::write(host.log("after.log"), "tine\n").unwrap();
    eventually("the second arrives", || trial.core.lines("raw") == ["tiny", "tine"]);
    trial.core.verify();
}

#[test]
fn h16_a_line_of_three_megabytes_leaves_its_neighbours_alone() {
    let mut trial = Trial::new("*.log", "");
    trial.append("a.log", 10);
    let path = trial.host.log("a.log");
    let long: String = {
        let mut random = fastrand::Rng::with_seed(16);
        (0..3 << 20).map(|_| random.alphanumeric()).collect()
    };
    writeln!(OpenOptions::new().append(true).open(&path).unwrap(), "{long}").unwrap();
    trial.append("a.log", 10);
    trial.host.start();
    eventually("the last line arrives", || {
        trial.core.lines("raw").last() == trial.oracle.written.last()
    });
    let pieces = trial.core.pieces("raw");
    let text = |partial: bool| -> Vec<String> {
        let those = pieces.iter().filter(|piece| piece.partial == partial);
        those.map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
    };
    assert_eq!(text(false), trial.oracle.written, "the neighbours are whole and marked so");
    assert!(text(true).concat() == long, "the pieces of the long line are the line");
    trial.core.verify();
    trial.balance(0);
}

#[test]
fn h29_a_partial_line_that_is_ended_in_time_is_one_record() {
    let mut trial = Trial::new("*.log", "flush_partial = \"5s\"");
    let path = trial.host.log("a.log");
    trial.host.start();
    for round in 0..3 {
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(format!("begun {round}, ").as_bytes()).unwrap();
        eventually("it is seen and held", || {
            trial.host.status().is_some_and(|status| status.totals.unread_bytes > 0)
        });
        file.write_all(b"ended\n").unwrap();
        trial.oracle.written.push(format!("begun {round}, ended"));
        trial.settle();
    }
    assert!(trial.core.pieces("raw").iter().all(|piece| !piece.partial));
}

#[test]
fn h44_a_hole_at_the_end_that_is_filled_later_is_not_shipped_as_a_hole() {
    for extra in ["", "skip_nul = true"] {
        let mut trial = Trial::new("*.log", extra);
        trial.append("a.log", 100);
        let path = trial.host.log("a.log");
        trial.host.start();
        trial.settle();
        // What a network file system shows of bytes that are on their way: the new length, and NUL.
        let elsewhere = trial.host.folder.path().join("elsewhere");
        trial.oracle.append(&elsewhere, 60);
        let late = fs::read(&elsewhere).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let end = file.metadata().unwrap().len();
        file.set_len(end + late.len() as u64).unwrap();
        trial.balance(late.len() as u64);
        file.write_all_at(&late, end).unwrap();
        trial.settle();
    }
}
