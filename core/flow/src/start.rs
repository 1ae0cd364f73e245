//! Where a flow may begin: the cursor rules of the protocol.
//!
//! In: the cursor that the destination holds, what the core remembers, what the log holds. Out: a cursor that this
//! writer owns and that fits the log, with the input pinned there; or a failure that names the operator's choices.
//! Promise: nothing is skipped and nothing repeated by guessing. On any doubt everything the log still holds is pinned
//! and no position is changed.
//! Not here: carrying out a choice (rewind, re-base, accepted gap), which is an operator's command.

use garam_log::Bounds;
use garam_proto::LogOffset;
use garam_stage::{Counters, Cursor, CursorKey, Destination, Failure};

use crate::config::Start;
use crate::engine::Context;
use crate::error::FlowError;

/// Where the cursor may stand after a write whose outcome is unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsettled {
    pub(crate) from: LogOffset,
    pub(crate) to: LogOffset,
}

/// Takes the cursor over and checks it; stores the first one when there never was any.
pub(crate) async fn take_position(
    context: &Context,
    destination: &mut dyn Destination,
    epoch_floor: u64,
    unsettled: Option<Unsettled>,
) -> Result<Cursor, Failure> {
    let key = context.config.key();
    let Some(cursor) = destination.take_over(&key, epoch_floor).await? else {
        return first(context, destination, key, epoch_floor).await;
    };
    if let Some(Unsettled { from, to }) = unsettled
        && cursor.next != from
        && cursor.next != to
    {
        return Err(FlowError::Overtaken { from, to, found: cursor.next }.into());
    }
    let checked = check(context, &cursor).await;
    if checked.is_err() {
        hold_everything(context);
    }
    checked.map(|()| cursor)
}

async fn check(context: &Context, cursor: &Cursor) -> Result<(), Failure> {
    let (at, log) = (&context.config.input, &context.log);
    // Pinned before it is checked, so that a trim in between cannot make the answer untrue.
    log.pin(at, &context.config.reader_name(), cursor.next);
    let Bounds { incarnation, start, end } = bounds(context)?;
    let (partition, next) = (at.clone(), cursor.next);
    if cursor.incarnation != incarnation {
        let (stored, found) = (cursor.incarnation, incarnation);
        return Err(FlowError::OtherIncarnation { partition, stored, found }.into());
    }
    if next < start || next > end {
        return Err(FlowError::CursorOutside { partition, next, start, end }.into());
    }
    let found = fingerprint(context, next).await?;
    if found != cursor.fingerprint {
        let expected = cursor.fingerprint;
        return Err(FlowError::OtherFingerprint { partition, next, expected, found }.into());
    }
    Ok(())
}

async fn first(
    context: &Context,
    destination: &mut dyn Destination,
    key: CursorKey,
    epoch_floor: u64,
) -> Result<Cursor, Failure> {
    let config = &context.config;
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
    let start = bounds(context).map_or(LogOffset::ZERO, |bounds| bounds.start);
    context.log.pin(&context.config.input, &context.config.reader_name(), start);
}

fn bounds(context: &Context) -> Result<Bounds, Failure> {
    context.log.bounds(&context.config.input).map_err(FlowError::log("find the log's bounds"))
}

async fn fingerprint(context: &Context, next: LogOffset) -> Result<u64, Failure> {
    let found = context.log.fingerprint(&context.config.input, next).await;
    found.map(|found| found.0).map_err(FlowError::log("read the fingerprint before the cursor"))
}
