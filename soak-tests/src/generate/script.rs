//! What a writer does next: bursts of records, torn lines, rotations. Pure; follows from seed and writer alone.
//!
//! | writer | renames | a file holds |
//! |---|---|---|
//! | 0 | `.1`, `.2`, `.3` … counting up | about 1 500 records |
//! | 1 | the newest is `.1`, older ones move up | about 1 500 records |
//! | 2 | counting up | 1 to 400 records: many are tiny |
//! | 3 | counting up, and each file begins with the same 1.5 KiB line | about 600 records |

use fastrand::Rng;

use super::record::{Flaw, Members};
use crate::book::{HEAD, Id, Page};

/// One record in a hundred breaks the contract.
const FLAWED: f64 = 0.01;
/// Long enough to fill the part of a file by which it is recognised.
const HEAD_LENGTH: usize = 1_500;

/// How older files are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Ascending,
    Shifting,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Write(Burst),
    Rotate,
}

/// Whole lines, written at once or in two pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Burst {
    pub(super) bytes: Vec<u8>,
    pub(super) pages: Vec<(u64, Page)>,
    /// Where the first piece ends; most often in the middle of a line.
    pub(super) tear: Option<usize>,
}

/// A writer's habits and how far it is.
#[derive(Debug)]
pub(super) struct Script {
    writer: u32,
    rng: Rng,
    stretch: u64,
    next_seq: u64,
    /// Records until the next rotation.
    left: u64,
    fresh: bool,
}

impl Script {
    /// `stretch` makes files that many times longer.
    pub(super) fn new(seed: u64, writer: u32, stretch: u64) -> Self {
        let rng =
            Rng::with_seed(seed ^ (u64::from(writer) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut script = Self { writer, rng, stretch, next_seq: 1, left: 0, fresh: true };
        script.left = script.file_length();
        script
    }

    pub(super) fn naming(&self) -> Naming {
        if self.writer == 1 { Naming::Shifting } else { Naming::Ascending }
    }

    pub(super) fn next_step(&mut self) -> Step {
        if self.left == 0 {
            self.left = self.file_length();
            self.fresh = true;
            return Step::Rotate;
        }
        let mut burst = Burst { bytes: Vec::new(), pages: Vec::new(), tear: None };
        if self.fresh && self.has_head() {
            self.head(&mut burst);
        }
        self.fresh = false;
        let records = self.rng.u64(1..=24).min(self.left);
        for _ in 0..records {
            self.record(&mut burst);
        }
        self.left -= records;
        if self.rng.f64() < 0.5 {
            burst.tear = Some(self.rng.usize(1..burst.bytes.len()));
        }
        Step::Write(burst)
    }

    fn has_head(&self) -> bool {
        self.writer == 3
    }

    fn file_length(&mut self) -> u64 {
        let records = match self.writer {
            2 => self.rng.u64(1..=400),
            3 => self.rng.u64(300..=900),
            _ => self.rng.u64(1_000..=2_000),
        };
        records * self.stretch
    }

    /// The same bytes at the start of every file of this writer.
    fn head(&self, burst: &mut Burst) {
        let payload = "=".repeat(HEAD_LENGTH);
        let id = Id { writer: self.writer, seq: HEAD };
        let (line, page) = Members { id, weight: 0, payload: &payload }.line(None);
        burst.bytes.extend(line);
        burst.pages.push((HEAD, page));
    }

    fn record(&mut self, burst: &mut Burst) {
        let flaw = if self.rng.f64() < FLAWED { self.rng.choice(Flaw::ALL) } else { None };
        let payload = self.payload();
        let id = Id { writer: self.writer, seq: self.next_seq };
        let (line, page) = Members { id, weight: self.rng.i32(..), payload: &payload }.line(flaw);
        burst.bytes.extend(line);
        burst.pages.push((self.next_seq, page));
        self.next_seq += 1;
    }

    /// Mostly short, at times some kilobytes, seldom a hundred; with everything that needs escaping.
    fn payload(&mut self) -> String {
        const PIECES: [&str; 8] = ["river", " ", "가람", "\"", "\\", "\t", "0123456789", "🌊"];
        let pieces = match self.rng.u32(..2_000) {
            0 => self.rng.usize(8_000..20_000),
            1..40 => self.rng.usize(200..1_000),
            _ => self.rng.usize(0..40),
        };
        (0..pieces).map(|_| PIECES[self.rng.usize(..PIECES.len())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, writer: u32) -> Vec<Step> {
        let mut script = Script::new(seed, writer, 1);
        (0..2_000).map(|_| script.next_step()).collect()
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes_and_another_seed_others() {
        for writer in 0..4 {
            assert_eq!(steps(7, writer), steps(7, writer));
            assert_ne!(steps(7, writer), steps(8, writer));
        }
        assert_ne!(steps(7, 0), steps(7, 1));
    }

    #[test]
    fn every_writer_rotates_tears_lines_and_breaks_some_records() {
        for writer in 0..4 {
            let steps = steps(7, writer);
            let rotations = steps.iter().filter(|step| **step == Step::Rotate).count();
            let bursts: Vec<&Burst> = steps
                .iter()
                .filter_map(|step| match step {
                    Step::Write(burst) => Some(burst),
                    Step::Rotate => None,
                })
                .collect();
            let records: usize = bursts.iter().map(|burst| burst.pages.len()).sum();
            let flawed =
                bursts.iter().flat_map(|b| &b.pages).filter(|(_, page)| page.flawed).count();
            let inside =
                |burst: &&&Burst| burst.tear.is_some_and(|at| burst.bytes[at - 1] != b'\n');
            assert!(rotations > 5, "writer {writer} rotates {rotations} times");
            assert!(bursts.iter().filter(inside).count() > 500, "writer {writer} tears lines");
            assert!(flawed * 200 > records && flawed * 50 < records, "{flawed} of {records}");
            assert!(bursts.iter().all(|burst| burst.bytes.ends_with(b"\n")));
        }
    }
}
