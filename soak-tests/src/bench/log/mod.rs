//! `bench log`: how fast the log takes blocks durably, beside what the disk can do at the same moment.
//!
//! Each case is a block size and a number of producers. A producer is an origin that appends one block, waits until it is
//! durable, and appends the next. Beside it stands the *floor*: one thread that writes the same blocks into one plain
//! file with `pwrite` and calls `fdatasync` as often, per block, as the log's group commit just did. Disks are shared and
//! change their mind within seconds, so log and floor take turns in short stretches and change who goes first; a first
//! pair is not counted. `share_of_floor` is the ratio of the two totals; its quartiles are those of the single pairs.
//!
//! Payloads are random bytes, a different block per producer, made before the clock runs. `cpu_s` is user and system time
//! of this whole process during the log's stretches: producers, checksums, the writer thread, and the kernel on its behalf.
//! Not here: what recovery costs ([`super::recovery`]), and what it costs to bring blocks to the log ([`super::ship`]).

mod drive;
mod floor;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::place::Place;
use super::{MIB, percentile, round};
use crate::cli::say;
use drive::Driver;
use floor::Floor;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Block sizes in KiB.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1024], value_parser = clap::value_parser!(u32).range(1..=1_048))]
    block_kib: Vec<u32>,
    /// Numbers of producers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64], value_parser = clap::value_parser!(u16).range(1..=1_024))]
    producers: Vec<u16>,
    /// How long one stretch lasts.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    stretch_ms: u64,
    /// Pairs of stretches per case.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pairs: u32,
    /// Let the floor reserve its file this many MiB at a time, ahead of what it writes.
    #[arg(long, default_value_t = 0)]
    reserve_mib: u64,
    /// Where to write; default: a folder in the system's temporary one. The disk it lies on is what is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    cases: Vec<Case>,
}

/// Sizes are in units of 10^6 bytes, as disks are sold.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Case {
    block_bytes: u32,
    producers: u16,
    mb_per_s: f64,
    acks_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_s: f64,
    /// Payload per second of `cpu_s`.
    mib_per_cpu_s: f64,
    blocks_per_sync: f64,
    floor_mb_per_s: f64,
    floor_cpu_s: f64,
    share_of_floor: f64,
    share_lower_quartile: f64,
    share_upper_quartile: f64,
}

/// One side's turn.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    bytes: u64,
    syncs: u64,
    seconds: f64,
    cpu_s: f64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Figures> {
    let place = Place::make(args.dir.as_deref())?;
    let mut cases = Vec::new();
    for &kib in &args.block_kib {
        for &producers in &args.producers {
            say(&format!("blocks of {kib} KiB, producers: {producers}"));
            cases.push(case(&args, &place, kib * 1024, producers).await?);
        }
    }
    Ok(Figures { cases })
}

async fn case(args: &Args, place: &Place, block: u32, producers: u16) -> anyhow::Result<Case> {
    let length = Duration::from_millis(args.stretch_ms);
    let folder = place.folder()?;
    let mut driver = Driver::open(&folder.path().join("log"), block, producers).await?;
    let reserve = args.reserve_mib << 20;
    let mut floor = Floor::create(&folder.path().join("floor"), block, reserve)?;
    // Warms both up, and tells how many blocks the log puts into one sync.
    driver.stretch(length).await?;
    floor = floor.stretch(length, driver.blocks_per_sync()).await?.0;
    driver.forget_delays();

    let mut pairs = Vec::new();
    for number in 0..args.pairs {
        let pair = if number % 2 == 0 {
            let log = driver.stretch(length).await?;
            let (used, plain) = floor.stretch(length, driver.blocks_per_sync()).await?;
            floor = used;
            (log, plain)
        } else {
            let (used, plain) = floor.stretch(length, driver.blocks_per_sync()).await?;
            floor = used;
            (driver.stretch(length).await?, plain)
        };
        pairs.push(pair);
    }
    let delays = driver.close().await;
    Ok(summary(block, producers, &pairs, &delays))
}

