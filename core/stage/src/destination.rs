//! Who keeps rows and cursor together: the second durable point.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;

use crate::cursor::{Cursor, CursorKey, PlanId};
use crate::failure::Failure;
use crate::records::RecordRef;

/// Rows of one input partition, in log order, and the cursor that becomes true with them.
#[derive(Debug, Clone)]
pub struct StagedBatch {
    pub rows: RecordBatch,
    /// The record behind each row.
    pub sources: Vec<RecordRef>,
    /// Where the cursor stands now: the compare of the compare-and-set (`key`, `incarnation`, `next`, `epoch`).
    pub from: Cursor,
    /// Where it stands with these rows. Counters include this batch as if every row were delivered; a destination
    /// that drops stale rows moves them from `delivered` to `dropped`.
    pub to: Cursor,
}

/// How safe a written batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The destination holds it; `flush` makes it durable.
    Accepted,
    /// It and everything before it survive a crash.
    Durable,
}

/// A row the destination will not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Index into [`StagedBatch::rows`].
    pub row: usize,
    pub detail: String,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Rows and cursor are in. `cursor` is what the destination stored (its counters may differ from the proposal).
    Written { durability: Durability, cursor: Cursor },
    /// Nothing was committed; these are all the rows that stand in the way.
    Refused { rows: Vec<Refusal> },
}

/// How rows meet those already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Every record is a row of its own; unique by (`_origin`, `_position`, `_ordinal`), so that a replay changes nothing.
    Append,
    /// The last record of a key, in log order, is the row.
    Upsert,
}

/// The table a destination writes: known before the first batch.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub table: String,
    pub schema: SchemaRef,
    pub mode: WriteMode,
    /// Key columns for [`WriteMode::Upsert`].
    pub key: Vec<String>,
}

/// Keeps rows and cursor in one atomic step.
///
/// Contract. *Order:* batches of one cursor come one at a time, each beginning where the one before ended. *Repeats:* a
/// batch whose outcome was unknown is offered again only after `take_over`; offering a committed batch again is refused
/// by the cursor's compare-and-set (`Failure` of kind `Fenced`), never applied twice. *Empty batches* move the cursor
/// alone, and an operator's decision may move it back. *Refusal:* all rows that stand in the way are named at once and nothing is committed. *Cancellation:* dropping
/// a future must leave no open transaction behind: the connection is closed with it. *Shutdown:* after `flush`
/// everything accepted is durable.
#[async_trait]
pub trait Destination: Send {
    /// Creates what is missing (table, cursor table) and checks what is there against the contract.
    async fn prepare(&mut self) -> Result<(), Failure>;

    /// Makes this writer the owner of the cursor: stores epoch = max(`epoch_floor`, stored) + 1, waiting for or defeating
    /// any transaction of an older owner, and returns the cursor as stored; `None` when there is none yet.
    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure>;

    /// Whether it may go on from this cursor, which is its own, by this plan. Where what an older plan began was cut short, that plan
    /// finishes it before another one refines anything: what it puts aside could be there already. Asked once after each
    /// take-over, when an operator's decision has been carried out.
    fn admits(&self, _cursor: &Cursor, _plan: PlanId) -> Result<(), Failure> {
        Ok(())
    }

    /// Stores the very first cursor of a key. Fails with kind `Fenced` when one is there already.
    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure>;

    /// Writes rows and cursor in one step.
    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure>;

    /// Does what [`Destination::write`] would do and undoes it, so that the record behind a failure of kind `Data` can
    /// be found without committing anything. `None`: this destination cannot; then one log entry is the smallest part
    /// that can be put aside.
    async fn rehearse(&mut self, _batch: &StagedBatch) -> Result<Option<Outcome>, Failure> {
        Ok(None)
    }

    /// The barrier: returns once everything accepted is durable.
    async fn flush(&mut self) -> Result<(), Failure>;
}
