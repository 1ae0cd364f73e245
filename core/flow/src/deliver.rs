//! From prepared batches to the cursor: put aside what is bad, write the rest, one write at a time, in order.
//!
//! In: prepared batches. Out: rows and cursor in the destination. Promise: a record that a write passes is in that write,
//! or durable in the quarantine before it, or dropped by the plan and counted; the counters are checked to balance before
//! each write. A write whose outcome is unknown ends the loop with [`Halt::TakeOver`]: the engine begins again from what
//! the destination holds. Refused rows are put aside and the range is offered again without them.
//! Not here: how a record is put aside (`aside`), finding the record behind a failure that names none (`isolate`).

use garam_proto::LogOffset;
use garam_stage::{
    Cursor, Destination, Durability, Failure, FailureKind, Outcome, Refined, Refusal, StagedBatch,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::binding::Binding;
use crate::decode::{Content, Piece};
use crate::engine::Context;
use crate::error::FlowError;
use crate::quarantine::Quarantine;
use crate::staging::{Prepared, stage, without};
use crate::tally;

/// Why delivery does not go on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The outcome of the write of `[from, to)` is unknown, or it lost against another transaction.
    TakeOver {
        from: LogOffset,
        to: LogOffset,
        why: Failure,
    },
    /// A write failed for its content, and nothing was committed: somebody may look for the record.
    Content(Failure),
    Failure(Failure),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<FlowError> for Halt {
    fn from(error: FlowError) -> Self {
        Self::Failure(error.into())
    }
}

/// The attempt that takes a range apart instead of offering it whole.
const ISOLATING_ATTEMPT: u32 = 3;

/// The one writer of a cursor.
pub(crate) struct Deliverer<'a> {
    pub(crate) context: &'a Context,
    pub(crate) destination: &'a mut dyn Destination,
    pub(crate) quarantine: Quarantine,
    /// Put aside since the cursor moved last.
    pub(crate) fresh: Binding,
    /// What the destination holds.
    pub(crate) stored: Cursor,
    /// Ahead of `stored` by entries without records.
    ahead: Cursor,
    /// Failures that a record can cause, counted durably for the range that begins at `stored.next`.
    attempts: u32,
    written_at: Instant,
    remembered: (LogOffset, Instant),
}

impl<'a> Deliverer<'a> {
    /// The cursor must be remembered already.
    pub(crate) async fn new(
        context: &'a Context,
        destination: &'a mut dyn Destination,
        quarantine: Quarantine,
        cursor: Cursor,
    ) -> Result<Self, Failure> {
        let attempts = context.memory.attempts(&cursor.key, cursor.next).await?;
        let now = Instant::now();
        Ok(Self {
            context,
            destination,
            quarantine,
            fresh: Binding::default(),
            remembered: (cursor.next, now),
            ahead: cursor.clone(),
            stored: cursor,
            attempts,
            written_at: now,
        })
    }

    /// Delivers until the batches end, then brings cursor and memory up to date.
    pub(crate) async fn run(
        mut self,
        mut batches: mpsc::Receiver<Result<Prepared, Failure>>,
    ) -> Result<Cursor, Halt> {
        let mut tick = interval(self.context.config.limits.idle_cursor);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let failed = loop {
            tokio::select! {
                biased;
                batch = batches.recv() => match batch {
                    Some(Ok(batch)) => self.deliver(batch).await?,
                    Some(Err(failure)) => break Some(failure),
                    None => break None,
                },
                _ = tick.tick() => self.idle(batches.is_empty()).await?,
            }
        };
        self.store_ahead().await?;
        if let Some(failure) = failed {
            return Err(failure.into());
        }
        self.flush().await?;
        if self.remembered.0 != self.stored.next {
            self.remember().await?;
        }
        Ok(self.stored)
    }

    async fn deliver(&mut self, batch: Prepared) -> Result<(), Halt> {
        let Prepared { pieces, mut refined, permit: _held } = batch;
        if pieces.iter().all(|piece| piece.records_in == 0) {
            return self.pass(&pieces).await;
        }
        if let Ok(refined) = &refined {
            self.check_share(refined)?;
        }
        while self.attempts + 1 < ISOLATING_ATTEMPT {
            let offered = match refined {
                Ok(refined) => self.offer(&pieces, refined).await,
                Err(failure) if failure.kind == FailureKind::Data => Err(Halt::Content(failure)),
                Err(failure) => Err(failure.into()),
            };
            match offered {
                Err(Halt::Content(failure)) => self.count_attempt(&failure).await?,
                other => return other,
            }
            refined = stage(self.context, &pieces, &self.fresh).await;
        }
        self.isolate(&pieces).await
    }

