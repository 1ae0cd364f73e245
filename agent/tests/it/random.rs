//! Random histories of files and agents: whatever was readable arrives once.
//!
//! Steps that destroy content (truncate, rewrite, unlink) wait until it was shipped, since what is destroyed unread is a
//! gap and not a delivery; everything else happens at any moment.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use garam_agent::checkpoint::{self, Entry, Loaded};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// Half a line now, its end with the next step of this kind or at the end.
    Half,
    Rotate,
    /// The newest rotated file becomes a compressed one; so many lines are written to it before, while no agent runs.
    Compress(usize),
    CopyTruncate,
    Rewrite(usize),
    Unlink,
    Cut,
    Kill,
    Restart,
    LoseState,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..400).prop_map(Step::Append),
        2 => Just(Step::Half),
        3 => Just(Step::Rotate),
        2 => prop_oneof![Just(0usize), 1usize..200].prop_map(Step::Compress),
        1 => Just(Step::CopyTruncate),
        1 => (1usize..300).prop_map(Step::Rewrite),
        1 => Just(Step::Unlink),
        2 => Just(Step::Cut),
        2 => Just(Step::Kill),
        2 => Just(Step::Restart),
        1 => Just(Step::LoseState),
        1 => Just(Step::Settle),
    ]
}

#[test]
fn random_histories_deliver_every_line_once() {
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    runner
        .run(&proptest::collection::vec(step(), 5..30), |steps| {
            play(&steps);
            Ok(())
        })
        .unwrap();
}

struct Play {
    core: Core,
    host: Host,
    oracle: Oracle,
    half: Option<String>,
    rotated: usize,
    running: bool,
    /// Of small copies too little was shipped to find them again without the agent's state: that would be a new generation.
    compressed: bool,
}

fn play(steps: &[Step]) {
    let core = Core::start();
    let host = Host::new(&core, "app.log*", "exclude = [\"*.copy\"]");
    let mut play = Play {
        core,
        host,
        oracle: Oracle::default(),
        half: None,
        rotated: 0,
        running: false,
        compressed: false,
    };
    for step in steps {
        play.step(step);
    }
    play.finish_half();
    play.start();
    play.oracle.settle(&play.core);
    // All files are one lineage: its order is promised too.
    assert_eq!(play.core.lines("raw"), play.oracle.written, "{steps:?}");
}

impl Play {
    fn step(&mut self, step: &Step) {
        let path = self.host.log("app.log");
        match step {
            Step::Append(lines) => {
                self.finish_half();
                self.oracle.append(&path, *lines);
            }
            Step::Half => match self.half.take() {
                Some(rest) => self.write(&rest),
                None => {
                    let line = self.oracle.line();
                    let (now, later) = line.split_at(line.len() / 2);
                    self.write(now);
                    self.half = Some(format!("{later}\n"));
                }
            },
            Step::Rotate => {
                self.finish_half();
                self.rotated += 1;
                fs::rename(&path, self.host.log(&format!("app.log.{}", self.rotated))).ok();
                self.wait_for_the_clock();
            }
            Step::Compress(late) => {
                self.settle();
                self.compress(*late);
                // Written to the older file after the younger one was born: in order only when nobody writes on.
                self.settle();
            }
            Step::CopyTruncate => {
                self.settle();
                if fs::copy(&path, self.host.log("app.log.copy")).is_ok() {
                    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
                }
            }
            Step::Rewrite(lines) => {
                self.settle();
                let mut file = fs::File::create(&path).unwrap();
                self.oracle.write(&mut file, *lines);
            }
            Step::Unlink => {
                self.settle();
                fs::remove_file(&path).ok();
            }
            Step::Cut => self.core.cut_connections(),
            Step::Kill => {
                self.host.kill();
                self.running = false;
            }
            Step::Restart => self.start(),
            Step::LoseState => {
                self.host.kill();
                self.running = false;
                if !self.compressed {
                    self.host.lose_state();
                }
            }
            Step::Settle => self.settle(),
        }
    }

    fn compress(&mut self, late: usize) {
        let rotated = self.host.log(&format!("app.log.{}", self.rotated));
        let Some(found) = fs::metadata(&rotated).ok().filter(|found| found.len() > 0) else {
            return;
        };
        let remembers = |entry: &Entry| {
            entry.descriptor.inode == found.ino() && entry.mark == u128::from(found.len())
        };
        eventually(
            "the checkpoint knows the file",
            || matches!(checkpoint::load(&self.host.state()), Ok(Loaded::Entries(entries)) if entries.iter().any(remembers)),
        );
        if late > 0 {
            self.host.kill();
            self.running = false;
            self.oracle.append(&rotated, late);
        }
        crate::scenarios::compress(&rotated, ["gz", "zst"][self.rotated % 2]);
        self.compressed = true;
    }

    fn settle(&mut self) {
        self.finish_half();
        self.start();
        self.oracle.settle(&self.core);
    }

    fn start(&mut self) {
        if !self.running {
            self.host.start();
            self.running = true;
        }
    }

    /// Birth times tell which file of a lineage is older, and the file system's clock ticks every few milliseconds only.
    fn wait_for_the_clock(&self) {
        let probe = self.host.folder.path().join("probe");
        let born = || {
            fs::remove_file(&probe).ok();
            fs::File::create(&probe).unwrap().metadata().unwrap().created().unwrap()
        };
        let before = born();
        eventually("the clock ticks", || born() > before);
    }

    fn finish_half(&mut self) {
        if let Some(rest) = self.half.take() {
            self.write(&rest);
        }
    }

    fn write(&mut self, text: &str) {
        let path = self.host.log("app.log");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}
