//! The log's side: a log of its own and producers that keep it busy for a stretch at a time.
//!
//! In: a folder, a block size, a number of producers. Out: what became durable in how long, and every delay from the call of
//! `append` to its answer. Promise: a block counts only when it was answered `Durable`; a stretch ends when every producer
//! has its last answer, so nothing is in flight while the floor is measured.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use garam_log::{EmbeddedLog, LogConfig, StreamConfig};
use garam_proto::{PartitionId, StreamName};
use tokio::task::JoinSet;

use super::super::producer::Producer;
use super::Stretch;
use crate::bench::cpu_seconds;

/// The log is removed at the end of a case, so it may grow as it likes.
const NO_QUOTA: u64 = 1 << 50;

pub(super) struct Driver {
    log: Arc<EmbeddedLog>,
    at: PartitionId,
    block: u32,
    idle: Vec<Producer>,
    delays: Vec<f64>,
    /// Over all stretches.
    total: Stretch,
}

impl Driver {
    pub(super) async fn open(dir: &Path, block: u32, producers: u16) -> anyhow::Result<Self> {
        let stream = StreamName::new("bench")?;
        let mut config = LogConfig::new(dir);
        config.streams =
            vec![StreamConfig { quota: NO_QUOTA, ..StreamConfig::new(stream.clone()) }];
        let log = tokio::task::spawn_blocking(move || EmbeddedLog::open(config)).await??;
        let mut idle = Vec::new();
        for number in 0..u32::from(producers) {
            idle.push(Producer::claim(&log, &stream, number, block).await?);
        }
        let at = PartitionId { stream, index: 0 };
        Ok(Self { log, at, block, idle, delays: Vec::new(), total: Stretch::default() })
    }

    /// Keeps every producer busy for this long.
    pub(super) async fn stretch(&mut self, length: Duration) -> anyhow::Result<Stretch> {
        let (syncs, cpu_s) = (self.syncs()?, cpu_seconds());
        let started = Instant::now();
        let mut busy = JoinSet::new();
        for mut producer in self.idle.drain(..) {
            let (log, at) = (Arc::clone(&self.log), self.at.clone());
            busy.spawn(async move {
                let mut delays = Vec::new();
                while started.elapsed() < length {
                    let asked = Instant::now();
                    producer.append(&log, &at).await?;
                    delays.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                anyhow::Ok((producer, delays))
            });
        }
        let mut blocks = 0;
        while let Some(done) = busy.join_next().await {
            let (producer, delays) = done??;
            blocks += delays.len() as u64;
            self.delays.extend(delays);
            self.idle.push(producer);
        }
        let stretch = Stretch {
            bytes: blocks * u64::from(self.block),
            syncs: self.syncs()? - syncs,
            seconds: started.elapsed().as_secs_f64(),
            cpu_s: cpu_seconds() - cpu_s,
        };
        self.total = [self.total, stretch].into_iter().sum();
        Ok(stretch)
    }

    /// How many blocks one sync made durable so far, on average.
    pub(super) fn blocks_per_sync(&self) -> f64 {
        let blocks = self.total.bytes as f64 / f64::from(self.block);
        blocks / self.total.syncs.max(1) as f64
    }

    pub(super) fn forget_delays(&mut self) {
        self.delays.clear();
    }

    /// Ends the log. Gives the delays in milliseconds, sorted.
    pub(super) async fn close(mut self) -> Vec<f64> {
        self.log.shutdown().await;
        self.delays.sort_by(f64::total_cmp);
        self.delays
    }

    fn syncs(&self) -> anyhow::Result<u64> {
        let stats = self.log.stats();
        let ours = stats.iter().find(|stats| stats.partition == self.at);
        Ok(ours.context("the log does not show its partition")?.syncs)
    }
}
