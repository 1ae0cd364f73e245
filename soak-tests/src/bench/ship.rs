//! `bench ship`: what it costs to bring lines from a file to the core's stable storage.
//!
//! The core has a gateway and a log and no pipeline, so that its figure is that of taking blocks in.
//! 1. *Volume.* A file of `--mib` lies there when the agent starts. Processor time is user and system time from
//!    `/proc/PID/stat`: the agent's since its start, the core's since it was ready, both read when the agent says that the
//!    last byte is acknowledged. Memory is the peak (`VmHWM`) at that moment.
//! 2. *Delay.* As `bench latency` takes it ([`super::delay`]), of a second file.
//!
//! The agent runs with its defaults apart from the codec.

use std::fmt;

use serde::Serialize;

use super::delay::{Pace, delays, make_file, until_acknowledged};
use super::{Codec, MIB, percentile, round, with_rig};
use crate::cli::say;
use crate::ground::Programs;
use crate::rig::Rig;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the agent compresses.
    #[arg(long, value_enum, default_value_t = Codec::Zstd)]
    codec: Codec,
    /// Size of the file.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    mib: u64,
    /// How long the second part lasts.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Decides the lines.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    raw_mib: f64,
    agent_cpu_s: f64,
    mib_per_agent_cpu_s: f64,
    core_cpu_s: f64,
    mib_per_core_cpu_s: f64,
    agent_rss_mib: f64,
    core_rss_mib: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
}

pub(super) async fn run(args: Args, programs: Programs) -> anyhow::Result<Figures> {
    with_rig(programs, async |rig| measure(&args, rig).await).await
}

async fn measure(args: &Args, rig: &mut Rig) -> anyhow::Result<Figures> {
    rig.ground.write_log_only_core()?;
    let ship = format!("[ship]\ncodec = \"{}\"\n\n", args.codec.name());
    rig.ground.write_agent(rig.ground.gateway, &ship)?;
    rig.ground.make_certificates().await?;
    let volume = rig.ground.logs.join("volume.log");
    let live = rig.ground.logs.join("live.log");
    let raw = make_file(volume.clone(), args.mib * 1024 * 1024, args.seed).await?;
    let known = make_file(live.clone(), 1, args.seed).await?;
    rig.start_core()?;
    rig.core_ready().await?;
    let before = rig.core()?.usage()?;

    say(&format!("shipping {} MiB with {}", raw >> 20, args.codec.name()));
    rig.start_agent()?;
    let socket = rig.ground.state.join("status.sock");
    until_acknowledged(rig, &socket, &volume, raw).await?;
    until_acknowledged(rig, &socket, &live, known).await?;
    let (agent, core) = (rig.agent()?.usage()?, rig.core()?.usage()?);

    say(&format!("appending 10 MiB a second for {} s", args.seconds));
    let pace = Pace { seconds: args.seconds, seed: args.seed };
    let delays = delays(rig, &socket, (&live, known), pace).await?;
    let raw_mib = raw as f64 / MIB;
    let core_cpu_s = core.cpu_s - before.cpu_s;
    Ok(Figures {
        raw_mib: round(raw_mib),
        agent_cpu_s: round(agent.cpu_s),
        mib_per_agent_cpu_s: round(raw_mib / agent.cpu_s.max(0.01)),
        core_cpu_s: round(core_cpu_s),
        mib_per_core_cpu_s: round(raw_mib / core_cpu_s.max(0.01)),
        agent_rss_mib: round(agent.peak_mib),
        core_rss_mib: round(core.peak_mib),
        ack_p50_ms: round(percentile(&delays, 0.50)),
        ack_p99_ms: round(percentile(&delays, 0.99)),
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.0} MiB raw: agent {:.2} CPU-s, {:.0} MiB per CPU-s, {:.0} MiB memory; core {:.2} CPU-s, {:.0} MiB per CPU-s, {:.0} MiB memory",
            self.raw_mib,
            self.agent_cpu_s,
            self.mib_per_agent_cpu_s,
            self.agent_rss_mib,
            self.core_cpu_s,
            self.mib_per_core_cpu_s,
            self.core_rss_mib
        )?;
        writeln!(
            f,
            "append to acknowledgement at 10 MiB/s: p50 {:.1} ms, p99 {:.1} ms",
            self.ack_p50_ms, self.ack_p99_ms
        )
    }
}
