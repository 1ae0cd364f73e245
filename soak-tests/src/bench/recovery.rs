//! `bench recovery`: what it costs to open a log that was not closed, by its size and by its unsealed tail.
//!
//! One log grows from size to size. At each size its newest segment is sealed and a tail of a given length is appended;
//! nothing tells the log that it ends, as in a crash. Then it is opened several times: before each, its pages are dropped
//! from memory, and a figure is the median. What is read and written is what this process asked the kernel for
//! (`/proc/self/io`): the tail is walked twice, first to find its end and then to copy it to a new segment, which is synced
//! before anybody is answered; the disk itself gives it once. Afterwards the tail is as long as before.
//! Not here: the other things a core does at its start.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use garam_log::{EmbeddedLog, LogConfig, StreamConfig};
use garam_proto::{PartitionId, StreamName};
use rustix::fs::Advice;
use serde::Serialize;
use tokio::task::JoinSet;

use super::place::Place;
use super::producer::Producer;
use super::{MIB, percentile, round};
use crate::cli::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sizes of the log in MiB, growing.
    #[arg(long, value_delimiter = ',', default_values_t = [1_024, 4_096, 10_240], value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    log_mib: Vec<u64>,
    /// Lengths of the unsealed tail in MiB, growing, below the size of a segment (64 MiB).
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 60], value_parser = clap::value_parser!(u64).range(1..=63))]
    tail_mib: Vec<u64>,
    /// How often each is opened.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    times: u32,
    /// Where to write; default: a folder in the system's temporary one. Needs the size of the largest log.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    cases: Vec<Case>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Case {
    log_mib: f64,
    segments: usize,
    unsealed_mib: f64,
    open_ms: f64,
    read_mib: f64,
    written_mib: f64,
}

/// One opening.
struct Opening {
    ms: f64,
    read: u64,
    written: u64,
}

const BLOCK: u32 = 1 << 20;
/// An agent's file each.
const PRODUCERS: u32 = 8;
const NO_QUOTA: u64 = 1 << 50;

pub(super) async fn run(args: Args) -> anyhow::Result<Figures> {
    let growing = |sizes: &[u64]| sizes.is_sorted_by(|a, b| a < b);
    anyhow::ensure!(growing(&args.log_mib) && growing(&args.tail_mib), "name growing sizes");
    let place = Place::make(args.dir.as_deref())?;
    let folder = place.folder()?;
    let subject = Subject { dir: folder.path().join("log"), stream: StreamName::new("bench")? };
    let mut cases = Vec::new();
    for &size in &args.log_mib {
        say(&format!("a log of {size} MiB"));
        let log = subject.open().await?;
        subject.grow(&log, size << 20).await?;
        subject.seal(&log).await?;
        log.shutdown().await;
        for &tail in &args.tail_mib {
            let log = subject.open().await?;
            subject.lengthen(&log, tail << 20).await?;
            log.shutdown().await;
            cases.push(subject.measure(args.times).await?);
        }
    }
    Ok(Figures { cases })
}

/// The log that grows.
struct Subject {
    dir: PathBuf,
    stream: StreamName,
}

impl Subject {
    async fn open(&self) -> anyhow::Result<Arc<EmbeddedLog>> {
        let mut config = LogConfig::new(&self.dir);
        let stream = StreamConfig { quota: NO_QUOTA, ..StreamConfig::new(self.stream.clone()) };
        config.streams = vec![stream];
        Ok(tokio::task::spawn_blocking(move || EmbeddedLog::open(config)).await??)
    }

    /// Appends until the log has this many bytes.
    async fn grow(&self, log: &Arc<EmbeddedLog>, size: u64) -> anyhow::Result<()> {
        let missing = size.saturating_sub(self.bytes()?);
        self.append(log, missing / u64::from(BLOCK)).await
    }

    /// Appends until the newest segment is a new one.
    async fn seal(&self, log: &Arc<EmbeddedLog>) -> anyhow::Result<()> {
        let segments = self.segments()?.len();
        while self.segments()?.len() == segments {
            self.append(log, 1).await?;
        }
        Ok(())
    }

