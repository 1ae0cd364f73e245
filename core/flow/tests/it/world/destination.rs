//! A destination in memory: rows and cursor in one step, with scripted faults by the number of the write.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::StringArray;
use async_trait::async_trait;
use garam_stage::{
    Cursor, CursorKey, Destination, Durability, Failure, FailureKind, Outcome, PlanId, RecordRef,
    Refusal, StagedBatch,
};

use super::World;

/// What happens to one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is committed and nobody knows.
    FailBeforeCommit,
    /// It is committed and nobody knows.
    FailAfterCommit,
    /// The COMMIT is on its way and nobody knows; what becomes of it is [`Commit`].
    Delay,
    Contention,
    /// Waits until the test lets it go on.
    Slow,
    /// Likewise, and then nothing is committed and nobody knows.
    SlowAndLost,
}

/// What becomes of a delayed COMMIT when the next owner takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Commit {
    /// Taking over waits for it.
    #[default]
    Lands,
    /// Taking over defeats it.
    Defeated,
    /// It arrives after everything, and finds another epoch.
    Late,
}

#[derive(Default)]
pub(crate) struct DestinationState {
    pub(crate) rows: Vec<(RecordRef, String)>,
    pub(crate) cursor: Option<Cursor>,
    /// By number of the write, from 1, over all lives.
    pub(crate) faults: BTreeMap<u64, Fault>,
    pub(crate) writes: u64,
    pub(crate) commit: Commit,
    delayed: Vec<StagedBatch>,
    /// Slow writes may go on.
    pub(crate) released: bool,
    /// A slow write has begun.
    pub(crate) slow: bool,
    pub(crate) can_rehearse: bool,
    pub(crate) accepts: bool,
    /// Written, not flushed: only when `accepts`.
    unflushed: Option<Box<(usize, Option<Cursor>)>>,
    pub(crate) refuse_everything: bool,
    pub(crate) refused_batches: u64,
    pub(crate) epochs: Vec<u64>,
    /// Rows are unique.
    pub(crate) unique: bool,
}

impl DestinationState {
    /// What was only accepted is gone with its writer.
    pub(crate) fn forget_unflushed(&mut self) {
        if let Some((rows, cursor)) = self.unflushed.take().map(|boxed| *boxed) {
            self.rows.truncate(rows);
            self.cursor = cursor;
        }
    }

    /// What would survive a crash.
    pub(crate) fn durable_cursor(&self) -> Option<&Cursor> {
        match &self.unflushed {
            Some(before) => before.1.as_ref(),
            None => self.cursor.as_ref(),
        }
    }

    fn owns(&self, batch: &StagedBatch) -> bool {
        let from = &batch.from;
        self.cursor.as_ref().is_some_and(|cursor| {
            (&cursor.key, cursor.incarnation, cursor.next, cursor.epoch)
                == (&from.key, from.incarnation, from.next, from.epoch)
        })
    }

    fn commit(&mut self, batch: &StagedBatch) -> Result<(), Failure> {
        if !self.owns(batch) {
            return Err(Failure::new(FailureKind::Fenced, "another writer owns the cursor"));
        }
        assert!(batch.to.counters.balanced(), "counters balance at every cursor");
        assert_eq!(batch.rows.num_rows(), batch.sources.len());
        let rows_pass = batch.from.next < batch.to.next;
        assert!(rows_pass || batch.sources.is_empty(), "rows move the cursor forward");
        let rows: Vec<_> = batch.sources.iter().copied().zip(texts(batch)).collect();
        let (stale, fresh) =
            rows.into_iter().partition::<Vec<_>, _>(|row| row.1.starts_with("stale#"));
        let mut cursor = batch.to.clone();
        if !stale.is_empty() {
            cursor.counters.delivered -= stale.len() as u64;
            let dropped = cursor.counters.dropped.entry("stale".into()).or_default();
            *dropped += stale.len() as u64;
        }
        for row in fresh {
            // As a table with a unique key does it: a row that is there already counts as repeated.
            if self.unique && self.rows.contains(&row) {
                cursor.counters.delivered -= 1;
                *cursor.counters.dropped.entry("repeated".into()).or_default() += 1;
            } else {
                self.rows.push(row);
            }
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    /// The network delivers what it held back.
    pub(crate) fn deliver_late(&mut self) -> Vec<Result<(), Failure>> {
        let late = std::mem::take(&mut self.delayed);
        late.iter().map(|batch| self.commit(batch)).collect()
    }

    /// What a write of these rows would be answered.
    fn verdict(&self, batch: &StagedBatch, life: u64) -> Result<Option<Vec<Refusal>>, Failure> {
        let texts: Vec<String> = texts(batch).collect();
        let word = |text: &str| text.split('#').next().unwrap().to_owned();
        if texts.iter().any(|text| word(text) == "hurt") {
            return Err(Failure::new(FailureKind::Data, "a row hurts"));
        }
        let first = texts.iter().any(|text| word(text) == "refuse");
        let refused = |text: &str| match word(text).as_str() {
            "refuse" => true,
            // Hidden behind the others: refused only once those are gone.
            "refuse-later" => !first,
            "sway" => life.is_multiple_of(2) && !first,
            _ => self.refuse_everything,
        };
        let rows: Vec<Refusal> = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| refused(text))
            .map(|(row, text)| Refusal { row, detail: text.clone() })
            // One a round when everything is refused, so that rounds have no end.
            .take(if self.refuse_everything { 1 } else { usize::MAX })
            .collect();
        Ok((!rows.is_empty()).then_some(rows))
    }
}

fn texts(batch: &StagedBatch) -> impl Iterator<Item = String> + '_ {
    let column = batch.rows.column(0).as_any().downcast_ref::<StringArray>().unwrap();
    column.iter().map(|text| text.unwrap().to_owned())
}