    /// When most of a batch is bad, the contract is: better one error than a quarantine full of it.
    fn check_share(&self, refined: &Refined) -> Result<(), FlowError> {
        let (limits, Some(first)) = (&self.context.config.limits, refined.bad.first()) else {
            return Ok(());
        };
        let bad = refined.bad.len() as u64;
        let records = bad + refined.sources.len() as u64 + refined.dropped.len() as u64;
        if bad < limits.max_bad_from || bad as f64 <= records as f64 * limits.max_bad_share {
            return Ok(());
        }
        Err(FlowError::Systemic {
            partition: self.context.config.input.clone(),
            next: self.stored.next,
            bad,
            records,
            reason: first.reason.name(),
            detail: first.detail.clone(),
        })
    }

    /// Entries without records: the cursor runs ahead in memory and is written now and then.
    async fn pass(&mut self, pieces: &[Piece]) -> Result<(), Halt> {
        let nothing = self.nothing();
        self.ahead = self.cursor_behind(pieces, &nothing);
        self.context.hooks.progress.beat();
        if self.written_at.elapsed() >= self.context.config.limits.idle_cursor {
            self.store_ahead().await?;
        }
        Ok(())
    }

    async fn idle(&mut self, nothing_waits: bool) -> Result<(), Halt> {
        if self.written_at.elapsed() >= self.context.config.limits.idle_cursor {
            self.store_ahead().await?;
        }
        let hooks = &self.context.hooks;
        if let Ok(bounds) = self.context.log.bounds(&self.context.config.input) {
            hooks.stats.end_is(bounds.end);
        }
        if let Some(waiting) = hooks.stats.waiting().filter(|_| nothing_waits) {
            hooks.progress.waiting(waiting);
        }
        Ok(())
    }

    /// Writes the cursor alone, if it moved.
    async fn store_ahead(&mut self) -> Result<(), Halt> {
        if self.ahead.next == self.stored.next {
            return Ok(());
        }
        let nothing = self.nothing();
        let to = self.cursor_behind(&[], &nothing);
        match self.write(nothing, to).await? {
            None => Ok(()),
            Some(_) => Err(broken("it refused a row of an empty batch")),
        }
    }

    /// Offers a range: bad records first into the quarantine, then the rows, again without those that are refused.
    pub(crate) async fn offer(&mut self, pieces: &[Piece], refined: Refined) -> Result<(), Halt> {
        let began = Instant::now();
        let limits = &self.context.config.limits;
        self.put_aside_bad(pieces, &refined).await?;
        let mut staged = refined;
        for round in 0..=limits.refused_rounds {
            let to = self.cursor_behind(pieces, &staged);
            let Some((batch, refusals)) = self.write(staged, to).await? else {
                self.note_delivered(pieces, began);
                return Ok(());
            };
            if round == limits.refused_rounds {
                break;
            }
            self.put_aside_refused(pieces, &batch, &refusals).await?;
            staged = without(batch, &self.fresh)?;
        }
        let (next, rounds) = (self.stored.next, limits.refused_rounds);
        Err(FlowError::RefusedAgain { next, rounds }.into())
    }

    /// Writes and settles. `Some`: refused, with the rows handed back.
    async fn write(
        &mut self,
        staged: Refined,
        to: Cursor,
    ) -> Result<Option<(Refined, Vec<Refusal>)>, Halt> {
        tally::check_balance(&to)?;
        let Refined { rows, sources, bad, dropped } = staged;
        let batch = StagedBatch { rows, sources, from: self.stored.clone(), to };
        match self.destination.write(&batch).await {
            Ok(Outcome::Written { durability, cursor }) => {
                if durability == Durability::Accepted {
                    self.flush_at(batch.to.next).await?;
                }
                self.settle(&batch.to, cursor).await?;
                Ok(None)
            }
            Ok(Outcome::Refused { rows: refusals }) => {
                let StagedBatch { rows, sources, .. } = batch;
                Ok(Some((Refined { rows, sources, bad, dropped }, refusals)))
            }
            Err(failure) => Err(self.halt(failure, batch.to.next)),
        }
    }

