//! Names and numbers: the origins of a pipeline in its output stream, the partition in which one begins, the position of a row.
//!
//! Promise: the same pipeline, input, life and row have the same place for ever. That is what the log drops repeats by.

use garam_proto::hash::partition_of;
use garam_proto::{AgentId, Generation, Incarnation, LineageId, LogOffset, OriginId, PipelineId};
use garam_stage::{CursorKey, RecordRef};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Which of a pipeline's origins in its output stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The cursor. It lies in the first partition.
    Register,
    /// Rows of one life of the input, in one output partition.
    Rows { life: Incarnation, index: u32 },
}

impl Part {
    pub(super) fn output(self) -> u32 {
        match self {
            Self::Register => 0,
            Self::Rows { index, .. } => index,
        }
    }
}

/// Who writes the records that a pipeline makes of one of its input partitions.
pub fn producer_origin(
    pipeline: PipelineId,
    input: u32,
    life: Incarnation,
    output: u32,
) -> OriginId {
    let slots = garam_stage::SlotRange::ALL;
    origin(&CursorKey { pipeline, partition: input, slots }, Part::Rows { life, index: output })
}

/// Where the cursor of a pipeline that writes a stream is kept: the origin, in partition 0 of the stream, whose state says
/// what [`super::stored_cursor`] reads.
pub fn register_origin(key: &CursorKey) -> OriginId {
    origin(key, Part::Register)
}

pub(super) fn origin(key: &CursorKey, part: Part) -> OriginId {
    let mut name = b"garam.producer.1\0".to_vec();
    name.extend_from_slice(&key.pipeline.0);
    name.extend_from_slice(&key.partition.to_be_bytes());
    name.extend_from_slice(&key.slots.first.to_be_bytes());
    name.extend_from_slice(&key.slots.last.to_be_bytes());
    if let Part::Rows { life, index } = part {
        name.extend_from_slice(&life.0);
        name.extend_from_slice(&index.to_be_bytes());
    }
    let generation = Generation(xxh3_128(&name).to_be_bytes());
    OriginId { agent: AgentId(key.pipeline.0), generation }
}

/// A lineage whose hash says this partition: the log places a new origin by it.
pub(super) fn lineage(origin: OriginId, output: u32, partitions: u32) -> LineageId {
    let name = [origin.agent.0, origin.generation.0].concat();
    let mut candidates = (0_u64..)
        .map(|round| LineageId(xxh3_64(&[name.as_slice(), &round.to_be_bytes()].concat())));
    let fits = |lineage: &LineageId| partition_of(*lineage, partitions) == output;
    candidates.find(fits).unwrap_or(LineageId(0))
}

/// Where a row lies in its origin.
pub(super) fn position(at: RecordRef, ordinal: u32) -> u128 {
    first_of(at.offset) | u128::from(at.index) << 32 | u128::from(ordinal)
}

/// The first position of an input entry. Above 0, where an origin begins.
pub(super) fn first_of(offset: LogOffset) -> u128 {
    (u128::from(offset.0) + 1) << 64
}

pub(super) fn offset_of(position: u128) -> LogOffset {
    LogOffset(u64::try_from(position >> 64).unwrap_or(u64::MAX).saturating_sub(1))
}
