//! From pieces to rows: refines, checks that the refiner accounted for every record, and finds records that break it.
//!
//! In: pieces and the records put aside meanwhile. Out: [`Refined`] in which every offered record is exactly once a
//! source of rows, bad, or dropped, in log order.
//! Promise: a panic inside refining ends here, as a failure of kind `Data`; refining is row-local, so a batch may be
//! refined in parts and put together again. All of it runs on blocking threads.
//! Not here: attempts and when to isolate (`deliver`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use garam_stage::{
    BadRecord, Failure, FailureKind, QuarantineReason, RawBlock, RecordRef, Refined, Refiner,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::batch::Batch;
use crate::binding::Binding;
use crate::decode::{Content, Piece, decode};
use crate::engine::Context;
use crate::error::FlowError;

/// A batch ready for delivery. The permit is released when it is durable or dropped.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) pieces: Vec<Piece>,
    /// A failure of kind `Data` is dealt with when the cursor has come this far.
    pub(crate) refined: Result<Refined, Failure>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Decodes and refines a batch.
pub(crate) async fn prepare(
    context: &Context,
    batch: Batch,
    binding: &Arc<Binding>,
) -> Result<Prepared, Failure> {
    let (refiner, binding) = (Arc::clone(&context.refiner), Arc::clone(binding));
    let (limits, lane) = (context.config.limits.decode, context.config.lane);
    let Batch { entries, permit, .. } = batch;
    blocking("decoding a batch", move || {
        let decode = |entry| decode(entry, &binding, &limits, lane);
        let pieces: Vec<Piece> = entries.into_iter().map(decode).collect();
        let refined = refine(&*refiner, &blocks(&pieces, &Binding::default()));
        Prepared { pieces, refined, permit }
    })
    .await
}

/// Refines pieces again, without what was put aside since.
pub(crate) async fn stage(
    context: &Context,
    pieces: &[Piece],
    fresh: &Binding,
) -> Result<Refined, Failure> {
    let refiner = Arc::clone(&context.refiner);
    let blocks = blocks(pieces, fresh);
    blocking("refining a batch", move || refine(&*refiner, &blocks)).await?
}

/// Like [`stage`], but the records that make refining fail come out as bad, with reason `Poison`.
pub(crate) async fn stage_isolating(
    context: &Context,
    pieces: &[Piece],
    fresh: &Binding,
) -> Result<Refined, Failure> {
    let refiner = Arc::clone(&context.refiner);
    let blocks = blocks(pieces, fresh);
    blocking("refining a batch in parts", move || {
        let mut parts = Vec::new();
        refine_parts(&*refiner, blocks, &mut parts)?;
        join(&*refiner, parts)
    })
    .await?
}

/// The same rows without those of masked records.
pub(crate) fn without(refined: Refined, mask: &Binding) -> Result<Refined, FlowError> {
    let keep: Vec<bool> = refined.sources.iter().map(|&at| !mask.masks(at)).collect();
    let sources = refined.sources.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(at, _)| *at);
    let sources = sources.collect();
    let rows = filter_record_batch(&refined.rows, &BooleanArray::from(keep))
        .map_err(|error| FlowError::Arrow(error.into()))?;
    Ok(Refined { rows, sources, ..refined })
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| FlowError::Worker { doing, source }.into())
}

fn blocks(pieces: &[Piece], fresh: &Binding) -> Vec<RawBlock> {
    let block = |piece: &Piece| match &piece.content {
        Content::Block(block) => Some(block.clone()),
        Content::Quiet | Content::Undecodable(_) => None,
    };
    let mut blocks: Vec<RawBlock> = pieces.iter().filter_map(block).collect();
    if !fresh.is_empty() {
        for block in &mut blocks {
            let offset = block.offset;
            block.records.retain(|record| !fresh.masks(RecordRef { offset, index: record.index }));
        }
    }
    blocks.retain(|block| !block.records.is_empty());
    blocks
}

