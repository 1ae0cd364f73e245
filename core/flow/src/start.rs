//! Where a flow may begin: the cursor rules of the protocol.
//!
//! In: the cursor that the destination holds, what the core remembers, what the log holds. Out: a cursor that this
//! writer owns and that fits the log, with the input pinned there; or a failure that names the operator's choices.
//! Promise: nothing is skipped and nothing repeated by guessing. On any doubt everything the log still holds is pinned
//! and no position is changed. A cursor of an earlier life of the log goes on unasked below the branch.
//! Not here: what a choice (rewind, re-base, accepted gap) leads to (`resume`).

use garam_log::Bounds;
use garam_proto::{Incarnation, LogOffset, PartitionId};
use garam_stage::{Counters, Cursor, Destination, Failure, FailureKind};

use crate::config::Start;
use crate::engine::Context;
use crate::error::FlowError;
use crate::lives::Lives;
use crate::quarantine::quarantine_stream;
use crate::resume;

/// Where the cursor may stand after a write whose outcome is unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsettled {
    pub(crate) from: LogOffset,
    pub(crate) to: LogOffset,
}

/// Takes the cursor over and checks it; stores the first one when there never was any. What an operator decided for it is
/// carried out.
pub(crate) async fn take_position(
    context: &Context,
    destination: &mut dyn Destination,
    epoch_floor: u64,
    unsettled: Option<Unsettled>,
) -> Result<Cursor, Failure> {
    let stored = destination.take_over(&context.config.key(), epoch_floor).await?;
    if let Some(cursor) = &stored
        && let Some(Unsettled { from, to }) = unsettled
        && cursor.next != from
        && cursor.next != to
    {
        return Err(FlowError::Overtaken { from, to, found: cursor.next }.into());
    }
    let position = match &stored {
        Some(cursor) => match fitting(context, destination, cursor).await {
            Ok(cursor) => decided(context, destination, cursor).await,
            refused => refused,
        },
        None => first(context, destination, epoch_floor).await,
    };
    let position = match position {
        Err(refused) => {
            elsewhere(context, destination, stored.as_ref(), epoch_floor, refused).await
        }
        fits => fits,
    };
    if position.is_ok() {
        context.log.rejoin(&context.config.input, &context.config.reader_name());
    }
    position
}

/// Where an operator wants a cursor that fits: further back, to have what lies behind it delivered again.
async fn decided(
    context: &Context,
    destination: &mut dyn Destination,
    cursor: Cursor,
) -> Result<Cursor, Failure> {
    let epoch = cursor.epoch;
    let moved = resume::carry_out(context, destination, Some(&cursor), epoch).await?;
    Ok(moved.unwrap_or(cursor))
}

/// Where a cursor that does not fit is moved to, by an operator or over what the log gave up.
async fn elsewhere(
    context: &Context,
    destination: &mut dyn Destination,
    stored: Option<&Cursor>,
    epoch_floor: u64,
    refused: Failure,
) -> Result<Cursor, Failure> {
    hold_everything(context);
    if refused.kind != FailureKind::Cursor {
        return Err(refused);
    }
    if let Some(cursor) = resume::carry_out(context, destination, stored, epoch_floor).await? {
        return Ok(cursor);
    }
    let Some(cursor) = stored else { return Err(refused) };
    let Some(step) = resume::over_the_gap(context, cursor)? else { return Err(refused) };
    resume::move_cursor(context, destination, stored, epoch_floor, step).await
}

/// The stored cursor, if it fits the log. One of an earlier life is rewritten for this one.
async fn fitting(
    context: &Context,
    destination: &mut dyn Destination,
    cursor: &Cursor,
) -> Result<Cursor, Failure> {
    let at = &context.config.input;
    // Pinned before it is checked, so that a trim in between cannot make the answer untrue.
    context.log.pin(at, &context.config.reader_name(), cursor.next);
    let incarnation = check(context, cursor).await?;
    if incarnation == cursor.incarnation {
        return Ok(cursor.clone());
    }
    let adopted = Cursor { incarnation, ..cursor.clone() };
    let (from, next) = (cursor.incarnation, cursor.next);
    tracing::info!(pipeline = %context.config.pipeline, input = %at, %next, %from, to = %incarnation,
        "the log has begun a new life behind this cursor");
    resume::store(context, destination, cursor, adopted).await
}

