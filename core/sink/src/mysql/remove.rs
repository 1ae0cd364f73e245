//! Deletes: keys of rows that are gone, and all rows where the source's table was emptied.
//!
//! In: what a statement of the batch's transaction did. Out: why it deleted fewer rows than it named. A key that is not there is
//! no error: gone is gone. DELETE empties the table too, since TRUNCATE would end the transaction.
//! Not here: which row of a key counts (`fold`), what is written (`writer`).

use sqlx::AssertSqlSafe;

use super::client::Transaction;
use super::error::{MySqlError, OnlyMySql};
use super::table::full_name;
use super::writer::{MySqlWriter, Work};

impl MySqlWriter {
    /// Finds out why a statement deleted fewer rows than it was given: the others are not there.
    pub(super) async fn explain_delete(
        &self,
        transaction: &mut Transaction,
        work: &Work<'_>,
        rows: &[usize],
        changed: u64,
    ) -> Result<(), MySqlError> {
        if changed >= rows.len() as u64 {
            return Ok(());
        }
        let table = work.table;
        let there = self.look(transaction, &table.present, work, &table.unique, rows).await?;
        if !there.is_empty() {
            let table = table.name.display();
            return Err(OnlyMySql::RowsVanished { table, rows: rows.len(), changed }.into());
        }
        Ok(())
    }

    /// Deletes all rows.
    pub(super) async fn empty(
        &self,
        transaction: &mut Transaction,
        work: &Work<'_>,
    ) -> Result<(), MySqlError> {
        let sql = format!("DELETE FROM {}", full_name(&work.table.name));
        let asked = sqlx::query(AssertSqlSafe(sql)).execute(&mut transaction.connection);
        self.client.within("empty the table", asked).await.map(|_| ())
    }
}
