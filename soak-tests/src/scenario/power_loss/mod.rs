//! Takes the disk away under a core that receives, stores and delivers, and compares what was promised with what is left.
//!
//! In: file systems, rounds, a seed. Out: a [`Report`]. The core's data folder and the agent's state lie each on a disk of its
//! own (an image, mounted), where a cut drops whatever was not synced. The agent's sources stay: they are the retry buffer.
//! Two pipelines read the one stream: one destination shares the core's disk, the other lies outside and keeps what it was
//! given, so that a reader that runs ahead of the durable end is found out.
//!
//! ```text
//! per round    read, ship, deliver ─► note what was acknowledged ─► freeze ─► cut (core's disk, agent's, both) ─► kill ─► mount
//!   stopped    log sound · its end not lower · no cursor beyond it · checkpoint whole, not lower · no committed row missing
//!   core alone drains: every record that was acknowledged or delivered must be there, by its id
//!   both       go on; after the last round the oracle judges both destinations
//! ```
//!
//! The programs are frozen first: who loses power says nothing any more. A program that went on would be lied to, because an
//! `fdatasync` that is on its way while the disk is taken away may report success for what is then gone (seen with a bare
//! writer, on both file systems). How a program takes errors of a disk is what `crash_points --mode eio` looks at.
//!
//! The loop device stands for a disk without a cache of its own: that `fdatasync` also reaches through such a cache is the
//! kernel's promise and not tested here.

mod promises;
mod report;
mod round;

use std::fmt;

use serde::Serialize;

use crate::cli::say;
use crate::ground::Programs;
use crate::mounts::{Kind, Tools};
use crate::scenario::Verdict as _;
use crate::scenario::home::{Home, Place};
use report::Report;
use round::Trial;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// On which file systems.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ext4,xfs")]
    fs: Vec<Kind>,
    /// How often the disk is taken away, on each of them.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Decides what is written, and when which disk goes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records a second over all writers.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Have the core break a promise: the run must fail. Needs a core built with debug assertions. That it reads beyond the
    /// durable end shows best at a low --rate, when few records go to the quarantine first.
    #[arg(long, value_enum)]
    canary: Option<Canary>,
    #[command(flatten)]
    home: Place,
}

/// What a core does wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Canary {
    AckBeforeSync,
    ReadBeyondEnd,
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Canary {
    fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::ReadBeyondEnd => "read-beyond-end",
        }
    }
}

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    let tools = Tools::find().await?;
    let home = Home::make(&args.home)?;
    let mut report = Report::new(args);
    let mut outcome = Ok(());
    for &kind in &args.fs {
        let folder = home.path().join(kind.name());
        let trial = Trial::set_up(kind, &folder, programs.clone(), args, &tools).await;
        outcome = match trial {
            Ok(mut trial) => {
                let played = trial.play(&mut report).await;
                if played.is_err() || (!report.is_clean() && args.canary.is_none()) {
                    say(&trial.rig.last_words());
                }
                played
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() || !report.is_clean() {
            break;
        }
    }
    report.conclude();
    home.leave(args.canary.is_some() || (outcome.is_ok() && report.ok()));
    outcome.map(|()| report)
}
