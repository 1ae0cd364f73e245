//! What a destination did since the start of the process: figures for metrics and status.
//!
//! In: every write's outcome, every connection that was opened. Out: [`SinkStats`], read by anyone at any time.
//! Promise: rows and batches are counted once they are committed; nothing is decided by these figures, and none is durable:
//! the cursor's counters are. Not here: names and labels of metrics (core).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::{Array as _, RecordBatch};
use async_trait::async_trait;
use garam_stage::{
    Cursor, CursorKey, Destination, Failure, FailureKind, Outcome, PlanId, StagedBatch,
};
use tokio::time::Instant;

use crate::fold::STALE;

/// Figures of one destination, over all its writers.
#[derive(Debug, Default)]
pub struct SinkStats {
    rows: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
    stale: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    connections: AtomicU64,
    write_time: WriteTime,
    refusal: Mutex<Option<String>>,
}

/// How long writes took: how many at most each bound.
#[derive(Debug, Default)]
struct WriteTime {
    /// The last is for those above every bound.
    buckets: [AtomicU64; Self::BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// The figures at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkFigures {
    /// Rows committed.
    pub rows: u64,
    /// Of these rows, in memory.
    pub bytes: u64,
    /// Writes of rows that were committed.
    pub batches: u64,
    /// Rows the destination would not take.
    pub refused: u64,
    /// Records dropped because a newer row was there.
    pub stale: u64,
    /// Writes that lost against others or whose outcome was unknown, so that they are tried again at once.
    pub retries: u64,
    /// Whatever else it was asked and failed.
    pub failures: u64,
    /// Connections opened to a server: more than one a writer are reconnections.
    pub connections: u64,
    /// Seconds, and writes that took at most so long.
    pub write_time: Vec<(f64, u64)>,
    /// Of all committed writes.
    pub writes: u64,
    pub write_seconds: f64,
}

impl WriteTime {
    const BOUNDS: [f64; 14] =
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

    fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl SinkStats {
    pub fn read(&self) -> SinkFigures {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let mut writes = 0;
        let mut upto = self.write_time.buckets.iter().map(|bucket| {
            writes += of(bucket);
            writes
        });
        let write_time = WriteTime::BOUNDS.into_iter().zip(upto.by_ref()).collect();
        let writes = upto.next().unwrap_or_default();
        SinkFigures {
            rows: of(&self.rows),
            bytes: of(&self.bytes),
            batches: of(&self.batches),
            refused: of(&self.refused),
            stale: of(&self.stale),
            retries: of(&self.retries),
            failures: of(&self.failures),
            connections: of(&self.connections),
            write_time,
            writes,
            write_seconds: of(&self.write_time.micros) as f64 / 1e6,
        }
    }

    /// Whether this is the destination's newest refusal, which ends without Garam: rights are given, a table is made to fit.
    pub fn has_refused(&self, failure: &Failure) -> bool {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.as_ref().is_some_and(|what| *what == failure.to_string())
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    fn wrote(&self, batch: &StagedBatch, stored: &Cursor, took: Duration) {
        if batch.rows.num_rows() == 0 {
            return;
        }
        let dropped = stored.counters.dropped_total() - batch.to.counters.dropped_total();
        let stale = |cursor: &Cursor| cursor.counters.dropped.get(STALE).copied().unwrap_or(0);
        let rows = (batch.rows.num_rows() as u64).saturating_sub(dropped);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes(&batch.rows), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.stale.fetch_add(stale(stored) - stale(&batch.to), Ordering::Relaxed);
        self.write_time.took(took);
    }

    fn failed(&self, failure: &Failure, is_refusal: bool) {
        let figure = match failure.kind {
            FailureKind::Contention | FailureKind::Unknown => &self.retries,
            _ => &self.failures,
        };
        figure.fetch_add(1, Ordering::Relaxed);
        let refusal = is_refusal.then(|| failure.to_string());
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }
}

fn bytes(rows: &RecordBatch) -> u64 {
    let size = |column: &arrow_array::ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_default() as u64
    };
    rows.columns().iter().map(size).sum()
}

/// A destination whose writes are counted.
pub(crate) struct Counted {
    pub(crate) inner: Box<dyn Destination>,
    pub(crate) stats: Arc<SinkStats>,
    /// It makes a table that is missing.
    pub(crate) creates: bool,
}

impl Counted {
    /// Of `prepare`: nothing was written yet, so it can be asked again at any time.
    fn unprepared(&self, failure: &Failure) {
        let is_refusal = matches!(failure.kind, FailureKind::Refused | FailureKind::Schema);
        self.stats.failed(failure, is_refusal);
    }

    /// Of whatever comes later. A table that vanished meanwhile would be made anew, without its rows: that is a person's choice.
    fn failed(&self, failure: &Failure) {
        let is_refusal = match failure.kind {
            FailureKind::Refused => true,
            FailureKind::Schema => !self.creates,
            _ => false,
        };
        self.stats.failed(failure, is_refusal);
    }
}

#[async_trait]
impl Destination for Counted {
    async fn prepare(&mut self) -> Result<(), Failure> {
        self.inner.prepare().await.inspect_err(|failure| self.unprepared(failure))
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        let taken = self.inner.take_over(key, epoch_floor).await;
        taken.inspect_err(|failure| self.failed(failure))
    }

    fn admits(&self, cursor: &Cursor, plan: PlanId) -> Result<(), Failure> {
        self.inner.admits(cursor, plan)
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        self.inner.begin(cursor).await.inspect_err(|failure| self.failed(failure))
    }

    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let outcome = self.inner.write(batch).await;
        match &outcome {
            Ok(Outcome::Written { cursor, .. }) => {
                self.stats.wrote(batch, cursor, began.elapsed());
            }
            Ok(Outcome::Refused { rows }) => {
                self.stats.refused.fetch_add(rows.len() as u64, Ordering::Relaxed);
            }
            Err(failure) => self.failed(failure),
        }
        outcome
    }

    async fn rehearse(&mut self, batch: &StagedBatch) -> Result<Option<Outcome>, Failure> {
        self.inner.rehearse(batch).await
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.inner.flush().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::SinkStats;

    #[test]
    fn a_write_is_counted_at_every_bound_that_it_keeps() {
        let stats = SinkStats::default();
        for millis in [1, 2, 700, 90_000] {
            stats.write_time.took(Duration::from_millis(millis));
        }
        let figures = stats.read();
        let at = |bound: f64| {
            let found = figures.write_time.iter().find(|(seconds, _)| *seconds == bound);
            found.map(|(_, writes)| *writes)
        };
        assert_eq!(at(0.001), Some(1));
        assert_eq!(at(0.0025), Some(2));
        assert_eq!(at(0.5), Some(2));
        assert_eq!(at(60.0), Some(3));
        assert_eq!(figures.writes, 4);
        assert_eq!(figures.write_seconds, 90.703);
    }
}
