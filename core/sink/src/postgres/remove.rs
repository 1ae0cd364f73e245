//! Deletes: keys of rows that are gone, and all rows where the source's table was emptied.
//!
//! In: what a statement of the batch's transaction did. Out: why it deleted fewer rows than it named. A key that is not there is
//! no error: gone is gone. DELETE empties the table too: unlike TRUNCATE it needs no right beyond those there are and lets others read on.
//! Not here: which row of a key counts (`fold`), what is written (`writer`).

use sqlx::AssertSqlSafe;

use super::client::Transaction;
use super::error::PostgresError;
use super::writer::{PostgresWriter, Work};

impl PostgresWriter {
    /// Finds out why a statement deleted fewer rows than it was given: the others are not there.
    pub(super) async fn explain_delete(
        &self,
        transaction: &mut Transaction,
        work: &Work<'_>,
        rows: &[usize],
        changed: u64,
    ) -> Result<(), PostgresError> {
        if changed >= rows.len() as u64 {
            return Ok(());
        }
        let key = self.table.unique.iter().copied();
        let known = self.numbers(transaction, &self.table.absent, work, key, rows).await?.len();
        match rows.len().saturating_sub(known) as u64 {
            0 => Ok(()),
            missing => Err(self.vanished(rows.len(), missing)),
        }
    }

    /// Deletes all rows.
    pub(super) async fn empty(&self, transaction: &mut Transaction) -> Result<(), PostgresError> {
        let sql = format!("DELETE FROM {}", self.table.name.quoted());
        let asked = sqlx::query(AssertSqlSafe(sql)).execute(&mut transaction.connection);
        self.client.within("empty the table", asked).await.map(|_| ())
    }
}
