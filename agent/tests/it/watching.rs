//! Folders under watch: what the kernel tells is used, and nothing stands on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;
use crate::scenarios::compressed::compress;

/// An agent that searches and polls so rarely that only what is told can explain what it ships.
fn told(include: &str) -> (Core, Host, Oracle) {
    searching("10m", include, "")
}

/// An agent that polls rarely and searches every `discover`, thirty times rarer while it takes all for watched.
fn searching(discover: &str, include: &str, tables: &str) -> (Core, Host, Oracle) {
    let core = Core::start();
    let host = Host::new(&core, include, "");
    let text = fs::read_to_string(host.config()).unwrap();
    let text = text.replace("poll = \"10ms\"", "poll = \"10s\"");
    let text = text.replace("discover = \"100ms\"", &format!("discover = \"{discover}\""));
    fs::write(host.config(), text + tables).unwrap();
    (core, host, Oracle::default())
}

/// Goes on with another file until those written so far are looked at rarely.
fn until_quiet(core: &Core, host: &Host, oracle: &mut Oracle) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        oracle.append(&host.log("busy.log"), 1);
        oracle.settle(core);
    }
}

#[test]
fn new_files_lines_and_folders_are_shipped_because_they_are_told() {
    let (core, mut host, mut oracle) = told("**/*.log");
    oracle.append(&host.log("a.log"), 1);
    host.start();
    oracle.settle(&core);
    oracle.append(&host.log("a.log"), 1);
    oracle.settle(&core);
    oracle.append(&host.log("b.log"), 1);
    oracle.settle(&core);
    fs::create_dir_all(host.log("x/y")).unwrap();
    oracle.append(&host.log("x/y/c.log"), 1);
    oracle.settle(&core);
    oracle.append(&host.log("x/y/c.log"), 1);
    oracle.settle(&core);
    // The folder moves with its file, and another takes its place.
    fs::rename(host.log("x"), host.log("z")).unwrap();
    oracle.append(&host.log("z/y/c.log"), 1);
    oracle.settle(&core);
    fs::create_dir_all(host.log("x/y")).unwrap();
    oracle.append(&host.log("x/y/c.log"), 1);
    oracle.settle(&core);
    fs::remove_dir_all(host.log("x")).unwrap();
    fs::create_dir_all(host.log("x/y")).unwrap();
    oracle.append(&host.log("x/y/c.log"), 1);
    oracle.settle(&core);
}

#[test]
fn a_new_file_does_not_wait_for_the_turn_of_an_idle_older_one() {
    let (core, mut host, mut oracle) = told("*.log*");
    oracle.append(&host.log("a.log.1"), 1);
    oracle.append(&host.log("a.log"), 1);
    host.start();
    oracle.settle(&core);
    until_quiet(&core, &host, &mut oracle);
    fs::rename(host.log("a.log"), host.log("a.log.2")).unwrap();
    oracle.append(&host.log("a.log"), 1);
    oracle.settle(&core);
}

#[test]
fn a_file_behind_a_link_is_told_of_where_it_lies() {
    let (core, mut host, mut oracle) = told("*.log");
    let elsewhere = host.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    oracle.append(&elsewhere.join("target"), 1);
    symlink(elsewhere.join("target"), host.log("a.log")).unwrap();
    host.start();
    oracle.settle(&core);
    oracle.append(&elsewhere.join("target"), 1);
    oracle.settle(&core);
}

#[test]
fn events_that_overflow_lose_nothing() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let (core, mut host, mut oracle) = told("*.log");
    oracle.append(&host.log("a.log"), 1);
    host.start();
    oracle.settle(&core);
    host.signal(Signal::STOP);
    for number in 0..=limit / 2 {
        let path = host.log(&format!("{number}.tmp"));
        fs::write(&path, "").unwrap();
        fs::remove_file(&path).unwrap();
    }
    oracle.append(&host.log("a.log"), 1);
    oracle.append(&host.log("b.log"), 1);
    host.signal(Signal::CONT);
    oracle.settle(&core);
}

#[test]
fn what_nobody_tells_is_found_by_a_search() {
    let core = Core::start();
    let mut host = Host::new(&core, "current/*.log", "");
    let mut oracle = Oracle::default();
    for version in ["v1", "v2"] {
        fs::create_dir(host.folder.path().join(version)).unwrap();
    }
    // The glob's fixed part leads through a link, whose own folder is not searched.
    let link = host.log("current");
    symlink(host.folder.path().join("v1"), &link).unwrap();
    oracle.append(&link.join("a.log"), 1);
    host.start();
    oracle.settle(&core);
    fs::remove_file(&link).unwrap();
    symlink(host.folder.path().join("v2"), &link).unwrap();
    oracle.append(&link.join("a.log"), 1);
    oracle.settle(&core);
    oracle.append(&link.join("a.log"), 1);
    oracle.settle(&core);
}

#[test]
fn a_file_with_two_names_may_be_written_under_either() {
    let (core, mut host, mut oracle) = searching("2s", "*.log", "");
    let other = host.folder.path().join("other");
    oracle.append(&other, 1);
    fs::hard_link(&other, host.log("a.log")).unwrap();
    host.start();
    oracle.settle(&core);
    until_quiet(&core, &host, &mut oracle);
    oracle.append(&other, 1);
    oracle.settle(&core);
}

#[test]
fn a_compressed_file_is_decided_about_without_further_events() {
    let (core, mut host, mut oracle) = searching("2s", "*.log*", "");
    host.start();
    oracle.append(&host.log("a.log"), 1);
    oracle.settle(&core);
    let plain = host.folder.path().join("plain");
    oracle.append(&plain, 20);
    compress(&plain, "gz");
    fs::rename(host.folder.path().join("plain.gz"), host.log("b.log.1.gz")).unwrap();
    oracle.settle(&core);
}

#[test]
fn what_a_spool_has_synced_is_shipped_though_nothing_is_written_then() {
    let socket = tempfile::tempdir().unwrap();
    let socket = socket.path().join("log");
    let table = format!(
        "[[syslog]]\nname = \"net\"\nstream = \"raw\"\nsync = \"4s\"\nlisten = [\"unix://{}\"]\n",
        socket.display()
    );
    let (core, mut host, mut oracle) = searching("10m", "*.log", &table);
    host.start();
    oracle.append(&host.log("a.log"), 1);
    oracle.settle(&core);
    UnixDatagram::unbound().unwrap().send_to(oracle.line().as_bytes(), &socket).unwrap();
    oracle.settle(&core);
}

#[test]
fn nobody_watches_when_that_is_not_wanted() {
    let core = Core::start();
    let mut host = Host::with_ship(&core, "*.log", "", "watch = false");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 1);
    host.start();
    oracle.settle(&core);
    oracle.append(&host.log("a.log"), 1);
    oracle.append(&host.log("b.log"), 1);
    oracle.settle(&core);
    eventually("the agent says what it reads", || {
        host.status().is_some_and(|status| status.files.len() == 2)
    });
}