pub(crate) struct FakeDestination {
    pub(crate) world: Arc<World>,
    pub(crate) life: u64,
}

#[async_trait]
impl Destination for FakeDestination {
    async fn prepare(&mut self) -> Result<(), Failure> {
        self.world.step(self.life).await;
        Ok(())
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        self.world.step(self.life).await;
        let taken = {
            let destination = &mut self.world.lock().destination;
            match destination.commit {
                Commit::Lands => drop(destination.deliver_late()),
                Commit::Defeated => destination.delayed.clear(),
                Commit::Late => {}
            }
            destination.forget_unflushed();
            if let Some(cursor) = &mut destination.cursor {
                assert_eq!(cursor.key, *key);
                cursor.epoch = cursor.epoch.max(epoch_floor) + 1;
                let epoch = cursor.epoch;
                destination.epochs.push(epoch);
            }
            destination.cursor.clone()
        };
        self.world.changed.notify_waiters();
        self.world.step(self.life).await;
        Ok(taken)
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        self.world.step(self.life).await;
        {
            let destination = &mut self.world.lock().destination;
            if destination.cursor.is_some() {
                return Err(Failure::new(FailureKind::Fenced, "there is a cursor already"));
            }
            destination.cursor = Some(cursor.clone());
        }
        self.world.step(self.life).await;
        Ok(())
    }

    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure> {
        self.world.step(self.life).await;
        let fault = {
            let destination = &mut self.world.lock().destination;
            destination.writes += 1;
            let fault = destination.faults.remove(&destination.writes);
            destination.slow |= matches!(fault, Some(Fault::Slow | Fault::SlowAndLost));
            fault
        };
        self.world.changed.notify_waiters();
        if matches!(fault, Some(Fault::Slow | Fault::SlowAndLost)) {
            self.world.eventually(|state| state.destination.released).await;
        }
        let outcome = self.commit(batch, fault);
        self.world.changed.notify_waiters();
        self.world.step(self.life).await;
        outcome
    }

    async fn rehearse(&mut self, batch: &StagedBatch) -> Result<Option<Outcome>, Failure> {
        self.world.step(self.life).await;
        let destination = &self.world.lock().destination;
        if !destination.can_rehearse {
            return Ok(None);
        }
        Ok(Some(match destination.verdict(batch, self.life)? {
            Some(rows) => Outcome::Refused { rows },
            None => Outcome::Written { durability: Durability::Durable, cursor: batch.to.clone() },
        }))
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.world.step(self.life).await;
        self.world.lock().destination.unflushed = None;
        self.world.changed.notify_waiters();
        self.world.step(self.life).await;
        Ok(())
    }
}

impl FakeDestination {
    fn commit(&self, batch: &StagedBatch, fault: Option<Fault>) -> Result<Outcome, Failure> {
        let destination = &mut self.world.lock().destination;
        let unknown = || Err(Failure::new(FailureKind::Unknown, "the connection is gone"));
        if let Some(rows) = destination.verdict(batch, self.life)? {
            destination.refused_batches += 1;
            return Ok(Outcome::Refused { rows });
        }
        match fault {
            Some(Fault::FailBeforeCommit | Fault::SlowAndLost) => return unknown(),
            Some(Fault::Contention) => {
                return Err(Failure::new(FailureKind::Contention, "database is locked"));
            }
            Some(Fault::Delay) => {
                destination.delayed.push(batch.clone());
                return unknown();
            }
            Some(Fault::FailAfterCommit | Fault::Slow) | None => {}
        }
        let before = (destination.rows.len(), destination.cursor.clone());
        destination.commit(batch)?;
        if fault == Some(Fault::FailAfterCommit) {
            return unknown();
        }
        let mut durability = Durability::Durable;
        if destination.accepts {
            destination.unflushed = Some(Box::new(before));
            durability = Durability::Accepted;
        }
        let cursor = destination.cursor.clone().unwrap();
        Ok(Outcome::Written { durability, cursor })
    }
}

/// A stream as the destination; the world learns which cursor it holds.
pub(crate) struct Noted {
    pub(crate) world: Arc<World>,
    pub(crate) inner: garam_flow::StreamDestination,
}

impl Noted {
    fn note(&self, cursor: &Cursor) {
        self.world.lock().destination.cursor = Some(cursor.clone());
        self.world.changed.notify_waiters();
    }
}

#[async_trait]
impl Destination for Noted {
    async fn prepare(&mut self) -> Result<(), Failure> {
        self.inner.prepare().await
    }

    async fn take_over(&mut self, key: &CursorKey, floor: u64) -> Result<Option<Cursor>, Failure> {
        let found = self.inner.take_over(key, floor).await?;
        if let Some(cursor) = &found {
            self.note(cursor);
        }
        Ok(found)
    }

    fn admits(&self, cursor: &Cursor, plan: PlanId) -> Result<(), Failure> {
        self.inner.admits(cursor, plan)
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        self.inner.begin(cursor).await?;
        self.note(cursor);
        Ok(())
    }

    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure> {
        let outcome = self.inner.write(batch).await?;
        if let Outcome::Written { cursor, .. } = &outcome {
            self.note(cursor);
        }
        Ok(outcome)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.inner.flush().await
    }
}
