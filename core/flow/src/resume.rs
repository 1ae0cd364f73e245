//! What an operator may choose for a cursor that does not fit its log, and the carrying out of it.
//!
//! In: where cursor and log stand ([`Standing`]), a choice. Out: a [`Decision`], for whoever keeps it durably; later, at the
//! flow's start, the cursor it leads to. Promise: a decision is carried out once, on the very cursor it was made for, in one
//! step of the destination; a decision that no longer matches changes nothing. The books stay balanced: what is met again
//! and lies in the quarantine is counted when it is met, what is given up is counted as a gap, what of it was put aside
//! already also as that. A flow that the log went on
//! without (`on_full = "detach"`) takes the gap unasked: the configuration is the operator's answer.
//! Not here: asking the operator and keeping the answer (the command line, `meta`).

use arrow_array::RecordBatch;
use garam_log::{Bounds, EntryBody};
use garam_proto::{Incarnation, LogOffset, PartitionId};
use garam_stage::{
    Choice, Counters, Cursor, Decision, Destination, Durability, Failure, Outcome,
    QuarantinedRecord, StagedBatch,
};

use crate::engine::Context;
use crate::error::FlowError;
use crate::lives::Lives;
use crate::quarantine::{names, quarantine_origin, quarantine_stream};
use crate::start::{bounds, fingerprint};

/// A cursor beside its log.
#[derive(Debug, Clone)]
pub struct Standing {
    /// `None`: the destination has none.
    pub stored: Option<(Incarnation, LogOffset)>,
    /// The last cursor the core has seen.
    pub remembered: Option<LogOffset>,
    pub log: Bounds,
    /// Up to where the log shares the cursor's life, when that is an earlier one of this log.
    pub branch: Option<LogOffset>,
}

/// Why a choice leads nowhere; texts for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "entries {from} to {to} are gone from the log: going back does not bring them; choose --accept-gap"
    )]
    Gone { from: LogOffset, to: LogOffset },
    #[error(
        "the destination has no cursor and the log begins at {start}: choose --rebase if its rows are there, or --accept-gap"
    )]
    LostAndGone { start: LogOffset },
    #[error("offset {at} is outside the log, [{start}, {end}]: choose --rewind or --accept-gap")]
    NoSuchPlace { at: LogOffset, start: LogOffset, end: LogOffset },
    #[error("nothing was ever delivered: there is no cursor to re-base")]
    NothingRemembered,
    #[error("the log still holds everything: choose --rewind")]
    NothingGone,
}

impl Standing {
    /// Where a choice leads.
    pub fn decide(&self, choice: Choice) -> Result<Decision, Unfit> {
        let Bounds { incarnation, start, end } = self.log;
        let own = self.stored.filter(|(life, _)| *life == incarnation || self.branch.is_some());
        let (to, gap_from) = match (choice, self.stored, own) {
            (Choice::Rewind, Some(_), Some((_, next))) if next < start => {
                return Err(Unfit::Gone { from: next, to: start });
            }
            (Choice::Rewind, None, _) if start > LogOffset::ZERO => {
                return Err(Unfit::LostAndGone { start });
            }
            (Choice::Rewind, ..) => (start, None),
            (Choice::Rebase, stored, _) => {
                let at = stored.map(|(_, next)| next).or(self.remembered);
                let at = at.ok_or(Unfit::NothingRemembered)?;
                if at < start || at > end {
                    return Err(Unfit::NoSuchPlace { at, start, end });
                }
                (at, None)
            }
            (Choice::AcceptGap, Some(_), Some((_, next))) if next < start => (start, Some(next)),
            // What was delivered of the log as it is now is known up to the branch, if at all.
            (Choice::AcceptGap, Some(_), _) => {
                (end, Some(self.branch.unwrap_or(start).clamp(start, end)))
            }
            (Choice::AcceptGap, None, _) if start == LogOffset::ZERO => {
                return Err(Unfit::NothingGone);
            }
            (Choice::AcceptGap, None, _) => (start, Some(LogOffset::ZERO)),
        };
        Ok(Decision { choice, stored: self.stored, incarnation, to, gap_from })
    }
}

