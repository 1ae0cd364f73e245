//! What a batch is, and what the rooms around the exactly-once engine owe each other.
//!
//! Reading order: [`contract`] (a stream's schema) → [`records`] (what the engine hands to refining and gets back) →
//! [`cursor`] (where a pipeline stands) → [`destination`] (who keeps rows and cursor together) → [`quarantine`] (what
//! did not fit) → [`dimension`] (tables to join) → [`slots`] (where a row belongs by its key),
//! [`slot_map`] (which shard takes it) → [`failure`] (what every room's
//! errors become at its door).
//! Light on purpose: Arrow's arrays and schemas, no engine, no I/O, so that testing a destination builds nothing else.
#![forbid(unsafe_code)]

pub mod contract;
pub mod cursor;
pub mod destination;
pub mod dimension;
pub mod failure;
pub mod quarantine;
pub mod records;
pub mod slot_map;
pub mod slots;

pub use contract::{
    Cast, Column, ColumnConfig, ColumnType, Contract, ContractConfig, ContractError, Format,
    OnBreach, Reading, Rules, TimeBounds, TimeFallback, UnknownColumns,
};
pub use cursor::{Choice, Counters, Cursor, CursorKey, CursorMemory, Decision, PlanId, SlotRange};
pub use destination::{
    Destination, Durability, Outcome, Refusal, StagedBatch, TableSpec, WriteMode,
};
pub use dimension::{
    Dimension, DimensionSource, Missing, Snapshot, SnapshotId, SnapshotSet, Snapshots, Told, Wanted,
};
pub use failure::{Failure, FailureKind};
pub use quarantine::{QuarantineReason, QuarantinedRecord};
pub use records::{BadRecord, DropReason, Op, RawBlock, RecordRef, Refined, Refiner, system};
pub use slot_map::{MAIN_SHARD, SlotMap, SlotPart};
pub use slots::HASH_VERSION;
