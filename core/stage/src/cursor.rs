//! Where a pipeline stands: the row that a destination keeps in the same atomic step as the data.

use std::collections::BTreeMap;

use async_trait::async_trait;
use garam_proto::{Incarnation, LogOffset, PipelineId};

use crate::failure::Failure;

/// The part of a table's hash slots a cursor row covers, both ends included. One shard: all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotRange {
    pub first: u16,
    pub last: u16,
}

impl SlotRange {
    /// All 1 024 slots.
    pub const ALL: Self = Self { first: 0, last: 1023 };
}

/// Which cursor: one per pipeline, input partition and slot range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorKey {
    pub pipeline: PipelineId,
    pub partition: u32,
    pub slots: SlotRange,
}

/// Names a plan (SQL, contract version, dimension snapshots, hash version, refine semantics version) by the hash of
/// its text; the full text is in `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(pub u64);

/// Exact, cumulative integers: `records_in = delivered + quarantined + sum(dropped)` at every cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub records_in: u64,
    pub delivered: u64,
    pub quarantined: u64,
    /// By reason, e.g. `filtered`, `stale`.
    pub dropped: BTreeMap<String, u64>,
    /// Known losses upstream, apart from records: bytes for files, events for databases.
    pub gap_units: u64,
    /// How many gaps made them up.
    pub gaps: u64,
}

impl Counters {
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether every record that came in is accounted for.
    pub fn balanced(&self) -> bool {
        self.records_in == self.delivered + self.quarantined + self.dropped_total()
    }
}

/// Where a pipeline stands in one partition. `next` is the first offset not delivered yet; `fingerprint` is that of
/// the entry before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub key: CursorKey,
    pub incarnation: Incarnation,
    pub next: LogOffset,
    pub fingerprint: u64,
    /// Fences writers: a row is only ever changed by the holder of the newest epoch.
    pub epoch: u64,
    pub plan: PlanId,
    pub slot_map_epoch: u32,
    /// The first quarantine entry that does not count yet.
    pub quarantine_next: LogOffset,
    pub counters: Counters,
}

/// What an operator lets a pipeline do whose cursor does not fit its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Deliver again whatever the log still holds.
    Rewind,
    /// Stay at the offset: the destination holds everything below it.
    Rebase,
    /// Go on behind what cannot be delivered any more, and count it.
    AcceptGap,
}

impl Choice {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rewind => "rewind",
            Self::Rebase => "rebase",
            Self::AcceptGap => "accept-gap",
        }
    }
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Rewind, Self::Rebase, Self::AcceptGap];
        let found = all.into_iter().find(|choice| choice.name() == text);
        found.ok_or_else(|| format!("{text:?} is no choice"))
    }
}

/// A choice made for one cursor. It names all it was made for, so that it is carried out there and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub choice: Choice,
    /// The cursor as the operator saw it; `None`: the destination had none.
    pub stored: Option<(Incarnation, LogOffset)>,
    /// The life of the log that `to` is an offset of.
    pub incarnation: Incarnation,
    /// Where the pipeline goes on.
    pub to: LogOffset,
    /// Entries from here up to `to` are counted as a gap.
    pub gap_from: Option<LogOffset>,
}

/// What the core remembers about cursors outside their destinations: so that a destination that lost its cursor is
/// noticed, and a batch that keeps killing its worker is taken apart. Implemented by `meta`.
#[async_trait]
pub trait CursorMemory: Send + Sync {
    /// The last cursor seen for the key, if any ever was.
    async fn remembered(&self, key: &CursorKey) -> Result<Option<LogOffset>, Failure>;
    async fn remember(&self, key: &CursorKey, next: LogOffset) -> Result<(), Failure>;
    /// How often delivery from `next` has been tried and failed in a way a record can cause.
    async fn attempts(&self, key: &CursorKey, next: LogOffset) -> Result<u32, Failure>;
    /// Counts an attempt, durably, and returns the new count. A larger `next` starts again at one.
    async fn count_attempt(&self, key: &CursorKey, next: LogOffset) -> Result<u32, Failure>;
    /// The binding quarantine number space: how far the pipeline's quarantine producer got is in the log, not here.
    async fn clear_attempts(&self, key: &CursorKey) -> Result<(), Failure>;
    /// What an operator decided for the key, if it was not carried out yet.
    async fn decision(&self, key: &CursorKey) -> Result<Option<Decision>, Failure>;
    /// The decision is carried out, or has become void.
    async fn forget_decision(&self, key: &CursorKey) -> Result<(), Failure>;
}