/// Moves the cursor where the operator decided. `None`: nothing was decided, or it was for another cursor or log.
pub(crate) async fn carry_out(
    context: &Context,
    destination: &mut dyn Destination,
    stored: Option<&Cursor>,
    epoch_floor: u64,
) -> Result<Option<Cursor>, Failure> {
    let (config, memory) = (&context.config, &context.memory);
    let key = config.key();
    let Some(decision) = memory.decision(&key).await? else { return Ok(None) };
    let Decision { choice, to, .. } = decision;
    let (pipeline, input) = (config.pipeline, &config.input);
    if !still_holds(context, &decision, stored)? {
        tracing::warn!(%pipeline, %input, choice = choice.name(), %to,
            "a decision was made for another cursor or log: it is void, decide again");
        memory.forget_decision(&key).await?;
        return Ok(None);
    }
    let cursor = move_cursor(context, destination, stored, epoch_floor, decision).await?;
    memory.forget_decision(&key).await?;
    Ok(Some(cursor))
}

/// The step that a cursor takes over what the log gave up when it went on without this flow. `None`: that is not why the
/// cursor does not fit.
pub(crate) fn over_the_gap(
    context: &Context,
    stored: &Cursor,
) -> Result<Option<Decision>, Failure> {
    let (log, config) = (&context.log, &context.config);
    let Some(stood) = log.detached(&config.input, &config.reader_name()) else { return Ok(None) };
    let life = Lives::of(&**log, &config.input)?.find(stored.incarnation);
    let known = life.is_some_and(|(_, shared)| stored.next <= shared);
    let Bounds { incarnation, start, .. } = bounds(context)?;
    // A cursor before the place where it stood was moved by somebody else.
    if !known || stored.next < stood || stored.next >= start {
        return Ok(None);
    }
    Ok(Some(Decision {
        choice: Choice::AcceptGap,
        stored: Some((stored.incarnation, stored.next)),
        incarnation,
        to: start,
        gap_from: Some(stored.next),
    }))
}

/// Writes the cursor that a decision leads to.
pub(crate) async fn move_cursor(
    context: &Context,
    destination: &mut dyn Destination,
    stored: Option<&Cursor>,
    epoch_floor: u64,
    decision: Decision,
) -> Result<Cursor, Failure> {
    let config = &context.config;
    let Decision { choice, to, gap_from, .. } = decision;
    let (key, pipeline, input) = (config.key(), config.pipeline, &config.input);
    context.log.pin(input, &config.reader_name(), to);
    let counters = counters(context, &decision, stored).await?;
    let before = stored.map(|cursor| cursor.counters.clone()).unwrap_or_default();
    let cursor = Cursor {
        key: key.clone(),
        incarnation: decision.incarnation,
        next: to,
        fingerprint: fingerprint(context, to).await?,
        epoch: stored.map_or(epoch_floor + 1, |cursor| cursor.epoch),
        plan: config.plan,
        slot_map_epoch: stored.map_or(0, |cursor| cursor.slot_map_epoch),
        // Read from its start: what binds is told by life and offset.
        quarantine_next: LogOffset::ZERO,
        counters,
    };
    let cursor = match stored {
        Some(from) => store(context, destination, from, cursor).await?,
        None => {
            destination.begin(&cursor).await?;
            cursor
        }
    };
    let from = stored.map(|cursor| cursor.next.to_string());
    tracing::warn!(
        %pipeline, %input, choice = choice.name(), from = from.as_deref().unwrap_or("none"), %to,
        gap_from = gap_from.map(|from| from.to_string()),
        gap_units = cursor.counters.gap_units - before.gap_units,
        counted_again = before.quarantined.saturating_sub(cursor.counters.quarantined),
        "the cursor was moved"
    );
    Ok(cursor)
}

/// Writes a cursor that this writer owns, without rows.
pub(crate) async fn store(
    context: &Context,
    destination: &mut dyn Destination,
    from: &Cursor,
    to: Cursor,
) -> Result<Cursor, Failure> {
    let rows = RecordBatch::new_empty(context.refiner.schema());
    let batch = StagedBatch { rows, sources: Vec::new(), from: from.clone(), to };
    match destination.write(&batch).await? {
        Outcome::Written { durability, cursor } => {
            if durability == Durability::Accepted {
                destination.flush().await?;
            }
            crate::tally::check_stored(&batch.to, &cursor)?;
            Ok(cursor)
        }
        Outcome::Refused { .. } => {
            let why = "it refused a row of an empty batch".into();
            Err(FlowError::Destination { why }.into())
        }
    }
}