    /// Appends until the newest segment has this many bytes.
    async fn lengthen(&self, log: &Arc<EmbeddedLog>, tail: u64) -> anyhow::Result<()> {
        let missing = tail.saturating_sub(self.tail()?);
        self.append(log, missing / u64::from(BLOCK)).await
    }

    /// Has the producers append so many blocks among them.
    async fn append(&self, log: &Arc<EmbeddedLog>, blocks: u64) -> anyhow::Result<()> {
        let mut busy = JoinSet::new();
        for number in 0..PRODUCERS {
            let mut producer = Producer::claim(log, &self.stream, number, BLOCK).await?;
            let (log, at) = (Arc::clone(log), self.partition());
            let (each, more) = (blocks / u64::from(PRODUCERS), blocks % u64::from(PRODUCERS));
            let share = each + u64::from(u64::from(number) < more);
            busy.spawn(async move {
                for _ in 0..share {
                    producer.append(&log, &at).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = busy.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn measure(&self, times: u32) -> anyhow::Result<Case> {
        let (log, segments, unsealed) = (self.bytes()?, self.segments()?.len(), self.tail()?);
        let mut openings = Vec::new();
        for _ in 0..times {
            self.forget_pages()?;
            let (before, started) = (Traffic::now()?, Instant::now());
            let log = self.open().await?;
            let ms = started.elapsed().as_secs_f64() * 1e3;
            let after = Traffic::now()?;
            let (read, written) = (after.read - before.read, after.written - before.written);
            openings.push(Opening { ms, read, written });
            log.shutdown().await;
        }
        let median = |of: fn(&Opening) -> f64| {
            let mut values: Vec<f64> = openings.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            round(percentile(&values, 0.5))
        };
        Ok(Case {
            log_mib: round(log as f64 / MIB),
            segments,
            unsealed_mib: round(unsealed as f64 / MIB),
            open_ms: median(|opening| opening.ms),
            read_mib: median(|opening| opening.read as f64 / MIB),
            written_mib: median(|opening| opening.written as f64 / MIB),
        })
    }

    /// So that they must be read from the disk.
    fn forget_pages(&self) -> anyhow::Result<()> {
        for segment in self.segments()? {
            rustix::fs::fadvise(File::open(segment)?, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    fn bytes(&self) -> anyhow::Result<u64> {
        let sizes = self.segments()?.into_iter().map(|path| anyhow::Ok(path.metadata()?.len()));
        sizes.sum()
    }

    fn tail(&self) -> anyhow::Result<u64> {
        let segments = self.segments()?;
        Ok(segments.last().context("the log has no segment")?.metadata()?.len())
    }

    /// Oldest first: their names say where they begin.
    fn segments(&self) -> anyhow::Result<Vec<PathBuf>> {
        let partition = self.dir.join(self.stream.as_str()).join("0000");
        let mut segments = Vec::new();
        for entry in
            std::fs::read_dir(&partition).with_context(|| partition.display().to_string())?
        {
            segments.push(entry?.path());
        }
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        segments.sort();
        Ok(segments)
    }

    fn partition(&self) -> PartitionId {
        PartitionId { stream: self.stream.clone(), index: 0 }
    }
}

/// What this process read and wrote so far, from the disk or from memory.
struct Traffic {
    read: u64,
    written: u64,
}

impl Traffic {
    fn now() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(Path::new("/proc/self/io"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .context("/proc/self/io has other fields")
        };
        Ok(Self { read: field("rchar:")?, written: field("wchar:")? })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["log MiB", "segments", "tail MiB", "open ms", "read MiB", "written MiB"];
        let [log, segments, tail, open, read, written] = names;
        writeln!(f, "{log:>9} {segments:>9} {tail:>9} {open:>9} {read:>9} {written:>12}")?;
        for Case { log_mib, segments, unsealed_mib, open_ms, read_mib, written_mib } in &self.cases
        {
            writeln!(
                f,
                "{log_mib:>9.0} {segments:>9} {unsealed_mib:>9.1} {open_ms:>9.1} {read_mib:>9.1} {written_mib:>12.1}"
            )?;
        }
        Ok(())
    }
}
