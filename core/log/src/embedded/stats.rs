//! Figures about the log: one row per partition, and the writer's sign of life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use garam_proto::{LogOffset, PartitionId};

use super::shared::PartitionShared;
use crate::api::LogError;

/// How a partition is doing. Counters begin at 0 when the log is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStats {
    pub partition: PartitionId,
    pub state: State,
    pub start: LogOffset,
    pub end: LogOffset,
    /// On disk.
    pub bytes: u64,
    pub segments: usize,
    /// Known origins, retired ones included.
    pub origins: usize,
    /// Durable entries of any kind.
    pub appended_entries: u64,
    /// Records in durable blocks, as their headers claim.
    pub appended_records: u64,
    /// Payload bytes of durable blocks.
    pub appended_bytes: u64,
    /// Appends under an older claim than the newest: ignored.
    pub stale: u64,
    /// Appends of what the log had already.
    pub repeats: u64,
    pub syncs: u64,
    /// Readers the stream went on without, and where they stood.
    pub detached: Vec<(String, LogOffset)>,
}

/// Whether a partition takes entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Ok,
    /// Not until there is room again; why.
    Full(String),
    /// Not until the core is restarted, or repaired; why.
    Stopped(String),
}

/// The writer thread's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Grows with every round and every upkeep, so at least once per `upkeep_every`.
    pub beats: u64,
    /// How long the current round takes already; `None` while waiting for work.
    pub busy_for: Option<Duration>,
    /// The thread runs. `false` after a shutdown, or a panic.
    pub alive: bool,
}

impl PartitionStats {
    pub(crate) fn of(partition: &PartitionShared) -> Self {
        let bounds = partition.bounds();
        let (bytes, segments) = partition.size();
        let counters = &partition.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            partition: partition.id.clone(),
            state: state(partition.fault(), partition.full()),
            start: bounds.start,
            end: bounds.end,
            bytes,
            segments,
            origins: partition.origin_count(),
            appended_entries: read(&counters.entries),
            appended_records: read(&counters.records),
            appended_bytes: read(&counters.payload_bytes),
            stale: read(&counters.stale),
            repeats: read(&counters.repeats),
            syncs: read(&counters.syncs),
            detached: partition.change_detached(|detached| detached.names()),
        }
    }
}

fn state(fault: Option<LogError>, full: Option<String>) -> State {
    match (fault, full) {
        (Some(LogError::Full { why, .. }), _) => State::Full(why),
        (Some(fault), _) => State::Stopped(fault.to_string()),
        (None, Some(why)) => State::Full(why),
        (None, None) => State::Ok,
    }
}
