//! What the engine hands to refining, and what it gets back: records by reference, rows in Arrow.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use bytes::Bytes;
use garam_proto::{BlockHeader, LogOffset, OriginId, Record};

use crate::failure::Failure;

/// Names one record of a partition for ever: entry and number inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordRef {
    pub offset: LogOffset,
    pub index: u32,
}

/// What is known about where a block came from, shared by all its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    pub origin: OriginId,
    pub host: String,
    /// Path, or server and table.
    pub path: String,
    pub source_epoch: u32,
}

/// One decoded block and those of its records that are to be refined (the masked ones are left out).
#[derive(Debug, Clone)]
pub struct RawBlock {
    pub offset: LogOffset,
    pub provenance: Arc<Provenance>,
    pub header: BlockHeader,
    pub records: Vec<Record>,
}

/// A record that broke the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    pub at: RecordRef,
    pub reason: crate::quarantine::QuarantineReason,
    /// What exactly is wrong, for the operator: column, expected, found. At most a few hundred bytes.
    pub detail: String,
}

/// Why a record has no row although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The pipeline's SQL leaves it out.
    Filtered,
    /// An older version than the destination holds.
    Stale,
    /// The names of the fields, not a record.
    Header,
    /// `null`, which stands behind a delete for logs that keep one record a key.
    Tombstone,
}

impl DropReason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Stale => "stale",
            Self::Header => "header",
            Self::Tombstone => "tombstone",
        }
    }
}

/// What happened to the row of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Insert,
    Update,
    Delete,
    /// Of all rows of the table.
    Truncate,
}

impl Op {
    const ALL: [Self; 4] = [Self::Insert, Self::Update, Self::Delete, Self::Truncate];

    /// As [`system::OP`] holds it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// Whether a row can hold a value of this type: those of a contract's columns and of the system's.
pub fn is_row_type(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Utf8
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::FixedSizeBinary(_)
    )
}

/// Rows in the order of the records, each with the record it came from; every input record is in exactly one of
/// `sources`, `bad` and `dropped`.
#[derive(Debug, Clone)]
pub struct Refined {
    pub rows: RecordBatch,
    /// `sources[i]` is the record that row `i` came from.
    pub sources: Vec<RecordRef>,
    pub bad: Vec<BadRecord>,
    pub dropped: Vec<(RecordRef, DropReason)>,
}

/// Turns records into rows by the stream's contract. Pure: the same records give the same rows, on replay too.
pub trait Refiner: Send + Sync {
    /// Columns of every batch: the contract's, then the system's ([`system`]).
    fn schema(&self) -> SchemaRef;

    /// Values that broke type or rule and that something else stands in for, since the start of this process, counted each time
    /// they are refined.
    fn replaced(&self) -> u64 {
        0
    }

    /// Refines blocks of one partition, in order. `Err` only for what no record can cause.
    fn refine(&self, blocks: &[RawBlock]) -> Result<Refined, Failure>;
}

/// The columns that Garam adds to every row, in this order, after the contract's.
pub mod system {
    /// Host name from the agent's certificate. `Utf8`.
    pub const HOST: &str = "_host";
    /// Path of the file, or server and table. `Utf8`.
    pub const PATH: &str = "_path";
    /// Agent id and generation, 16 bytes each. `FixedSizeBinary(32)`.
    pub const ORIGIN: &str = "_origin";
    /// Position inside the origin, 128 bits big-endian, so that bytes sort as numbers. `FixedSizeBinary(16)`.
    pub const POSITION: &str = "_position";
    /// Number of the row among those of its record, from 0. `Int32`.
    pub const ORDINAL: &str = "_ordinal";
    /// Source epoch (32 bits) and order (128 bits), big-endian. `FixedSizeBinary(20)`.
    pub const VERSION: &str = "_version";
    /// When it happened, by the contract's time column; null where the contract names none.
    /// `Timestamp(Microsecond, "UTC")`.
    pub const EVENT_TIME: &str = "_event_time";
    /// When the gateway took it in. `Timestamp(Microsecond, "UTC")`.
    pub const INGEST_TIME: &str = "_ingest_time";
    /// What happened to the row ([`super::Op`]), in streams of row changes alone, behind all others. `Utf8`.
    pub const OP: &str = "_op";
    /// All that every row has.
    pub const ALL: [&str; 8] =
        [HOST, PATH, ORIGIN, POSITION, ORDINAL, VERSION, EVENT_TIME, INGEST_TIME];

    /// Whether a column of this name comes from Garam.
    pub fn has(name: &str) -> bool {
        ALL.contains(&name) || name == OP
    }
}

/// The raw bytes a reference points to, for quarantine.
pub fn bytes_of(blocks: &[RawBlock], at: RecordRef) -> Option<&Bytes> {
    let block = blocks.iter().find(|block| block.offset == at.offset)?;
    block.records.iter().find(|record| record.index == at.index).map(|record| &record.bytes)
}
