//! A write in two halves: everything up to COMMIT, and COMMIT.
//!
//! In: a batch. Out: what became of it inside a transaction that stays open, until it is settled or undone. Promise: nothing is
//! there before [`Halves::settle`]; a writer holds one open transaction at most, and one that is let go closes its connection.
//! A destination that writes one database settles at once ([`write`]); one that writes several settles when all of them accept
//! (`shards`). Not here: what a transaction is made of (each database's `writer`).

use async_trait::async_trait;
use garam_stage::{Cursor, Destination, Durability, Failure, Outcome, Refusal, StagedBatch};

/// Said of a second half without a first one.
pub(crate) const NOTHING_OPEN: &str = "no transaction is open";

/// What became of a batch inside its open transaction.
pub(crate) enum Tried {
    /// Rows and cursor are in, and nobody else sees them yet.
    Applied(Cursor),
    Refused(Vec<Refusal>),
}

#[async_trait]
pub(crate) trait Halves: Destination {
    /// Applies a batch in a transaction of its own, which stays open whatever became of it.
    async fn try_write(&mut self, batch: &StagedBatch) -> Result<Tried, Failure>;

    /// Moves another cursor in the open transaction.
    async fn move_along(&mut self, from: &Cursor, to: &Cursor) -> Result<(), Failure>;

    /// Commits the open transaction.
    async fn settle(&mut self) -> Result<(), Failure>;

    /// Rolls the open transaction back.
    async fn undo(&mut self);

    /// Closes the connection of the open transaction, which undoes it.
    fn let_go(&mut self);
}

/// Both halves, one behind the other.
pub(crate) async fn write(
    writer: &mut dyn Halves,
    batch: &StagedBatch,
) -> Result<Outcome, Failure> {
    match writer.try_write(batch).await? {
        Tried::Applied(cursor) => {
            writer.settle().await?;
            Ok(Outcome::Written { durability: Durability::Durable, cursor })
        }
        Tried::Refused(rows) => {
            writer.undo().await;
            Ok(Outcome::Refused { rows })
        }
    }
}

/// The first half, undone.
pub(crate) async fn rehearse(
    writer: &mut dyn Halves,
    batch: &StagedBatch,
) -> Result<Option<Outcome>, Failure> {
    let tried = writer.try_write(batch).await?;
    writer.undo().await;
    Ok(Some(match tried {
        Tried::Applied(cursor) => Outcome::Written { durability: Durability::Accepted, cursor },
        Tried::Refused(rows) => Outcome::Refused { rows },
    }))
}