/// `delays` in milliseconds, sorted.
fn summary(block: u32, producers: u16, pairs: &[(Stretch, Stretch)], delays: &[f64]) -> Case {
    let log: Stretch = pairs.iter().map(|(log, _)| *log).sum();
    let floor: Stretch = pairs.iter().map(|(_, floor)| *floor).sum();
    let mut shares: Vec<f64> = pairs.iter().map(|(log, floor)| log.pace() / floor.pace()).collect();
    shares.sort_by(f64::total_cmp);
    let blocks = log.bytes as f64 / f64::from(block);
    Case {
        block_bytes: block,
        producers,
        mb_per_s: round(log.pace() / 1e6),
        acks_per_s: round(blocks / log.seconds),
        p50_ms: round(percentile(delays, 0.50)),
        p99_ms: round(percentile(delays, 0.99)),
        cpu_s: round(log.cpu_s),
        mib_per_cpu_s: round(log.bytes as f64 / MIB / log.cpu_s.max(0.01)),
        blocks_per_sync: round(blocks / log.syncs.max(1) as f64),
        floor_mb_per_s: round(floor.pace() / 1e6),
        floor_cpu_s: round(floor.cpu_s),
        share_of_floor: round(log.pace() / floor.pace()),
        share_lower_quartile: round(percentile(&shares, 0.25)),
        share_upper_quartile: round(percentile(&shares, 0.75)),
    }
}

impl Stretch {
    /// Bytes a second.
    fn pace(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

impl std::iter::Sum for Stretch {
    fn sum<I: Iterator<Item = Self>>(stretches: I) -> Self {
        stretches.fold(Self::default(), |sum, next| Self {
            bytes: sum.bytes + next.bytes,
            syncs: sum.syncs + next.syncs,
            seconds: sum.seconds + next.seconds,
            cpu_s: sum.cpu_s + next.cpu_s,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7} {:>11} {:>9} {:>9}  share (quartiles)",
            "block KiB",
            "producers",
            "MB/s",
            "acks/s",
            "p50 ms",
            "p99 ms",
            "CPU s",
            "MiB/CPU-s",
            "blk/sync",
            "floor MB/s"
        )?;
        for case in &self.cases {
            writeln!(
                f,
                "{:>9} {:>9} {:>8.1} {:>8.0} {:>8.2} {:>8.2} {:>7.2} {:>11.0} {:>9.1} {:>9.1}  {:.2} ({:.2}–{:.2})",
                case.block_bytes / 1024,
                case.producers,
                case.mb_per_s,
                case.acks_per_s,
                case.p50_ms,
                case.p99_ms,
                case.cpu_s,
                case.mib_per_cpu_s,
                case.blocks_per_sync,
                case.floor_mb_per_s,
                case.share_of_floor,
                case.share_lower_quartile,
                case.share_upper_quartile
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(bytes: u64, seconds: f64) -> Stretch {
        Stretch { bytes, syncs: 10, seconds, cpu_s: 0.5 }
    }

    #[test]
    fn the_share_is_that_of_the_totals_and_the_quartiles_are_those_of_the_pairs() {
        let pairs = [
            (stretch(80_000_000, 1.0), stretch(100_000_000, 1.0)),
            (stretch(120_000_000, 1.0), stretch(100_000_000, 1.0)),
        ];
        let case = summary(1_000_000, 8, &pairs, &[1.0, 2.0, 3.0]);
        assert_eq!((case.mb_per_s, case.floor_mb_per_s, case.share_of_floor), (100.0, 100.0, 1.0));
        assert_eq!((case.share_lower_quartile, case.share_upper_quartile), (0.8, 1.2));
        assert_eq!((case.acks_per_s, case.blocks_per_sync, case.p99_ms), (100.0, 10.0, 3.0));
    }
}
