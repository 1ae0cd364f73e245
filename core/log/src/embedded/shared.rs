//! What the writer shows of a partition: where it begins and ends durably, in which files, and how it is doing.
//!
//! The writer thread is the only one that changes anything here; readers and callers look. The durable end travels in a
//! `watch` channel whose sender the writer owns: when the writer is gone, waiting readers learn it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use garam_proto::{AgentId, Generation, Incarnation, LogOffset, OriginId, PartitionId};
use tokio::sync::watch;

use super::detach::Detached;
use crate::api::{Ancestor, Bounds, LogError, OriginState};

/// One segment file of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub base: u64,
    pub path: PathBuf,
    /// Durable bytes; what lies behind them is nobody's business but the writer's.
    pub bytes: u64,
    /// Log clock when the base was reached.
    pub clock_ms: u64,
}

/// A partition as everybody but its writer sees it.
#[derive(Debug)]
pub(crate) struct PartitionShared {
    pub id: PartitionId,
    /// Which partition this is for the writer.
    pub number: usize,
    pub incarnation: Incarnation,
    pub ancestors: Vec<Ancestor>,
    pub end: watch::Receiver<u64>,
    pub counters: Counters,
    segments: Mutex<Vec<SegmentInfo>>,
    /// As of the durable end. Ordered: an agent's origins lie together.
    origins: Mutex<BTreeMap<OriginId, Arc<OriginState>>>,
    pins: Mutex<BTreeMap<String, LogOffset>>,
    detached: Mutex<Detached>,
    /// Nothing goes before this is set: a stream that is added later waits for the first pin of its own.
    trimmable: AtomicBool,
    fault: Mutex<Option<LogError>>,
    full: Mutex<Option<String>>,
}

/// Monotonic counters of one partition since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub entries: AtomicU64,
    pub records: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub stale: AtomicU64,
    pub repeats: AtomicU64,
    pub syncs: AtomicU64,
}

