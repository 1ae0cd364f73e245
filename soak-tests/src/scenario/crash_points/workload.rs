//! The small fixed workload: what is written in which step, from the seed alone.
//!
//! In: a seed. Out: steps, each some bytes for one of two files, perhaps a rotation before them, and what the book says of
//! the records that are complete with it. In it: good and broken records, a line torn in two, a rotation, and enough bytes
//! that the log begins a second segment and removes the first.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use fastrand::Rng;

use crate::book::{Book, Chapter, Id};
use crate::generate::record::{Flaw, Members};

/// How many steps there are.
pub(super) const STEPS: usize = 12;
const TORN: usize = 2;
const ROTATED: usize = 8;
const BIG: usize = 6;
/// Together more than the smallest segment.
const BIG_RECORDS: usize = 5;
const BIG_PADDING: usize = 230_000;

pub(super) struct Workload {
    rng: Rng,
    step: usize,
    book: Book,
    /// The second half of a line.
    rest: Option<Vec<u8>>,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        let book = Book { chapters: vec![Chapter::default(), Chapter::default()] };
        Self { rng: Rng::with_seed(seed), step: 0, book, rest: None }
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Writes the next step into the folder. Gives how many records are complete now; none when there is no further step.
    pub(super) fn next(&mut self, folder: &Path) -> anyhow::Result<Option<u64>> {
        if self.step == STEPS {
            return Ok(None);
        }
        let step = self.step;
        self.step += 1;
        let writer = step % 2;
        let path = folder.join(format!("w{writer}.log"));
        if step == ROTATED {
            fs::rename(&path, folder.join(format!("w{writer}.log.1")))?;
        }
        let mut bytes = Vec::new();
        if writer == 0 {
            bytes.extend(self.rest.take().unwrap_or_default());
        }
        let records = if step == BIG { BIG_RECORDS } else { self.rng.usize(1..5) };
        for _ in 0..records {
            self.record(writer, step % 4 == 1, &mut bytes)?;
            if step == BIG {
                // Blanks are bytes for the log and nothing for the destination, whose pages would be hundreds of calls.
                bytes.pop();
                bytes.resize(bytes.len() + BIG_PADDING, b' ');
                bytes.push(b'\n');
            }
        }
        let mut file = File::options().create(true).append(true).open(path)?;
        if step == TORN {
            // The last line is complete only with the writer's next step.
            let cut = bytes.len() - 9;
            self.rest = Some(bytes.split_off(cut));
        }
        file.write_all(&bytes)?;
        let torn = u64::from(self.rest.is_some());
        Ok(Some(self.book.len() - torn))
    }

    fn record(&mut self, writer: usize, flawed: bool, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
        let Some(chapter) = self.book.chapters.get_mut(writer) else { return Ok(()) };
        let seq = chapter.pages().count() as u64 + 1;
        let payload: String = (0..20).map(|_| self.rng.alphanumeric()).collect();
        let id = Id { writer: u32::try_from(writer)?, seq };
        let flaw = if flawed && seq.is_multiple_of(2) { self.rng.choice(Flaw::ALL) } else { None };
        let (line, page) = Members { id, weight: self.rng.i32(..), payload: &payload }.line(flaw);
        chapter.note(seq, page);
        bytes.extend(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_writes_the_same_files() {
        let write = |seed| {
            let folder = tempfile::tempdir().unwrap();
            let mut workload = Workload::new(seed);
            while workload.next(folder.path()).unwrap().is_some() {}
            let read = |name| fs::read(folder.path().join(name)).unwrap();
            (read("w0.log"), read("w0.log.1"), read("w1.log"), workload.book.len())
        };
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
        let (newer, older, other, records) = write(1);
        let files = [newer, older, other];
        assert!(files.iter().all(|file| file.ends_with(b"\n")), "the torn line is completed");
        let lines = files.concat().iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines as u64, records);
    }
}