    /// The destination holds this cursor durably.
    async fn settle(&mut self, offered: &Cursor, stored: Cursor) -> Result<(), Failure> {
        tally::check_stored(offered, &stored)?;
        let Context { config, log, memory, hooks, .. } = self.context;
        self.fresh.forget_below(stored.next);
        self.quarantine.passed(&stored);
        self.ahead = stored.clone();
        self.stored = stored;
        self.written_at = Instant::now();
        log.pin(&config.input, &config.reader_name(), self.stored.next);
        let end = log.bounds(&config.input).map_or(self.stored.next, |bounds| bounds.end);
        hooks.stats.stands(&self.stored, end);
        hooks.progress.beat();
        if self.attempts > 0 {
            memory.clear_attempts(&self.stored.key).await?;
            self.attempts = 0;
        }
        if self.remembered.1.elapsed() >= config.limits.idle_cursor {
            self.remember().await?;
        }
        Ok(())
    }

    async fn remember(&mut self) -> Result<(), Failure> {
        self.context.memory.remember(&self.stored.key, self.stored.next).await?;
        self.remembered = (self.stored.next, Instant::now());
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Halt> {
        self.flush_at(self.stored.next).await
    }

    async fn flush_at(&mut self, to: LogOffset) -> Result<(), Halt> {
        match self.destination.flush().await {
            Err(failure) if failure.kind == FailureKind::Data => Err(failure.into()),
            flushed => flushed.map_err(|failure| self.halt(failure, to)),
        }
    }

    /// Durable before anything is tried again.
    pub(crate) async fn count_attempt(&mut self, failure: &Failure) -> Result<(), Failure> {
        let Cursor { key, next, .. } = &self.stored;
        self.attempts = self.context.memory.count_attempt(key, *next).await?;
        self.context.hooks.stats.attempted(failure);
        let (input, attempt) = (&self.context.config.input, self.attempts);
        tracing::warn!(%input, from = %next, attempt, error = %failure, "cannot deliver batch");
        Ok(())
    }

    /// The cursor behind `pieces`, which follow `ahead`.
    pub(crate) fn cursor_behind(&self, pieces: &[Piece], staged: &Refined) -> Cursor {
        let last = pieces.last();
        let next = last.map_or(self.ahead.next, |last| last.offset.next());
        Cursor {
            next,
            fingerprint: last.map_or(self.ahead.fingerprint, |last| last.fingerprint),
            plan: self.context.config.plan,
            quarantine_next: self.quarantine.next_at(next),
            counters: tally::tally(&self.ahead.counters, pieces, staged, &self.fresh),
            ..self.stored.clone()
        }
    }

    /// What a failed write up to `to` means.
    pub(crate) fn halt(&self, failure: Failure, to: LogOffset) -> Halt {
        match failure.kind {
            FailureKind::Unknown | FailureKind::Contention => {
                Halt::TakeOver { from: self.stored.next, to, why: failure }
            }
            FailureKind::Data => Halt::Content(failure),
            _ => Halt::Failure(failure),
        }
    }

    fn note_delivered(&self, pieces: &[Piece], began: Instant) {
        let ingest = |piece: &Piece| match &piece.content {
            Content::Block(block) => Some(block.header.ingest_time_us),
            Content::Quiet | Content::Undecodable(_) => None,
        };
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.context.hooks.stats.delivered(took, pieces.iter().filter_map(ingest).max());
        let (input, next) = (&self.context.config.input, self.stored.next);
        tracing::debug!(%input, %next, entries = pieces.len(), took_ms = took, "delivered");
    }

    fn nothing(&self) -> Refined {
        let rows = arrow_array::RecordBatch::new_empty(self.context.refiner.schema());
        Refined { rows, sources: Vec::new(), bad: Vec::new(), dropped: Vec::new() }
    }
}

/// The destination did not do what its trait says.
pub(crate) fn broken(why: &str) -> Halt {
    FlowError::Destination { why: why.into() }.into()
}