fn refine(refiner: &dyn Refiner, blocks: &[RawBlock]) -> Result<Refined, Failure> {
    if blocks.is_empty() {
        let rows = RecordBatch::new_empty(refiner.schema());
        let (sources, bad, dropped) = (Vec::new(), Vec::new(), Vec::new());
        return Ok(Refined { rows, sources, bad, dropped });
    }
    let refined =
        catch_unwind(AssertUnwindSafe(|| refiner.refine(blocks))).unwrap_or_else(|panic| {
            Err(Failure::new(FailureKind::Data, format!("refining panicked: {}", text(&*panic))))
        })?;
    check(blocks, &refined)?;
    Ok(refined)
}

/// Halves until a part refines or is one record.
fn refine_parts(
    refiner: &dyn Refiner,
    blocks: Vec<RawBlock>,
    parts: &mut Vec<Refined>,
) -> Result<(), Failure> {
    let failure = match refine(refiner, &blocks) {
        Ok(refined) => {
            parts.push(refined);
            return Ok(());
        }
        Err(failure) if failure.kind == FailureKind::Data => failure,
        Err(failure) => return Err(failure),
    };
    let records: usize = blocks.iter().map(|block| block.records.len()).sum();
    if records > 1 {
        let (left, right) = halve(blocks, records / 2);
        refine_parts(refiner, left, parts)?;
        return refine_parts(refiner, right, parts);
    }
    let poison = blocks.iter().flat_map(refs).map(|at| BadRecord {
        at,
        reason: QuarantineReason::Poison,
        detail: failure.to_string(),
    });
    let rows = RecordBatch::new_empty(refiner.schema());
    parts.push(Refined { rows, sources: Vec::new(), bad: poison.collect(), dropped: Vec::new() });
    Ok(())
}

fn halve(blocks: Vec<RawBlock>, mut left_records: usize) -> (Vec<RawBlock>, Vec<RawBlock>) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for mut block in blocks {
        let rest = block.records.split_off(left_records.min(block.records.len()));
        left_records -= block.records.len();
        if !rest.is_empty() {
            right.push(RawBlock { records: rest, ..block.clone() });
        }
        if !block.records.is_empty() {
            left.push(block);
        }
    }
    (left, right)
}

fn join(refiner: &dyn Refiner, parts: Vec<Refined>) -> Result<Refined, Failure> {
    let schema = refiner.schema();
    let rows = concat_batches(&schema, parts.iter().map(|part| &part.rows))
        .map_err(|error| FlowError::Arrow(error.into()))?;
    let (mut sources, mut bad, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        sources.extend(part.sources);
        bad.extend(part.bad);
        dropped.extend(part.dropped);
    }
    Ok(Refined { rows, sources, bad, dropped })
}

/// Whether the refiner kept its word; counters and order rest on it.
fn check(blocks: &[RawBlock], refined: &Refined) -> Result<(), FlowError> {
    let broken = |why: String| Err(FlowError::Refiner { why });
    let (rows, sources) = (refined.rows.num_rows(), refined.sources.len());
    if rows != sources {
        return broken(format!("{rows} rows come from {sources} sources"));
    }
    if !refined.sources.is_sorted() {
        return broken("rows are not in the order of their records".into());
    }
    let mut answered = refined.sources.clone();
    answered.dedup();
    answered.extend(refined.bad.iter().map(|bad| bad.at));
    answered.extend(refined.dropped.iter().map(|(at, _)| *at));
    answered.sort();
    let asked = blocks.iter().flat_map(refs);
    if !asked.clone().eq(answered.iter().copied()) {
        let (asked, answered) = (asked.count(), answered.len());
        return broken(format!(
            "{asked} records went in and {answered} answers came out, not one for each"
        ));
    }
    Ok(())
}

fn refs(block: &RawBlock) -> impl Iterator<Item = RecordRef> + Clone + '_ {
    block.records.iter().map(|record| RecordRef { offset: block.offset, index: record.index })
}

fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