impl PartitionShared {
    pub(crate) fn new(
        id: PartitionId,
        number: usize,
        (incarnation, ancestors): (Incarnation, Vec<Ancestor>),
        segments: Vec<SegmentInfo>,
        end: watch::Receiver<u64>,
    ) -> Self {
        Self {
            id,
            number,
            incarnation,
            ancestors,
            end,
            counters: Counters::default(),
            segments: Mutex::new(segments),
            origins: Mutex::default(),
            pins: Mutex::default(),
            detached: Mutex::default(),
            trimmable: AtomicBool::new(false),
            fault: Mutex::default(),
            full: Mutex::default(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let end = *self.end.borrow();
        let start = held(&self.segments).first().map_or(end, |segment| segment.base);
        Bounds { incarnation: self.incarnation, start: LogOffset(start), end: LogOffset(end) }
    }

    /// The bounds, if anything is known of them: of a partition that could not be opened only the fault is.
    pub(crate) fn known_bounds(&self) -> Result<Bounds, LogError> {
        match self.fault() {
            Some(fault) if self.incarnation == Incarnation::NIL => Err(fault),
            _ => Ok(self.bounds()),
        }
    }

    /// Whether a segment of this incarnation may be one of this partition's.
    pub(crate) fn descends_from(&self, incarnation: Incarnation) -> bool {
        self.incarnation == incarnation
            || self.ancestors.iter().any(|ancestor| ancestor.incarnation == incarnation)
    }

    /// The segment that holds `offset`, or would if it were the next; and the base of the segment behind it.
    pub(crate) fn segment_of(&self, offset: u64) -> Option<(SegmentInfo, Option<u64>)> {
        let segments = held(&self.segments);
        let behind = segments.partition_point(|segment| segment.base <= offset);
        let segment = segments.get(behind.checked_sub(1)?)?.clone();
        Some((segment, segments.get(behind).map(|next| next.base)))
    }

    /// Durable bytes of the segment with this base and the base of the one behind it, if it is still held.
    pub(crate) fn extent_of(&self, base: u64) -> Option<(u64, Option<u64>)> {
        let segments = held(&self.segments);
        let at = segments.binary_search_by_key(&base, |segment| segment.base).ok()?;
        Some((segments.get(at)?.bytes, segments.get(at + 1).map(|next| next.base)))
    }

    pub(crate) fn segments(&self) -> MutexGuard<'_, Vec<SegmentInfo>> {
        held(&self.segments)
    }

    /// Bytes on disk and number of segments.
    pub(crate) fn size(&self) -> (u64, usize) {
        let segments = held(&self.segments);
        (segments.iter().map(|segment| segment.bytes).sum(), segments.len())
    }

    /// Shows origins as they stand now.
    pub(crate) fn show_origins(&self, changed: impl Iterator<Item = Arc<OriginState>>) {
        held(&self.origins).extend(changed.map(|state| (state.origin, state)));
    }

    pub(crate) fn hide_origins(&self, forgotten: &[Arc<OriginState>]) {
        let mut origins = held(&self.origins);
        for state in forgotten {
            origins.remove(&state.origin);
        }
    }

    pub(crate) fn origin_count(&self) -> usize {
        held(&self.origins).len()
    }

    /// The origins of one agent for which `fits` holds.
    pub(crate) fn origins_of(
        &self,
        agent: AgentId,
        fits: impl Fn(&OriginState) -> bool,
    ) -> Vec<OriginState> {
        let first = OriginId { agent, generation: Generation([0; 16]) };
        let last = OriginId { agent, generation: Generation([0xff; 16]) };
        let origins = held(&self.origins);
        let found = origins.range(first..=last).filter(|(_, state)| fits(state));
        found.map(|(_, state)| state.as_ref().clone()).collect()
    }

    pub(crate) fn pin(&self, reader: &str, next: LogOffset) {
        held(&self.pins).insert(reader.to_owned(), next);
        if next >= self.bounds().start {
            held(&self.detached).holds_again(reader);
        }
        self.set_trimmable();
    }

    pub(crate) fn unpin(&self, reader: &str) {
        held(&self.pins).remove(reader);
        held(&self.detached).rejoins(reader);
    }

    /// Looks at, or changes, who was cut off.
    pub(crate) fn change_detached<T>(&self, change: impl FnOnce(&mut Detached) -> T) -> T {
        change(&mut held(&self.detached))
    }

    /// Takes over what readers asked of the same partition before it could be opened.
    pub(crate) fn inherit(&self, before: &Self) {
        held(&self.pins).extend(held(&before.pins).clone());
        self.trimmable.fetch_or(before.is_trimmable(), Ordering::AcqRel);
    }

    pub(crate) fn set_trimmable(&self) {
        self.trimmable.store(true, Ordering::Release);
    }

    pub(crate) fn is_trimmable(&self) -> bool {
        self.trimmable.load(Ordering::Acquire)
    }

    /// The lowest offset a reader still needs.
    pub(crate) fn lowest_pin(&self) -> Option<(String, LogOffset)> {
        self.pins_below(LogOffset(u64::MAX)).into_iter().min_by_key(|(_, next)| *next)
    }

    /// The readers that need something below an offset, and where they stand.
    pub(crate) fn pins_below(&self, offset: LogOffset) -> Vec<(String, LogOffset)> {
        let (pins, detached) = (held(&self.pins), held(&self.detached));
        let needing = pins.iter().filter(|(name, next)| **next < offset && detached.counts(name));
        needing.map(|(name, next)| (name.clone(), *next)).collect()
    }

    pub(crate) fn fault(&self) -> Option<LogError> {
        held(&self.fault).clone()
    }

    /// The first fault stays: what follows are its consequences.
    pub(crate) fn set_fault(&self, fault: &LogError) {
        held(&self.fault).get_or_insert_with(|| fault.clone());
    }

    pub(crate) fn full(&self) -> Option<String> {
        held(&self.full).clone()
    }

    pub(crate) fn set_full(&self, why: Option<String>) {
        *held(&self.full) = why;
    }
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Locks what is never held across a panic that matters: the values are whole after every statement.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
