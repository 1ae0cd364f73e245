//! What the log's callers see without asking the writer: its streams, whether it lives, whether it may trim.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use garam_proto::{PartitionId, StreamName};

use super::clock::Time;
use super::config::StreamConfig;
use super::shared::PartitionShared;
use crate::api::LogError;

#[derive(Debug, Default)]
pub(crate) struct Directory {
    streams: RwLock<HashMap<StreamName, Arc<StreamShared>>>,
    pub heart: Heart,
    /// Segments may be removed: the readers that matter have set their pins.
    pub trimming: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct StreamShared {
    pub config: StreamConfig,
    pub partitions: Vec<Arc<PartitionShared>>,
}

/// The writer's sign of life.
#[derive(Debug, Default)]
pub(crate) struct Heart {
    beats: AtomicU64,
    /// Monotonic milliseconds + 1 since the current round began; 0 while waiting for work.
    busy_since: AtomicU64,
}

impl Directory {
    pub(crate) fn show(&self, stream: StreamShared) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        streams.insert(stream.config.name.clone(), Arc::new(stream));
    }

    pub(crate) fn stream(&self, name: &StreamName) -> Result<Arc<StreamShared>, LogError> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let found = streams.get(name).cloned();
        found.ok_or_else(|| LogError::UnknownStream { stream: name.clone() })
    }

    pub(crate) fn partition(&self, at: &PartitionId) -> Result<Arc<PartitionShared>, LogError> {
        let stream = self.stream(&at.stream)?;
        let found = stream.partitions.get(at.index as usize).cloned();
        found.ok_or_else(|| LogError::Invalid {
            why: format!(
                "stream {} has partitions 0 to {}, not {}",
                at.stream,
                stream.partitions.len().saturating_sub(1),
                at.index
            ),
        })
    }

    /// Every reader that matters has set its pins.
    pub(crate) fn allow_trimming(&self) {
        for stream in self.all() {
            stream.partitions.iter().for_each(|partition| partition.set_trimmable());
        }
        self.trimming.store(true, Ordering::Release);
    }

    /// All streams, by name.
    pub(crate) fn all(&self) -> Vec<Arc<StreamShared>> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = streams.values().cloned().collect();
        all.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        all
    }
}

impl Heart {
    pub(crate) fn busy(&self, time: &dyn Time) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.busy_since.store(millis(time.monotonic()) + 1, Ordering::Relaxed);
    }

    pub(crate) fn idle(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    pub(crate) fn busy_for(&self, time: &dyn Time) -> Option<Duration> {
        let since = self.busy_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(millis(time.monotonic()).saturating_sub(since)))
    }
}

/// Where a partition's segments lie.
pub(crate) fn partition_dir(dir: &Path, id: &PartitionId) -> PathBuf {
    dir.join(id.stream.as_str()).join(format!("{:04}", id.index))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
