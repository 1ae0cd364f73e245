//! What the embedded log is told: its folder and its streams.
//!
//! In: plain values from the core's configuration. Promise: [`LogConfig::check`] refuses what cannot be served before
//! anything on disk is touched; what it lets through is not checked again.

use std::path::PathBuf;
use std::time::Duration;

use garam_proto::{OriginId, StreamName};

use crate::api::LogError;

/// The embedded log as a whole.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The folder that holds everything; one process at a time.
    pub dir: PathBuf,
    pub streams: Vec<StreamConfig>,
    /// Bytes of entries after which a segment is sealed. A stream with a small quota uses smaller ones.
    /// Default 64 MiB, at least 4 KiB.
    pub segment_size: u64,
    /// Bytes of requests that may wait for the writer; enqueueing waits beyond it. Default 32 MiB.
    pub queue_bytes: u32,
    /// Bytes of the disk that are kept for the day it is full (`reserve`). Default none.
    pub reserve: u64,
    /// How often ages, quotas and the clock are looked after. Default 1 s.
    pub upkeep_every: Duration,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    pub name: StreamName,
    /// May grow from one start to the next; new lineages only use the new ones. Default 1, at most 1024.
    pub partitions: u32,
    /// How long a sealed segment stays after the slowest reader has passed it. Default 24 h.
    pub retain: Duration,
    /// Bytes on disk over all partitions. `retain` yields to it, readers' pins do not. Default 20 GiB, at least 1 MiB.
    pub quota: u64,
    pub on_full: OnFull,
    /// Live origins per partition. Default 100 000.
    pub max_origins: u32,
    /// Whose entries lead to room being made: they may go beyond the quota, by an eighth of it. Default nobody's.
    pub relief: Option<OriginId>,
}

/// What happens when the quota is used up and a reader still needs everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The stream takes nothing more; its agents hold.
    StopStream,
    /// After half a minute the stream goes on without its slowest reader, which finds a gap when it comes back.
    Detach,
}

impl LogConfig {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            streams: Vec::new(),
            segment_size: 64 * 1024 * 1024,
            queue_bytes: 32 * 1024 * 1024,
            reserve: 0,
            upkeep_every: Duration::from_secs(1),
        }
    }

    /// Refuses what the log could not serve.
    pub fn check(&self) -> Result<(), LogError> {
        if self.segment_size < 4 * 1024 {
            return Err(invalid(format!(
                "segment_size {} is below 4 KiB: raise it",
                self.segment_size
            )));
        }
        if self.queue_bytes < 64 * 1024 {
            return Err(invalid(format!(
                "queue_bytes {} is below 64 KiB: raise it",
                self.queue_bytes
            )));
        }
        for (i, stream) in self.streams.iter().enumerate() {
            stream.check()?;
            if self.streams.iter().skip(i + 1).any(|other| other.name == stream.name) {
                return Err(invalid(format!(
                    "stream {} is configured twice: remove one",
                    stream.name
                )));
            }
        }
        Ok(())
    }

    /// How large this stream's segments get: a quota holds at least four per partition, so that trimming can work.
    pub(crate) fn segment_size_of(&self, stream: &StreamConfig) -> u64 {
        let share = stream.quota / (4 * u64::from(stream.partitions.max(1)));
        self.segment_size.min(share).max(1)
    }
}

impl StreamConfig {
    pub fn new(name: StreamName) -> Self {
        Self {
            name,
            partitions: 1,
            retain: Duration::from_secs(24 * 60 * 60),
            quota: 20 * 1024 * 1024 * 1024,
            on_full: OnFull::StopStream,
            max_origins: 100_000,
            relief: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), LogError> {
        let name = &self.name;
        if !(1..=1024).contains(&self.partitions) {
            return Err(invalid(format!(
                "stream {name} has {} partitions: 1 to 1024 are possible",
                self.partitions
            )));
        }
        if self.quota < 1024 * 1024 {
            return Err(invalid(format!(
                "stream {name} has a quota of {} bytes: 1 MiB is the least",
                self.quota
            )));
        }
        if self.max_origins == 0 {
            return Err(invalid(format!(
                "stream {name} has max_origins = 0: nothing could be sent"
            )));
        }
        Ok(())
    }

    pub(crate) fn retain_ms(&self) -> u64 {
        u64::try_from(self.retain.as_millis()).unwrap_or(u64::MAX)
    }
}

fn invalid(why: String) -> LogError {
    LogError::Invalid { why }
}
