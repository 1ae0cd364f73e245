//! `bench latency`: from an append in a file to its acknowledgement, at an even 10 MiB a second.
//!
//! In: a codec, a time. Out: percentiles of the delays as [`super::delay`] takes them, and what the agent spent meanwhile,
//! the answers to the questions after its state included. The core has a gateway and a log and no pipeline.

use std::fmt;

use serde::Serialize;

use super::delay::{Pace, delays, make_file, until_acknowledged};
use super::{Codec, percentile, round, with_rig};
use crate::cli::say;
use crate::ground::Programs;
use crate::rig::Rig;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the agent compresses.
    #[arg(long, value_enum, default_value_t = Codec::Zstd)]
    codec: Codec,
    /// How long lines are appended.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Decides the lines.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    chunks: usize,
    ack_p50_ms: f64,
    ack_p90_ms: f64,
    ack_p99_ms: f64,
    ack_max_ms: f64,
    agent_cpu_percent: f64,
}

pub(super) async fn run(args: Args, programs: Programs) -> anyhow::Result<Figures> {
    with_rig(programs, async |rig| measure(&args, rig).await).await
}

async fn measure(args: &Args, rig: &mut Rig) -> anyhow::Result<Figures> {
    rig.ground.write_log_only_core()?;
    let ship = format!("[ship]\ncodec = \"{}\"\n\n", args.codec.name());
    rig.ground.write_agent(rig.ground.gateway, &ship)?;
    rig.ground.make_certificates().await?;
    let live = rig.ground.logs.join("live.log");
    let known = make_file(live.clone(), 1, args.seed).await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;
    let socket = rig.ground.state.join("status.sock");
    until_acknowledged(rig, &socket, &live, known).await?;
    say(&format!("appending 10 MiB a second for {} s", args.seconds));
    let before = rig.agent()?.usage()?;
    let pace = Pace { seconds: args.seconds, seed: args.seed };
    let delays = delays(rig, &socket, (&live, known), pace).await?;
    let spent = rig.agent()?.usage()?.cpu_s - before.cpu_s;
    Ok(Figures {
        chunks: delays.len(),
        ack_p50_ms: round(percentile(&delays, 0.50)),
        ack_p90_ms: round(percentile(&delays, 0.90)),
        ack_p99_ms: round(percentile(&delays, 0.99)),
        ack_max_ms: round(percentile(&delays, 1.0)),
        agent_cpu_percent: round(spent / args.seconds as f64 * 100.0),
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "append to acknowledgement at 10 MiB/s: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, worst of {} {:.1} ms; agent {:.1} % of a core",
            self.ack_p50_ms,
            self.ack_p90_ms,
            self.ack_p99_ms,
            self.chunks,
            self.ack_max_ms,
            self.agent_cpu_percent
        )
    }
}
