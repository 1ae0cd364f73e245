//! How long lines wait between their append and the acknowledgement.
//!
//! A file that the agent knows already grows by a chunk every 10 ms, 10 MiB a second (how soon a new file is found is not
//! measured). The agent's status socket is asked without pause, at most every millisecond; a chunk counts as acknowledged
//! when an answer that covers its end has arrived. So a delay is never shown too short, and too long by the time of one
//! answer at most. The clock of a chunk starts when its `write` has returned.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::corpus;
use crate::rig::Rig;

/// Bytes a second.
const PACE: u64 = 10 * 1024 * 1024;
const CHUNK_EVERY: Duration = Duration::from_millis(10);
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Where no delay is measured, questions would cost the agent processor time.
const VOLUME_ASK_EVERY: Duration = Duration::from_millis(50);
/// How long nothing may be acknowledged.
const STILL: Duration = Duration::from_secs(60);

/// How long it goes on, and which lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) seconds: u64,
    pub(super) seed: u64,
}

/// One chunk: the file's length with it, and when it was there.
#[derive(Debug, Clone, Copy)]
struct Appended {
    end: u64,
    at: Instant,
}

/// A file of whole lines. Gives its length.
pub(super) async fn make_file(path: PathBuf, bytes: u64, seed: u64) -> anyhow::Result<u64> {
    let make = move || {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        corpus::write(&mut out, bytes, &mut Rng::with_seed(seed))
    };
    Ok(tokio::task::spawn_blocking(make).await??)
}

pub(super) async fn until_acknowledged(
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
pub(super) async fn delays(
    rig: &mut Rig,
    socket: &Path,
    (file, known): (&Path, u64),
    pace: Pace,
) -> anyhow::Result<Vec<f64>> {
    let chunks = pace.seconds * 1_000 / 10;
    // Room for every chunk: the writer never waits for the one who asks.
    let (sender, mut appended) = mpsc::channel(usize::try_from(chunks)?);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(append(
        (file.to_path_buf(), known),
        chunks,
        pace.seed,
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
