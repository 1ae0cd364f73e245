//! Whether the shards may go on from where they stand. Pure.
//!
//! In: the pipeline's cursor and each shard's. Out: a failure that names the shard and the operator's choices, or nothing.
//! The pipeline's cursor is committed last, so after a crash a shard stands at it or beyond it, up to the end of one batch. A shard
//! that stands before it, or has no cursor, was put back by somebody. What a shard has beyond must be finished by the same plan.

use garam_proto::LogOffset;
use garam_stage::{Cursor, Failure, FailureKind, PlanId, StagedBatch};

/// An operator moves the cursors back, or they are brought into a new life of the log: every shard goes to the same place.
pub(super) fn is_reset(batch: &StagedBatch) -> bool {
    let (from, to) = (&batch.from, &batch.to);
    to.next < from.next || to.incarnation != from.incarnation
}

/// Whether a shard may take its part of a batch.
pub(super) fn check(shard: &str, stored: &Cursor, batch: &StagedBatch) -> Result<(), Failure> {
    let (from, to) = (&batch.from, &batch.to);
    if stored.incarnation != from.incarnation || stored.next < from.next {
        let (at, next) = (stored.next, from.next);
        let text = format!(
            "shard {shard} stands at offset {at} and the pipeline at {next}: the shard was put back to an older state; nothing \
             was changed: restore the newer one, or deliver again with `garam replay PIPELINE --from {at} --force`"
        );
        return Err(Failure::new(FailureKind::Cursor, text));
    }
    if is_gap(batch) { Ok(()) } else { check_plan(shard, stored, from.next, to.plan) }
}

/// Whether a plan may go on with what lies behind the pipeline's cursor.
pub(super) fn check_plan(
    shard: &str,
    stored: &Cursor,
    next: LogOffset,
    plan: PlanId,
) -> Result<(), Failure> {
    if stored.next > next && stored.plan != plan {
        let end = stored.next;
        let text = format!(
            "the batch from offset {next} on was cut short when the core ended: up to {end} its rows are in shard {shard} \
             already, made by plan {:016x}, and the plan is {:016x} now; nothing was changed: put the old definition back until \
             the pipeline has passed offset {end}, or deliver it again by the new plan, from an offset below {next}, with `garam replay PIPELINE --from OFFSET --force`",
            stored.plan.0, plan.0
        );
        return Err(Failure::new(FailureKind::Cursor, text));
    }
    Ok(())
}

/// Of a shard without a cursor while the pipeline has one.
pub(super) fn missing(shard: &str) -> Failure {
    let text = format!(
        "shard {shard} has no cursor of this pipeline, and the pipeline has one: nothing was changed: restore the shard, or \
         deliver again with `garam replay PIPELINE --from 0 --force`"
    );
    Failure::new(FailureKind::Cursor, text)
}

/// Of a cursor that another slot map placed.
pub(super) fn other_map(shard: &str, found: u32, own: u32) -> Failure {
    let text = format!(
        "the rows of shard {shard} were placed by slot map {found}, and this core has slot map {own}: nothing was changed: \
         let the core with the newer metadata write it"
    );
    Failure::new(FailureKind::Fenced, text)
}

/// Nothing is delivered, and what lies between is given up.
fn is_gap(batch: &StagedBatch) -> bool {
    let (from, to) = (&batch.from.counters, &batch.to.counters);
    from.delivered == to.delivered && from.dropped == to.dropped && to.gaps > from.gaps
}
