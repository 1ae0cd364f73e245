//! The systemd journal through the real agent: real journal files, written and read by systemd's own programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use garam_agent::source::spool::SpoolStatus;

use crate::agent::{self, Host};
use crate::core::{Core, eventually};

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../soak-tests/testbed/journal");

/// An agent that follows the journal in a folder, and everything that was written into it.
struct Journal {
    core: Core,
    host: Host,
    next: u64,
    written: Vec<String>,
}

impl Journal {
    fn new(extra: &str) -> Self {
        let core = Core::start();
        let host = Host::new(&core, "*.log", "");
        let journal = Self { core, host, next: 0, written: Vec::new() };
        fs::create_dir(journal.folder()).unwrap();
        journal.install();
        journal.configure(extra);
        journal
    }

    fn configure(&self, extra: &str) {
        let table = format!(
            "[[journal]]\nname = \"host\"\nstream = \"raw\"\nsync = \"10ms\"\ndirectory = {:?}\njournalctl = {:?}\n{extra}\n",
            self.folder(),
            self.program(),
        );
        self.host.configure(&self.core, "*.log", &table, "");
    }

    /// Puts a journalctl there that tells its process id.
    fn install(&self) {
        let text = format!(
            "#!/bin/sh\necho $$ >> {:?}\nexec {TESTBED:?} journalctl \"$@\"\n",
            self.host.folder.path().join("pids")
        );
        fs::write(self.program(), text).unwrap();
        fs::set_permissions(self.program(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn program(&self) -> PathBuf {
        self.host.folder.path().join("journalctl")
    }

    fn folder(&self) -> PathBuf {
        self.host.folder.path().join("journal")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Appends numbered entries to a journal file; a machine that cannot have one fails the test.
    fn write(&mut self, name: &str, entries: u64) {
        self.write_with(name, entries, "PRIORITY=6\n_SYSTEMD_UNIT=a.service\n");
    }

    fn write_with(&mut self, name: &str, entries: u64, fields: &str) {
        let mut text = String::new();
        for _ in 0..entries {
            self.next += 1;
            let (number, message) = (self.next, format!("entry {:06}", self.next));
            text.push_str(&format!(
                "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=0123456789abcdef0123456789abcdef\nMESSAGE={message}\n{fields}\n",
                1_700_000_000_000_000 + number
            ));
            self.written.push(message);
        }
        append(&self.file(name), text.as_bytes());
    }

    fn arrived(&self) -> Vec<serde_json::Value> {
        let lines = self.core.lines("raw");
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until everything written arrived, then checks that nothing did twice.
    fn settle(&self) {
        let expect: BTreeMap<String, u64> =
            self.written.iter().map(|message| (message.clone(), 1)).collect();
        eventually("every entry arrives", || self.core.lines("raw").len() >= expect.len());
        let mut found = BTreeMap::new();
        for entry in self.arrived() {
            *found.entry(entry["MESSAGE"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(found, expect);
        self.core.verify();
    }

    fn until(&self, what: &str, is_so: impl Fn(&SpoolStatus) -> bool) -> SpoolStatus {
        let mut found = None;
        eventually(what, || {
            found = self.host.status().and_then(|status| status.spools.into_iter().next());
            found.as_ref().is_some_and(&is_so)
        });
        found.unwrap()
    }
}

fn append(file: &Path, export: &[u8]) {
    let mut child = Command::new(TESTBED)
        .args(["write".as_ref(), file.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(export).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn entries_arrive_once_over_kills_rotation_and_stops() {
    let mut journal = Journal::new("");
    journal.write("a.journal", 200);
    for round in 0..4 {
        journal.host.start();
        journal.core.state().withhold = round % 2 == 1;
        journal.write("a.journal", 50);
        journal.write(&format!("b{round}.journal"), 50);
        // Some rounds are killed wherever they are, some when all is spooled.
        if round % 2 == 0 {
            journal.settle();
        }
        journal.host.kill();
        journal.core.state().withhold = false;
        journal.write("a.journal", 20);
    }
    for _ in 0..2 {
        journal.host.start();
        journal.until("it answers", |_| true);
        journal.settle();
        assert_eq!(journal.host.terminate(), Some(0));
    }
    journal.host.start();
    let spool = journal.host.state().join("spool/host");
    eventually("only the note of the last cursor stays", || {
        fs::read_dir(&spool).unwrap().all(|entry| entry.unwrap().file_name() == "note")
    });
    journal.host.kill();
    journal.write("a.journal", 10);
    journal.host.start();
    journal.settle();
    assert_eq!(journal.until("it answers", |_| true).journal_gaps, 0);
}

#[test]
fn a_vacuumed_cursor_is_a_counted_gap_and_reading_goes_on() {
    let mut journal = Journal::new("");
    journal.write("a.journal", 30);
    journal.host.start();
    journal.settle();
    assert_eq!(journal.host.terminate(), Some(0));
    journal.write("a.journal", 5);
    fs::remove_file(journal.file("a.journal")).unwrap();
    journal.written.truncate(30);
    journal.write("b.journal", 40);
    journal.host.start();
    journal.settle();
    assert_eq!(journal.until("it is counted", |_| true).journal_gaps, 1);
    assert!(journal.host.stderr().contains("the journal has dropped the entry"));
}

#[test]
fn a_journalctl_that_is_missing_or_dies_is_started_again() {
    let mut journal = Journal::new("");
    fs::remove_file(journal.program()).unwrap();
    journal.write("a.journal", 10);
    journal.host.start();
    eventually("it says what is missing", || journal.host.stderr().contains("install systemd"));
    journal.install();
    journal.settle();
    for _ in 0..2 {
        let pids = fs::read_to_string(journal.host.folder.path().join("pids")).unwrap();
        let last: i32 = pids.lines().last().unwrap().parse().unwrap();
        let last = rustix::process::Pid::from_raw(last).unwrap();
        rustix::process::kill_process(last, rustix::process::Signal::KILL).unwrap();
        journal.write("a.journal", 10);
        journal.settle();
    }
    assert!(journal.host.stderr().contains("journalctl ended"));
    assert_eq!(journal.until("it answers", |_| true).journal_gaps, 0);
}

#[test]
fn filters_choose_and_a_large_or_binary_field_is_kept_within_bounds() {
    let mut journal =
        Journal::new("units = [\"a.service\"]\npriority = \"err\"\nmax_field = \"1KiB\"");
    journal.write_with("a.journal", 5, "PRIORITY=3\n_SYSTEMD_UNIT=a.service\nTAG=1\nTAG=2\n");
    let wanted = journal.written.clone();
    journal.write_with("a.journal", 5, "PRIORITY=6\n_SYSTEMD_UNIT=a.service\n");
    journal.write_with("a.journal", 5, "PRIORITY=3\n_SYSTEMD_UNIT=b.service\n");
    journal.written = wanted;
    let mut fields = format!("PRIORITY=2\n_SYSTEMD_UNIT=a.service\nLARGE={}\n", "x".repeat(70_000));
    fields.push_str("LINES\n\x05\0\0\0\0\0\0\0a\nb\0c\n");
    journal.write_with("a.journal", 1, &fields);
    journal.host.start();
    journal.settle();
    let arrived = journal.arrived();
    assert_eq!(arrived[0]["TAG"], serde_json::json!(["1", "2"]));
    assert_eq!(arrived[0]["_SYSTEMD_UNIT"], "a.service");
    let last = &arrived[5];
    assert_eq!(last["LARGE"].as_str().map(str::len), Some(1024));
    assert_eq!(last["LINES"], "a\nb\0c");
    assert_eq!(journal.until("it is counted", |_| true).cut, 1);
}

#[test]
fn the_end_stays_where_it_was_when_the_agent_first_saw_it() {
    let mut journal = Journal::new("start_at = \"end\"");
    journal.write("a.journal", 20);
    journal.written.clear();
    journal.host.start();
    let note = journal.host.state().join("spool/host/note");
    eventually("the end is remembered", || note.try_exists().unwrap());
    journal.host.kill();
    journal.write("a.journal", 20);
    journal.host.start();
    journal.settle();
}

#[test]
fn a_table_that_cannot_be_used_names_its_key_and_check_finds_the_program() {
    let journal = Journal::new("");
    let check = || {
        let output = agent::run(&["check", "--config", journal.host.config().to_str().unwrap()]);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = check();
    assert!(text.contains("journal        host to stream raw"), "{text}");
    assert!(text.contains("journalctl, systemd 252"), "{text}");
    fs::remove_file(journal.program()).unwrap();
    assert!(check().contains("missing"));
    for (extra, key) in [
        ("directory = \"relative\"", "directory"),
        ("files = [\"relative\"]", "files"),
        ("directory = \"/a\"\nfiles = [\"/b\"]", "directory"),
        ("matches = [\"--rotate\"]", "matches"),
        ("max_field = \"1B\"", "max_field"),
        ("sync = \"1h\"", "sync"),
    ] {
        let text = format!(
            "core = [\"core-1:7470\"]\n[[journal]]\nname = \"a\"\nstream = \"raw\"\n{extra}\n"
        );
        let error = garam_agent::config::Config::parse("agent.toml".as_ref(), &text).unwrap_err();
        assert!(error.to_string().contains(&format!("key journal.a.{key}:")), "{extra}: {error}");
    }
}
