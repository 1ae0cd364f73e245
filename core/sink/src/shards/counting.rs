//! What the pipeline's cursor counts, from what each shard counts. Pure.
//!
//! In: the cursor that the engine proposes, as if every row were delivered; where each shard will stand. Out: the cursor to store.
//! Promise: whenever all stand together, `dropped` of the shards' reasons is the sum of theirs, and the cursor balances.

use std::collections::BTreeMap;

use garam_stage::{Counters, Cursor, DropReason, Failure, FailureKind};

/// The pipeline's cursor. What shards found out about records (stale, existing, ..) is taken over when all stand together: one
/// that is beyond has counted records that the pipeline has not met yet.
pub(super) fn pipeline<'a>(
    to: &Cursor,
    shards: impl Iterator<Item = &'a Cursor> + Clone,
) -> Result<Cursor, Failure> {
    let mut pipeline = to.clone();
    if shards.clone().any(|shard| shard.next != to.next) {
        return Ok(pipeline);
    }
    let counters = &mut pipeline.counters;
    for (reason, count) in sums(shards) {
        let known = counters.dropped.get(&reason).copied().unwrap_or(0);
        let more = count.checked_sub(known);
        let rest = more.and_then(|more| counters.delivered.checked_sub(more));
        let Some(rest) = rest else {
            let what =
                format!("the shards dropped {count} records as {reason}, the pipeline {known}");
            return Err(Failure::new(FailureKind::Internal, what));
        };
        counters.delivered = rest;
        if count > 0 {
            counters.dropped.insert(reason, count);
        }
    }
    Ok(pipeline)
}

/// What the main shard counts from a reset on, when the sums are not the pipeline's: a shard that was ahead, or that somebody
/// emptied, has counted other records than the pipeline. `None`: each goes on counting.
pub(super) fn anew<'a>(to: &Cursor, shards: impl Iterator<Item = &'a Cursor>) -> Option<Counters> {
    let engine = [DropReason::Filtered, DropReason::Header].map(DropReason::name);
    let mut dropped = to.counters.dropped.clone();
    dropped.retain(|reason, count| !engine.contains(&reason.as_str()) && *count > 0);
    let records_in = dropped.values().sum();
    (sums(shards) != dropped).then(|| Counters { records_in, dropped, ..Counters::default() })
}

fn sums<'a>(shards: impl Iterator<Item = &'a Cursor>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (reason, count) in shards.flat_map(|shard| &shard.counters.dropped) {
        *sums.entry(reason.clone()).or_default() += count;
    }
    sums
}
