//! From prepared batches to the cursor: put aside what is bad, write the rest, one write at a time, in order.
//!
//! In: prepared batches. Out: rows and cursor in the destination. Promise: a record that a write passes is in that write,
//! or durable in the quarantine before it, or dropped by the plan and counted; the counters are checked to balance before
//! each write. A write whose outcome is unknown ends the loop with [`Halt::TakeOver`]: the engine begins again from what
//! the destination holds. Refused rows are put aside and the range is offered again without them.
//! Not here: finding the record behind a failure that names none (`isolate`).

use garam_proto::LogOffset;
use garam_stage::quarantine::WHOLE_BLOCK;
use garam_stage::{
    Cursor, Destination, Durability, Failure, FailureKind, Outcome, QuarantineReason,
    QuarantinedRecord, RecordRef, Refined, Refusal, StagedBatch,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::binding::Binding;
use crate::decode::{Content, Piece};
use crate::engine::Context;
use crate::error::FlowError;
use crate::quarantine::{Exhibit, Quarantine};
use crate::staging::{Prepared, stage, without};
use crate::tally::tally;

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

/// The longest explanation kept with a record, in bytes.
const DETAIL_MAX: usize = 512;

/// The one writer of a cursor.
pub(crate) struct Deliverer<'a> {
    pub(crate) context: &'a Context,
    pub(crate) destination: &'a mut dyn Destination,
    quarantine: Quarantine,
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

    async fn put_aside_bad(&mut self, pieces: &[Piece], refined: &Refined) -> Result<(), Halt> {
        let mut exhibits = Vec::new();
        for piece in pieces {
            if let Content::Undecodable(whole) = &piece.content
                && !self.fresh.masks_block(piece.offset)
            {
                let reason = QuarantineReason::Undecodable;
                exhibits.push(self.exhibit(pieces, piece.at(WHOLE_BLOCK), reason, &whole.why)?);
            }
        }
        for bad in &refined.bad {
            exhibits.push(self.exhibit(pieces, bad.at, bad.reason, &bad.detail)?);
        }
        self.put_aside(exhibits).await
    }

    async fn put_aside_refused(
        &mut self,
        pieces: &[Piece],
        refused: &Refined,
        refusals: &[Refusal],
    ) -> Result<(), Halt> {
        if refusals.is_empty() {
            return Err(broken("it refused a batch without naming a row"));
        }
        let mut exhibits = Vec::new();
        for Refusal { row, detail } in refusals {
            let Some(&at) = refused.sources.get(*row) else {
                return Err(broken("it refused a row that was not in the batch"));
            };
            exhibits.push(self.exhibit(pieces, at, QuarantineReason::Refused, detail)?);
        }
        self.put_aside(exhibits).await
    }

    /// Durable in the quarantine, once each, in log order; masked from here on.
    pub(crate) async fn put_aside(&mut self, mut exhibits: Vec<Exhibit>) -> Result<(), Halt> {
        exhibits.sort_by_key(|exhibit| exhibit.record.at());
        exhibits.dedup_by_key(|exhibit| exhibit.record.at());
        if exhibits.is_empty() {
            return Ok(());
        }
        self.quarantine.put(&exhibits).await?;
        exhibits.iter().for_each(|exhibit| self.fresh.add(exhibit.record.at()));
        tracing::debug!(input = %self.context.config.input, records = exhibits.len(), "put aside");
        Ok(())
    }

    /// Writes and settles. `Some`: refused, with the rows handed back.
    async fn write(
        &mut self,
        staged: Refined,
        to: Cursor,
    ) -> Result<Option<(Refined, Vec<Refusal>)>, Halt> {
        check_balance(&to)?;
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
        check_stored(offered, &stored)?;
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
            counters: tally(&self.ahead.counters, pieces, staged, &self.fresh),
            ..self.stored.clone()
        }
    }

    /// A record with everything that is needed to show it, export it and requeue it.
    pub(crate) fn exhibit(
        &self,
        pieces: &[Piece],
        at: RecordRef,
        reason: QuarantineReason,
        detail: &str,
    ) -> Result<Exhibit, FlowError> {
        let unknown = || FlowError::Refiner { why: format!("it names unknown record {at:?}") };
        let index = pieces.binary_search_by_key(&at.offset, |piece| piece.offset);
        let piece = index.ok().and_then(|index| pieces.get(index)).ok_or_else(unknown)?;
        let (header, provenance, bytes, position, records) = match &piece.content {
            Content::Block(block) => {
                let index = block.records.binary_search_by_key(&at.index, |record| record.index);
                let record = index.ok().and_then(|index| block.records.get(index));
                let record = record.ok_or_else(unknown)?;
                (&block.header, &block.provenance, &record.bytes, record.position, 1)
            }
            Content::Undecodable(whole) => {
                let position = whole.header.from;
                (&whole.header, &whole.provenance, &whole.payload, position, whole.records)
            }
            Content::Quiet => return Err(unknown()),
        };
        let input = &self.context.config.input;
        let record = QuarantinedRecord {
            stream: input.stream.clone(),
            partition: input.index,
            incarnation: self.stored.incarnation,
            offset: at.offset.0,
            index: at.index,
            reason,
            detail: cut(detail).into(),
            records,
            origin: header.origin,
            position,
            source_epoch: provenance.source_epoch,
            ingest_time_us: header.ingest_time_us,
            host: provenance.host.clone(),
            path: provenance.path.clone(),
            time_us: (self.context.hooks.now_us)(),
            bytes_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        Ok(Exhibit { record, bytes: bytes.clone() })
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

impl Piece {
    fn at(&self, index: u32) -> RecordRef {
        RecordRef { offset: self.offset, index }
    }
}

fn broken(why: &str) -> Halt {
    FlowError::Destination { why: why.into() }.into()
}

fn check_balance(cursor: &Cursor) -> Result<(), FlowError> {
    let counters = &cursor.counters;
    if counters.balanced() {
        return Ok(());
    }
    Err(FlowError::Unbalanced {
        next: cursor.next,
        records_in: counters.records_in,
        delivered: counters.delivered,
        quarantined: counters.quarantined,
        dropped: counters.dropped_total(),
    })
}

/// A destination may move records from delivered to dropped, nothing else.
fn check_stored(offered: &Cursor, stored: &Cursor) -> Result<(), FlowError> {
    let counters = stored.counters.clone();
    let expected = Cursor { counters, ..offered.clone() };
    let (theirs, ours) = (&stored.counters, &offered.counters);
    let same_sums = (theirs.records_in, theirs.quarantined, theirs.gap_units, theirs.gaps)
        == (ours.records_in, ours.quarantined, ours.gap_units, ours.gaps);
    if expected == *stored && same_sums && theirs.balanced() {
        return Ok(());
    }
    let why = format!("it was offered {offered:?} and says it stored {stored:?}");
    Err(FlowError::Destination { why })
}

fn cut(detail: &str) -> &str {
    let mut end = detail.len().min(DETAIL_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.get(..end).unwrap_or_default()
}
