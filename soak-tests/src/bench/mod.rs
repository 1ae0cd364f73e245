//! The home of every measured claim: `garam-soak bench NAME`.
//!
//! A benchmark prints figures; it judges nothing and asserts no time. `ship`, `latency`, `idle` and `sink` run the real binaries beside this program;
//! `log`, `recovery` and `refine` use their rooms as a library, since what they measure has no command line. Figures from debug builds are labelled as
//! such on stderr.

mod corpus;
mod delay;
mod idle;
mod latency;
mod log;
mod place;
mod producer;
mod recovery;
#[cfg(feature = "bench-refine")]
mod refine;
#[cfg(not(feature = "bench-refine"))]
mod refine_absent;
mod ship;
mod sink;

use std::fmt;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[cfg(not(feature = "bench-refine"))]
use self::refine_absent as refine;
use crate::cli::say;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// From a file over mutual TLS to a durable acknowledgement: processor time, memory, delay
    Ship(ship::Args),
    /// From append to acknowledgement at 10 MiB a second: delay, processor time
    Latency(latency::Args),
    /// An agent with nothing to do beside few and very many files: memory, processor time, descriptors
    Idle(idle::Args),
    /// Durable appends to the log, beside what the disk can do: throughput, delay, processor time
    Log(log::Args),
    /// From the log into a real database: rows a second, processor time, beside a bulk load
    Sink(sink::Args),
    /// Opening a log that was not closed: time and bytes, by its size and its unsealed tail
    Recovery(recovery::Args),
    /// From blocks of the log to refined rows, beside plain DataFusion: rows a second of a core
    Refine(refine::Args),
}

/// How an agent compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Codec {
    Zstd,
    Lz4,
    None,
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }
}

/// Measures the real programs in a temporary folder; they must end well.
async fn with_rig<T>(
    programs: Programs,
    measure: impl AsyncFnOnce(&mut Rig) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let home = tempfile::Builder::new().prefix("garam-bench-").tempdir()?;
    let mut rig = Rig::new(Ground::at(home.path(), programs)?);
    let outcome = measure(&mut rig).await;
    if outcome.is_err() {
        say(&rig.last_words());
    }
    let figures = outcome?;
    let ends = rig.stop().await;
    anyhow::ensure!(ends.is_empty(), "{}", ends.join("; "));
    Ok(figures)
}

/// What a benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    Ship(ship::Figures),
    Latency(latency::Figures),
    Idle(idle::Figures),
    Log(log::Figures),
    Recovery(recovery::Figures),
    #[cfg(feature = "bench-refine")]
    Refine(refine::Figures),
    Sink(sink::Figures),
}

pub(crate) async fn run(verb: Verb, bin_dir: Option<&Path>) -> anyhow::Result<Figures> {
    if cfg!(debug_assertions) {
        say("this is a debug build: build with --release for figures worth writing down");
    }
    Ok(match verb {
        Verb::Ship(args) => Figures::Ship(ship::run(args, Programs::find(bin_dir)?).await?),
        Verb::Latency(args) => {
            Figures::Latency(latency::run(args, Programs::find(bin_dir)?).await?)
        }
        Verb::Idle(args) => Figures::Idle(idle::run(args, Programs::find(bin_dir)?).await?),
        Verb::Log(args) => Figures::Log(log::run(args).await?),
        Verb::Sink(args) => Figures::Sink(sink::run(args, Programs::find(bin_dir)?).await?),
        Verb::Recovery(args) => Figures::Recovery(recovery::run(args).await?),
        #[cfg(feature = "bench-refine")]
        Verb::Refine(args) => Figures::Refine(refine::run(args).await?),
        #[cfg(not(feature = "bench-refine"))]
        Verb::Refine(_) => return Err(refine::refuse()),
    })
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// The value that this share of sorted values does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ship(figures) => figures.fmt(f),
            Self::Latency(figures) => figures.fmt(f),
            Self::Idle(figures) => figures.fmt(f),
            Self::Log(figures) => figures.fmt(f),
            Self::Recovery(figures) => figures.fmt(f),
            #[cfg(feature = "bench-refine")]
            Self::Refine(figures) => figures.fmt(f),
            Self::Sink(figures) => figures.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.50), 100.0);
        assert_eq!(percentile(&values, 0.99), 198.0);
        assert_eq!(percentile(&[3.0], 0.99), 3.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
