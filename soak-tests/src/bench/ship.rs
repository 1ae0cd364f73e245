//! `bench ship`: what it costs to bring lines from a file to the core's stable storage.
//!
//! The core has a gateway and a log and no pipeline, so that its figure is that of taking blocks in.
//! 1. *Volume.* A file of `--mib` lies there when the agent starts. Processor time is user and system time from
//!    `/proc/PID/stat`: the agent's since its start, the core's since it was ready, both read when the agent says that the
//!    last byte is acknowledged. Memory is the peak (`VmHWM`) at that moment.
//! 2. *Delay.* A second file, which the agent knows already, grows by a chunk every 10 ms, 10 MiB a second (how soon a new
//!    file is found is not measured). The agent's status socket is asked without pause, at most every millisecond; a chunk counts as acknowledged when an answer that covers its end has arrived. So a
//!    delay is never shown too short, and too long by the time of one answer at most. The clock of a chunk starts when its
//!    `write` has returned.
//!
//! The agent runs with its defaults apart from the codec.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{MIB, corpus, percentile, round};
use crate::cli::say;
use crate::ground::{Ground, Programs};
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Codec {
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

/// Bytes a second in the second part.
const PACE: u64 = 10 * 1024 * 1024;
const CHUNK_EVERY: Duration = Duration::from_millis(10);
const ASK_EVERY: Duration = Duration::from_millis(1);
/// In the first part questions would cost the agent processor time.
const VOLUME_ASK_EVERY: Duration = Duration::from_millis(50);
/// How long nothing may be acknowledged.
const STILL: Duration = Duration::from_secs(60);

/// One chunk: the file's length with it, and when it was there.
#[derive(Debug, Clone, Copy)]
struct Appended {
    end: u64,
    at: Instant,
}

pub(super) async fn run(args: Args, programs: Programs) -> anyhow::Result<Figures> {
    let home = tempfile::Builder::new().prefix("garam-bench-").tempdir()?;
    let mut rig = Rig::new(Ground::at(home.path(), programs)?);
    let outcome = measure(&args, &mut rig).await;
    if outcome.is_err() {
        say(&rig.last_words());
    }
    let figures = outcome?;
    let ends = rig.stop().await;
    anyhow::ensure!(ends.is_empty(), "{}", ends.join("; "));
    Ok(figures)
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
    let delays = delays(rig, &socket, (&live, known), args).await?;
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

/// A file of whole lines. Gives its length.
async fn make_file(path: PathBuf, bytes: u64, seed: u64) -> anyhow::Result<u64> {
    let make = move || {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        corpus::write(&mut out, bytes, &mut Rng::with_seed(seed))
    };
    Ok(tokio::task::spawn_blocking(make).await??)
}

async fn until_acknowledged(
    rig: &mut Rig,
    socket: &Path,
    file: &Path,
    bytes: u64,
) -> anyhow::Result<()> {
    let (mut acknowledged, mut moved) = (0, Instant::now());
    while acknowledged < bytes {
        rig.check()?;
        sleep(VOLUME_ASK_EVERY).await;
        let now = acknowledged_of(socket, file).await.unwrap_or(acknowledged);
        if now != acknowledged {
            (acknowledged, moved) = (now, Instant::now());
        }
        anyhow::ensure!(moved.elapsed() < STILL, "nothing is acknowledged beyond {acknowledged}");
    }
    Ok(())
}

/// From append to acknowledgement, in milliseconds, sorted.
async fn delays(
    rig: &mut Rig,
    socket: &Path,
    (file, known): (&Path, u64),
    args: &Args,
) -> anyhow::Result<Vec<f64>> {
    let chunks = args.seconds * 1_000 / 10;
    // Room for every chunk: the writer never waits for the one who asks.
    let (sender, mut appended) = mpsc::channel(usize::try_from(chunks)?);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(append(
        (file.to_path_buf(), known),
        chunks,
        args.seed,
        sender,
        Arc::clone(&stop),
    ));
    let mut waiting: Option<Appended> = None;
    let mut delays = Vec::new();
    let mut moved = Instant::now();
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        rig.check()?;
        let acknowledged = acknowledged_of(socket, file).await.unwrap_or(0);
        let now = Instant::now();
        loop {
            if waiting.is_none() {
                waiting = appended.try_recv().ok();
            }
            let Some(chunk) = waiting.filter(|chunk| chunk.end <= acknowledged) else { break };
            delays.push(now.duration_since(chunk.at).as_secs_f64() * 1e3);
            waiting = None;
            moved = now;
        }
        if waiting.is_none() && appended.is_closed() && appended.is_empty() {
            break;
        }
        if moved.elapsed() > STILL {
            stop.store(true, Ordering::Relaxed);
            anyhow::bail!(
                "nothing is acknowledged beyond byte {acknowledged} of {}",
                file.display()
            );
        }
    }
    writer.await??;
    delays.sort_by(f64::total_cmp);
    Ok(delays)
}

/// Appends chunks of whole lines at an even pace.
async fn append(
    (path, known): (PathBuf, u64),
    chunks: u64,
    seed: u64,
    appended: mpsc::Sender<Appended>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut rng = Rng::with_seed(seed + 1);
    let mut file = File::options().append(true).open(path)?;
    let chunk_bytes = PACE / 100;
    let (mut end, mut chunk) = (known, Vec::new());
    let mut ticks = interval(CHUNK_EVERY);
    for number in 1..=chunks {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        chunk.clear();
        corpus::write(&mut chunk, (known + number * chunk_bytes).saturating_sub(end), &mut rng)?;
        ticks.tick().await;
        file.write_all(&chunk)?;
        end += chunk.len() as u64;
        appended.send(Appended { end, at: Instant::now() }).await.context("nobody listens")?;
    }
    Ok(())
}

/// The part of the agent's status that is needed.
#[derive(Debug, Deserialize)]
struct Status {
    files: Vec<FileStatus>,
}

#[derive(Debug, Deserialize)]
struct FileStatus {
    path: PathBuf,
    acked: u64,
}

/// How many bytes of a file the agent knows to be on stable storage.
async fn acknowledged_of(socket: &Path, file: &Path) -> anyhow::Result<u64> {
    let mut answer = Vec::new();
    UnixStream::connect(socket).await?.read_to_end(&mut answer).await?;
    let status: Status = serde_json::from_slice(&answer)?;
    let found = status.files.iter().find(|known| known.path == file);
    Ok(found.context("the agent does not know the file")?.acked)
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
