//! Writes numbered records into real, rotating files, and keeps the book.
//!
//! In: a folder, a seed, a rate. Out: files `w0.log`, `w0.log.1` …, and a [`Book`] of what is in them.
//! Promise: a record is in the book when its last byte, the newline, is written; what a writer does follows from the seed
//! alone, only where it stops depends on the clock. Files are renamed, never deleted or cut, so nothing that was written can
//! be missed by right. In [`record`] one line, in [`script`] what a writer does next, here the hands that do it.

pub(crate) mod record;
mod script;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::book::{Book, Chapter};
use script::{Burst, Naming, Script, Step};

/// One of each habit.
pub(crate) const WRITERS: u32 = 4;
/// Times the usual length of a file: more than any run writes.
const ENDLESS: u64 = 1_000_000_000;
/// How long a torn line stays torn.
const TORN: Duration = Duration::from_millis(7);

/// Figures that may be read while writing goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) records: AtomicU64,
    pub(crate) rotations: AtomicU64,
    stop: AtomicBool,
}

/// Writers at work.
pub(crate) struct Generator {
    tally: Arc<Tally>,
    writers: Vec<JoinHandle<anyhow::Result<Chapter>>>,
}

impl Generator {
    /// Starts all writers on `folder` with `rate` records a second in total. Files are rotated less often in longer runs, so
    /// that their number stays in the hundreds.
    pub(crate) fn start(folder: &Path, seed: u64, rate: u32, seconds: u64) -> Self {
        Self::start_stretched(folder, seed, rate, (seconds / 60).max(1))
    }

    /// One file for each writer, for ever: what lies at a byte of it never changes.
    pub(crate) fn start_without_rotations(folder: &Path, seed: u64, rate: u32) -> Self {
        Self::start_stretched(folder, seed, rate, ENDLESS)
    }

    fn start_stretched(folder: &Path, seed: u64, rate: u32, stretch: u64) -> Self {
        let tally = Arc::new(Tally::default());
        let per_writer = f64::from(rate) / f64::from(WRITERS);
        let writers = (0..WRITERS)
            .map(|writer| {
                let script = Script::new(seed, writer, stretch);
                let desk = Desk::new(folder, writer, script.naming());
                tokio::spawn(write(script, desk, per_writer, Arc::clone(&tally)))
            })
            .collect();
        Self { tally, writers }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The same, for somebody who looks on beside.
    pub(crate) fn shared_tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Whether a writer ended before it was told to.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.writers.iter().any(JoinHandle::is_finished), "a writer ended early");
        Ok(())
    }

    /// Stops all writers, each at the end of a line, and gives the book.
    pub(crate) async fn finish(self) -> anyhow::Result<Book> {
        self.tally.stop.store(true, Ordering::Relaxed);
        let mut book = Book::default();
        for writer in self.writers {
            book.chapters.push(writer.await.context("a writer panicked")??);
        }
        Ok(book)
    }
}

/// One writer, until it is told to stop. The pace is kept over the whole run, not from burst to burst.
async fn write(
    mut script: Script,
    mut desk: Desk,
    rate: f64,
    tally: Arc<Tally>,
) -> anyhow::Result<Chapter> {
    let mut chapter = Chapter::default();
    let began = Instant::now();
    let mut written: u64 = 0;
    desk.open()?;
    while !tally.stop.load(Ordering::Relaxed) {
        match script.next_step() {
            Step::Write(burst) => {
                desk.put(&burst).await?;
                for (seq, page) in &burst.pages {
                    chapter.note(*seq, *page);
                }
                written += burst.pages.len() as u64;
                tally.records.fetch_add(burst.pages.len() as u64, Ordering::Relaxed);
                let due = began + Duration::from_secs_f64(written as f64 / rate);
                tokio::time::sleep_until(due).await;
            }
            Step::Rotate => {
                desk.rotate()?;
                tally.rotations.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(chapter)
}

/// The file a writer writes to, and the names its older files get.
struct Desk {
    path: PathBuf,
    naming: Naming,
    file: Option<File>,
    older: u64,
}

impl Desk {
    fn new(folder: &Path, writer: u32, naming: Naming) -> Self {
        Self { path: folder.join(format!("w{writer}.log")), naming, file: None, older: 0 }
    }

    fn open(&mut self) -> anyhow::Result<()> {
        let file = File::options().append(true).create_new(true).open(&self.path);
        self.file = Some(file.with_context(|| format!("cannot create {}", self.path.display()))?);
        Ok(())
    }

    /// Writes a burst, in two pieces with a pause between where the script says so.
    async fn put(&mut self, burst: &Burst) -> anyhow::Result<()> {
        let (first, rest) = burst.bytes.split_at(burst.tear.unwrap_or(burst.bytes.len()));
        self.append(first)?;
        if !rest.is_empty() {
            tokio::time::sleep(TORN).await;
            self.append(rest)?;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let file = self.file.as_mut().context("the writer has no file")?;
        file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Renames the file away and begins a new one under the old name.
    fn rotate(&mut self) -> anyhow::Result<()> {
        self.file = None;
        self.older += 1;
        match self.naming {
            Naming::Ascending => fs::rename(&self.path, self.numbered(self.older)),
            Naming::Shifting => self.shift(),
        }
        .with_context(|| format!("cannot rotate {}", self.path.display()))?;
        self.open()
    }

    /// As logrotate does: the newest is always `.1`.
    fn shift(&self) -> io::Result<()> {
        for number in (1..self.older).rev() {
            fs::rename(self.numbered(number), self.numbered(number + 1))?;
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u64) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Id;

    /// The writers' files of a folder, oldest first, as one text per writer.
    fn lines(folder: &Path, writer: u32, naming: Naming) -> Vec<String> {
        let current = folder.join(format!("w{writer}.log"));
        let numbered = |n: u32| folder.join(format!("w{writer}.log.{n}"));
        let mut older: Vec<_> = (1..).map(numbered).take_while(|path| path.is_file()).collect();
        if naming == Naming::Shifting {
            older.reverse();
        }
        older.push(current);
        let text: String = older
            .iter()
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
            .collect();
        assert!(text.is_empty() || text.ends_with('\n'), "no torn line stays behind");
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn the_book_is_what_the_files_hold_over_all_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let generator = Generator::start(folder.path(), 3, 40_000, 1);
        let deadline = Instant::now() + Duration::from_secs(30);
        while generator.tally().rotations.load(Ordering::Relaxed) < 40 {
            assert!(Instant::now() < deadline, "the writers do not rotate");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let book = generator.finish().await.unwrap();
        let mut found = 0;
        for writer in 0..WRITERS {
            let mut expected = 1;
            for line in lines(folder.path(), writer, Script::new(3, writer, 1).naming()) {
                found += 1;
                let id = record::id_of(&line).expect("every line carries its id");
                assert_eq!(id.writer, writer);
                if id.seq == crate::book::HEAD {
                    continue;
                }
                assert_eq!(id.seq, expected, "in order over all files");
                expected += 1;
                let page = book.page(Id { writer, seq: id.seq }).expect("in the book");
                if page.flawed {
                    assert_eq!(page.digest, record::text_digest(&line));
                }
            }
        }
        assert_eq!(found, book.len());
    }
}
