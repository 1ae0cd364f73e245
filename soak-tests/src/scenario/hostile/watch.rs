//! What can be seen of an attack from outside: the audit log, the bytes in the log, how far the honest agent is behind.
//!
//! In: the ground. Out: figures. Promise: an event counts for an attack only when it names the attacker, by address or by host.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::ground::Ground;

/// How long an event may take until it can be read: a block is read later than it comes.
const PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(20);

/// A line of the audit log, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Line {
    what: String,
    outcome: String,
    peer: Option<String>,
    host: Option<String>,
}

/// Who an attacker is in the audit log.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) address: IpAddr,
    pub(super) host: String,
}

/// The audit log.
pub(super) struct Audit {
    path: PathBuf,
}

impl Audit {
    pub(super) fn of(ground: &Ground) -> Self {
        Self { path: ground.data_dir.join("audit/audit.jsonl") }
    }

    /// Waits until the log has refusals of all these kinds about this suspect.
    pub(super) async fn has(&self, who: &Suspect, kinds: &[&str]) -> anyhow::Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = read(&self.path)?;
            let is_noted = |kind: &&str| lines.iter().any(|l| l.is_about(who) && l.what == *kind);
            if kinds.iter().all(is_noted) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(GLANCE).await;
        }
    }

    /// How many lines are about this suspect. Of a flood only some are written, the rest is a number in somebody's line.
    pub(super) fn count(&self, who: &Suspect) -> anyhow::Result<u64> {
        let lines = read(&self.path)?;
        Ok(lines.iter().filter(|line| line.is_about(who)).count() as u64)
    }
}

impl Line {
    fn is_about(&self, who: &Suspect) -> bool {
        let by_address = self.peer.as_deref().is_some_and(|peer| peer == who.address.to_string());
        self.outcome == "refused" && (by_address || self.host.as_deref() == Some(&who.host))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    if !path.try_exists()? {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)?;
    // A line without an end is still being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    lines.context("the audit log is not what it was")
}

/// Watches how far delivery is behind what was written, until it is told to stop.
pub(super) struct Lag {
    stop: Arc<AtomicBool>,
    samples: JoinHandle<Vec<Duration>>,
}

impl Lag {
    /// `written` tells how many records were written so far, `rate` how many come a second.
    pub(super) fn watch(
        ground: &Ground,
        pipeline: &'static str,
        rate: u32,
        written: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, socket) = (Arc::clone(&stop), ground.socket());
        let samples = tokio::spawn(async move {
            let mut samples = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                sleep(GLANCE).await;
                let before = written();
                let Ok(status) = admin::status(&socket).await else { continue };
                let Some(pipeline) = status.pipelines.iter().find(|p| p.name == pipeline) else {
                    continue;
                };
                let behind = before.saturating_sub(pipeline.counters().settled());
                samples.push(Duration::from_secs_f64(behind as f64 / f64::from(rate)));
            }
            samples
        });
        Self { stop, samples }
    }

    /// The 99th percentile in milliseconds.
    pub(super) async fn p99(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = self.samples.await.context("the watch panicked")?;
        samples.sort();
        let at = (samples.len() * 99).div_ceil(100).saturating_sub(1);
        let worst = samples.get(at).context("nothing was measured")?;
        Ok(u64::try_from(worst.as_millis()).unwrap_or(u64::MAX))
    }
}
