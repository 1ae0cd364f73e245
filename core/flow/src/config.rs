//! What one flow is told: which partition, which cursor, which plan, where a first start begins, and its limits.
//!
//! In: checked configuration from the core. Out: the names that flow derives from it (cursor key, reader name).
//! Promise: every limit of the engine stands here with its default and its reason.
//! Not here: parsing configuration files.

use std::time::Duration;

use garam_proto::{DecodeLimits, LogOffset, PartitionId, PipelineId};
use garam_stage::{CursorKey, PlanId, SlotRange};

/// Where a pipeline begins when no cursor exists and none is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first entry the log still holds.
    Earliest,
    /// At the durable end: what comes from now on.
    Now,
}

/// What a flow reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lane {
    /// A partition of the pipeline's stream.
    #[default]
    Input,
    /// What was put aside and is to be delivered again: one record an entry, with its own origin and position.
    Requeue,
}

/// The number under which the requeue lane keeps its cursor: above every partition's.
pub const REQUEUE_LANE: u32 = 1 << 20;

/// One pipeline on one input partition.
#[derive(Debug, Clone)]
pub struct FlowConfig {
    pub pipeline: PipelineId,
    pub input: PartitionId,
    pub lane: Lane,
    /// The slots this cursor covers; all of them with a single output.
    pub slots: SlotRange,
    /// What the pipeline does to records, recorded with the next cursor.
    pub plan: PlanId,
    pub start: Start,
    /// It stops by itself before this offset. Default: it never does.
    pub until: Option<LogOffset>,
    pub limits: FlowLimits,
}

/// Bounds of one flow.
#[derive(Debug, Clone)]
pub struct FlowLimits {
    /// A batch is cut before the entry that would exceed this many records (an entry alone may). Default 8 000.
    pub max_rows: u64,
    /// Likewise for the bytes it takes in memory, compressed and raw. Default 4 MiB.
    pub max_bytes: u64,
    /// A batch is cut at the latest this long after its first entry. Default 1 s.
    pub max_wait: Duration,
    /// When the log is drained, a batch waits at most this long, from its first entry, for more. Default 50 ms.
    pub linger: Duration,
    /// A cursor that moved without records is written this often, and what `meta` remembers is renewed. Default 1 s.
    pub idle_cursor: Duration,
    /// How often a range is offered again with refused rows masked before that counts as systemic. Default 8.
    pub refused_rounds: u32,
    /// A batch of which a larger share breaks the contract is not put aside: the flow stops with one error. Default 1: never.
    pub max_bad_share: f64,
    /// Batches with fewer bad records never stop it. Default 100.
    pub max_bad_from: u64,
    /// How often in a row the engine takes over without its cursor moving before it gives up. Default 5.
    pub take_overs: u32,
    /// Caps on decompression.
    pub decode: DecodeLimits,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            max_rows: 8_000,
            max_bytes: 4 * 1024 * 1024,
            max_wait: Duration::from_secs(1),
            linger: Duration::from_millis(50),
            idle_cursor: Duration::from_secs(1),
            refused_rounds: 8,
            max_bad_share: 1.0,
            max_bad_from: 100,
            take_overs: 5,
            decode: DecodeLimits::default(),
        }
    }
}

impl FlowConfig {
    /// A pipeline with one output and default limits.
    pub fn new(pipeline: PipelineId, input: PartitionId, plan: PlanId, start: Start) -> Self {
        let (slots, limits, lane) = (SlotRange::ALL, FlowLimits::default(), Lane::Input);
        Self { pipeline, input, lane, slots, plan, start, until: None, limits }
    }

    /// What tells this flow's cursor and quarantine entries from those of the pipeline's other flows.
    pub fn number(&self) -> u32 {
        match self.lane {
            Lane::Input => self.input.index,
            Lane::Requeue => REQUEUE_LANE,
        }
    }

    /// The name of this flow's cursor.
    pub fn key(&self) -> CursorKey {
        CursorKey { pipeline: self.pipeline, partition: self.number(), slots: self.slots }
    }

    /// The name under which this flow pins the input partition and its quarantine partition. The core pins under the
    /// same name before flows run, and unpins when the pipeline is removed: a flow that stops keeps its pin.
    pub fn reader_name(&self) -> String {
        let SlotRange { first, last } = self.slots;
        format!("{}/{}/{first}-{last}", self.pipeline, self.number())
    }
}
