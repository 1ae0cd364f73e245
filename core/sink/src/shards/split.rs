//! What of a batch is each shard's. Pure.
//!
//! In: a batch, the slot map, where each shard stands. Out: for each shard the batch that brings it to the same place, or
//! nothing where it stands there already. Promise: a row goes to the shard of its key's slot and to no other, and not at all
//! where that shard has passed its record. Not here: whether a shard may go on from where it stands (`standing`).

use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use garam_stage::slots::{key_hashes, slot_of};
use garam_stage::{Cursor, Failure, FailureKind, Refusal, SlotMap, StagedBatch};

/// A shard's part of a batch.
pub(super) struct Share {
    pub(super) batch: StagedBatch,
    /// The number in the whole batch of each of its rows.
    pub(super) rows: Vec<usize>,
}

/// Which part of the map each row belongs to.
pub(super) fn owners(
    batch: &StagedBatch,
    key: &[usize],
    map: &SlotMap,
) -> Result<Vec<usize>, Failure> {
    let hashes = key_hashes(&batch.rows, key)
        .map_err(|error| Failure::new(FailureKind::Schema, error.to_string()))?;
    Ok(hashes.into_iter().map(|hash| map.part_of(slot_of(hash))).collect())
}

/// Rows of records that lie on several shards: a record is delivered or not, and no transaction spans two databases.
pub(super) fn torn(batch: &StagedBatch, owners: &[usize]) -> Vec<Refusal> {
    let mut refused = Vec::new();
    let mut begin = 0;
    for rows in batch.sources.chunk_by(|a, b| a == b) {
        let end = begin + rows.len();
        let mut places = owners.iter().take(end).skip(begin);
        let first = places.next();
        if places.any(|place| Some(place) != first) {
            let detail = "the rows of one record belong to several shards";
            let refusal = |row| Refusal { row, detail: detail.to_owned() };
            refused.extend((begin..end).map(refusal));
        }
        begin = end;
    }
    refused
}

/// The part of the shard of this number, which stands at `stored`. `None`: it is there already, or beyond.
pub(super) fn share(
    batch: &StagedBatch,
    owners: &[usize],
    number: usize,
    stored: &Cursor,
) -> Result<Option<Share>, Failure> {
    if stored.next >= batch.to.next && stored.next > batch.from.next {
        return Ok(None);
    }
    let is_own = |row: usize| {
        let at = batch.sources.get(row).map(|source| source.offset);
        owners.get(row) == Some(&number) && at.is_some_and(|at| at >= stored.next)
    };
    let keep: Vec<bool> = (0..batch.rows.num_rows()).map(is_own).collect();
    let rows: Vec<usize> = (0..keep.len()).filter(|&row| is_own(row)).collect();
    let sources: Vec<_> = rows.iter().filter_map(|&row| batch.sources.get(row).copied()).collect();
    let cut = filter_record_batch(&batch.rows, &BooleanArray::from(keep)).map_err(|error| {
        Failure::new(FailureKind::Internal, "cannot cut a shard's rows out of a batch")
            .because(error)
    })?;
    let mut records = sources.clone();
    records.dedup();
    let mut to = moved(stored, &batch.to);
    to.counters.records_in += records.len() as u64;
    to.counters.delivered += records.len() as u64;
    let batch = StagedBatch { rows: cut, sources, from: stored.clone(), to };
    Ok(Some(Share { batch, rows }))
}

/// A shard's cursor, at the place of the pipeline's.
pub(super) fn moved(stored: &Cursor, to: &Cursor) -> Cursor {
    Cursor {
        key: stored.key.clone(),
        epoch: stored.epoch,
        slot_map_epoch: stored.slot_map_epoch,
        counters: stored.counters.clone(),
        ..to.clone()
    }
}
