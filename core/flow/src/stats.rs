//! What a flow shows while it runs: figures for metrics and status, and signs of life for the supervisor.
//!
//! In: each settled cursor, each wait. Out: [`FlowStats`] (read by anyone at any time) and calls of [`Progress`].
//! Promise: the cursor shown is one that the destination holds durably, so its counters always balance. A flow says
//! that it waits only while nothing at all is in its hands: silence with work in hand means stuck.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use garam_proto::LogOffset;
use garam_stage::{Cursor, Failure, QuarantinedRecord};

use crate::budget::Budget;

/// What a flow without work in hand waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The log is drained.
    Entries,
    /// Other flows hold all of the byte budget.
    Budget,
}

impl Waiting {
    /// Stable: a metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Budget => "budget",
        }
    }
}

/// How the supervisor tells a stuck flow from a waiting one. Called often: must be cheap.
pub trait Progress: Send + Sync {
    /// Something was done.
    fn beat(&self);
    /// Nothing is in hand. Said again at least every `idle_cursor`.
    fn waiting(&self, why: Waiting);
}

/// For those who do not look.
#[derive(Debug, Clone, Copy)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn beat(&self) {}
    fn waiting(&self, _why: Waiting) {}
}

/// What a flow is connected to beside its data.
#[derive(Clone)]
pub struct FlowHooks {
    pub stats: Arc<FlowStats>,
    pub progress: Arc<dyn Progress>,
    pub budget: Budget,
    /// Hears of each block that did not decode, once it is durable in the quarantine. After a crash in between: once more.
    pub undecodable: Arc<dyn Fn(&QuarantinedRecord) + Send + Sync>,
    /// Wall clock in microseconds since the epoch: stamps quarantine entries, decides nothing.
    pub now_us: fn() -> i64,
}

impl Default for FlowHooks {
    fn default() -> Self {
        Self {
            stats: Arc::default(),
            progress: Arc::new(NoProgress),
            budget: Budget::default(),
            undecodable: Arc::new(|_| {}),
            now_us: wall_clock,
        }
    }
}

/// Figures of one flow.
#[derive(Debug, Default)]
pub struct FlowStats {
    cursor: Mutex<Option<Cursor>>,
    last_error: Mutex<Option<String>>,
    end: AtomicU64,
    batches: AtomicU64,
    last_batch_ms: AtomicU64,
    last_ingest_us: AtomicI64,
    attempts: AtomicU64,
    take_overs: AtomicU64,
    reader: AtomicU8,
}

impl FlowStats {
    /// The newest durable cursor with its counters; `None` before the first start is done.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The durable end of the input as last seen: `end - cursor.next` is the lag in entries.
    pub fn end(&self) -> LogOffset {
        LogOffset(self.end.load(Ordering::Relaxed))
    }

    /// Writes of rows that became durable since the start of this process.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// How long the newest of them took from the first offer to durable.
    pub fn last_batch_ms(&self) -> u64 {
        self.last_batch_ms.load(Ordering::Relaxed)
    }

    /// When the gateway took in the newest delivered block, microseconds since the epoch; 0 before the first.
    pub fn last_ingest_us(&self) -> i64 {
        self.last_ingest_us.load(Ordering::Relaxed)
    }

    /// Failures that a record can cause, since the start of this process.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Unknown or contended writes that were settled by taking over.
    pub fn take_overs(&self) -> u64 {
        self.take_overs.load(Ordering::Relaxed)
    }

    /// The newest failure, whether it ended the flow or not.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the flow's reading half waits for, if it waits.
    pub fn waiting(&self) -> Option<Waiting> {
        match self.reader.load(Ordering::Relaxed) {
            READER_ENTRIES => Some(Waiting::Entries),
            READER_BUDGET => Some(Waiting::Budget),
            _ => None,
        }
    }

    pub(crate) fn reader_waits(&self, waiting: Option<Waiting>) {
        let state = match waiting {
            None => READER_BUSY,
            Some(Waiting::Entries) => READER_ENTRIES,
            Some(Waiting::Budget) => READER_BUDGET,
        };
        self.reader.store(state, Ordering::Relaxed);
    }

    pub(crate) fn stands(&self, cursor: &Cursor, end: LogOffset) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.clone());
        self.end_is(end);
    }

    pub(crate) fn end_is(&self, end: LogOffset) {
        self.end.store(end.0, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, took_ms: u64, ingest_us: Option<i64>) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.last_batch_ms.store(took_ms, Ordering::Relaxed);
        if let Some(ingest_us) = ingest_us {
            self.last_ingest_us.fetch_max(ingest_us, Ordering::Relaxed);
        }
    }

    pub(crate) fn attempted(&self, failure: &Failure) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.failed(failure);
    }

    pub(crate) fn takes_over(&self, failure: &Failure) {
        self.take_overs.fetch_add(1, Ordering::Relaxed);
        self.failed(failure);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        let text = failure.to_string();
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

const READER_BUSY: u8 = 0;
const READER_ENTRIES: u8 = 1;
const READER_BUDGET: u8 = 2;

fn wall_clock() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
