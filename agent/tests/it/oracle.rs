//! Numbered lines, and whether each arrived exactly once.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::core::{Core, eventually};

/// Writes lines that nobody else writes.
#[derive(Default)]
pub(crate) struct Oracle {
    next: u64,
    pub(crate) written: Vec<String>,
}

impl Oracle {
    pub(crate) fn line(&mut self) -> String {
        self.next += 1;
        let line = format!("line {:06} {}", self.next, "x".repeat((self.next % 97) as usize));
        self.written.push(line.clone());
        line
    }

    /// Appends this many lines to a file, which is created when it is not there.
    pub(crate) fn append(&mut self, path: &Path, lines: usize) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        self.write(&mut file, lines);
    }

    pub(crate) fn write(&mut self, file: &mut File, lines: usize) {
        let mut text = String::new();
        for _ in 0..lines {
            text.push_str(&self.line());
            text.push('\n');
        }
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until everything arrived, then checks that nothing arrived twice or was invented.
    pub(crate) fn settle(&self, core: &Core) {
        eventually("every line arrives", || core.lines("raw").len() >= self.written.len());
        self.check(core);
    }

    pub(crate) fn check(&self, core: &Core) {
        let mut counts: HashMap<String, i64> = HashMap::new();
        for line in core.lines("raw") {
            *counts.entry(line).or_default() += 1;
        }
        for line in &self.written {
            *counts.entry(line.clone()).or_default() -= 1;
        }
        counts.retain(|_, count| *count != 0);
        assert!(counts.is_empty(), "lost (-) or repeated (+): {counts:?}");
        core.verify();
    }
}