/// Gives the log's incarnation.
async fn check(context: &Context, cursor: &Cursor) -> Result<Incarnation, Failure> {
    let Bounds { incarnation, start, end } = bounds(context)?;
    let (partition, next) = (context.config.input.clone(), cursor.next);
    let lives = Lives::of(&*context.log, &partition)?;
    let Some((age, branch)) = lives.find(cursor.incarnation) else {
        let (stored, found) = (cursor.incarnation, incarnation);
        return Err(FlowError::OtherIncarnation { partition, stored, found }.into());
    };
    if next > branch {
        return Err(FlowError::CursorBeyondBranch { partition, next, branch }.into());
    }
    if next < start || next > end {
        return Err(FlowError::CursorOutside { partition, next, start, end }.into());
    }
    let found = fingerprint(context, next).await?;
    if found != cursor.fingerprint {
        let expected = cursor.fingerprint;
        return Err(FlowError::OtherFingerprint { partition, next, expected, found }.into());
    }
    if age > 0 {
        check_quarantine(context, cursor, age, lives.branches())?;
    }
    Ok(incarnation)
}

/// A cursor of an earlier life also needs the quarantine entries that were written before it, and the quarantine may have
/// begun a new life too: what lay behind its branch is gone, however many entries have been written since.
fn check_quarantine(
    context: &Context,
    cursor: &Cursor,
    age: usize,
    branches: usize,
) -> Result<(), Failure> {
    let config = &context.config;
    let partition = PartitionId { stream: quarantine_stream(config.pipeline), index: 0 };
    let doing = "find the quarantine's bounds";
    let ancestors = context.log.ancestors(&partition).map_err(FlowError::log(doing))?;
    // Where it branched more often than the input, nobody knows which branches came after the cursor: all of them count.
    let oldest = age + ancestors.len().saturating_sub(branches);
    let Some(life) = ancestors.get(..oldest.min(ancestors.len())).and_then(<[_]>::last) else {
        return Ok(());
    };
    if cursor.quarantine_next <= life.until {
        return Ok(());
    }
    let start = context.log.bounds(&partition).map_err(FlowError::log(doing))?.start;
    let (next, end) = (cursor.quarantine_next, life.until);
    Err(FlowError::QuarantineOutside { partition, next, start, end }.into())
}

async fn first(
    context: &Context,
    destination: &mut dyn Destination,
    epoch_floor: u64,
) -> Result<Cursor, Failure> {
    let (config, key) = (&context.config, context.config.key());
    hold_everything(context);
    if let Some(remembered) = context.memory.remembered(&key).await? {
        return Err(FlowError::CursorLost { partition: config.input.clone(), remembered }.into());
    }
    let Bounds { incarnation, start, end } = bounds(context)?;
    let next = match config.start {
        Start::Earliest => start,
        Start::Now => end,
    };
    let cursor = Cursor {
        key,
        incarnation,
        next,
        fingerprint: fingerprint(context, next).await?,
        epoch: epoch_floor + 1,
        plan: config.plan,
        slot_map_epoch: 0,
        quarantine_next: LogOffset::ZERO,
        counters: Counters::default(),
    };
    destination.begin(&cursor).await?;
    context.log.pin(&config.input, &config.reader_name(), next);
    tracing::info!(pipeline = %config.pipeline, input = %config.input, %next, "first start");
    Ok(cursor)
}

/// Nothing is trimmed until somebody has decided.
fn hold_everything(context: &Context) {
    let start = || bounds(context).map_or(LogOffset::ZERO, |bounds| bounds.start);
    loop {
        let held = start();
        context.log.pin(&context.config.input, &context.config.reader_name(), held);
        // A pin that came after a trim holds nothing.
        if start() == held {
            return;
        }
    }
}

pub(crate) fn bounds(context: &Context) -> Result<Bounds, Failure> {
    context.log.bounds(&context.config.input).map_err(FlowError::log("find the log's bounds"))
}

pub(crate) async fn fingerprint(context: &Context, next: LogOffset) -> Result<u64, Failure> {
    let found = context.log.fingerprint(&context.config.input, next).await;
    found.map(|found| found.0).map_err(FlowError::log("read the fingerprint before the cursor"))
}