fn still_holds(
    context: &Context,
    decision: &Decision,
    stored: Option<&Cursor>,
) -> Result<bool, Failure> {
    let Bounds { incarnation, start, end } = bounds(context)?;
    let seen = stored.map(|cursor| (cursor.incarnation, cursor.next));
    let in_log = start <= decision.to && decision.to <= end;
    Ok(decision.stored == seen && decision.incarnation == incarnation && in_log)
}

async fn counters(
    context: &Context,
    decision: &Decision,
    stored: Option<&Cursor>,
) -> Result<Counters, Failure> {
    let mut counters = stored.map(|cursor| cursor.counters.clone()).unwrap_or_default();
    match (decision.choice, decision.gap_from) {
        (Choice::Rewind, _) => {
            let passed =
                put_aside(context, |lives, record| !lives.binds(record, decision.to)).await?;
            let again = counters.quarantined.saturating_sub(passed);
            counters.quarantined -= again;
            counters.records_in -= again;
        }
        (_, Some(from)) => {
            count_gap(context, &mut counters, from, decision.to).await?;
            let inside = |lives: &Lives, record: &QuarantinedRecord| {
                lives.binds(record, from) && !lives.binds(record, decision.to)
            };
            let aside = put_aside(context, inside).await?;
            counters.quarantined += aside;
            counters.records_in += aside;
        }
        (_, None) => {}
    }
    Ok(counters)
}

/// How many records of this input lie in the quarantine and are such as are asked for.
async fn put_aside(
    context: &Context,
    is_asked_for: impl Fn(&Lives, &QuarantinedRecord) -> bool,
) -> Result<u64, Failure> {
    let config = &context.config;
    let at = PartitionId { stream: quarantine_stream(config.pipeline), index: 0 };
    let origin = quarantine_origin(config.pipeline, config.number());
    let lives = Lives::of(&*context.log, &config.input)?;
    let doing = "read the quarantine";
    let start = context.log.bounds(&at).map_err(FlowError::log(doing))?.start;
    let mut reader = context.log.reader(&at, start).await.map_err(FlowError::log(doing))?;
    let mut found = 0;
    while let Some(entry) = reader.try_next().await.map_err(FlowError::log(doing))? {
        if entry.origin.origin != origin {
            continue;
        }
        let names = names(context, &at, &entry)?;
        let asked_for = names.iter().filter(|record| is_asked_for(&lives, record));
        found += asked_for.map(|record| u64::from(record.records)).sum::<u64>();
        context.hooks.progress.beat();
    }
    Ok(found)
}

/// Counts entries that will not be delivered, in bytes or events; one unit for each that is gone uncounted.
async fn count_gap(
    context: &Context,
    counters: &mut Counters,
    from: LogOffset,
    to: LogOffset,
) -> Result<(), Failure> {
    let doing = "count what is given up";
    let input = &context.config.input;
    let held = from.max(bounds(context)?.start);
    let counted = context.log.given_up(input, &context.config.reader_name(), from);
    let gone = counted.unwrap_or(held.0.saturating_sub(from.0));
    counters.gap_units = counters.gap_units.saturating_add(gone);
    counters.gaps += 1;
    let mut reader = context.log.reader(input, held).await.map_err(FlowError::log(doing))?;
    while reader.position() < to {
        let Some(entry) = reader.try_next().await.map_err(FlowError::log(doing))? else { break };
        let units = match &entry.body {
            EntryBody::Block { header, .. } => header.to.saturating_sub(header.from),
            EntryBody::Gap { from, to, .. } => {
                counters.gaps += 1;
                to.saturating_sub(*from)
            }
            EntryBody::Claim | EntryBody::Advance { .. } | EntryBody::Retire => 0,
        };
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        counters.gap_units = counters.gap_units.saturating_add(units);
        context.hooks.progress.beat();
    }
    Ok(())
}
