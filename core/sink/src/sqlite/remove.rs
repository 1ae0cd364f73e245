//! Deletes: keys of rows that are gone, and all rows where the source's table was emptied.
//!
//! In: the rows of a batch that delete, inside its transaction. Out: the rows that stand in the way. A key that is not there is
//! no error: gone is gone. Not here: which row of a key counts (`fold`), what is written (`writer`).

use std::collections::BTreeMap;

use garam_stage::{Cursor, Refusal, StagedBatch};
use sqlx::AssertSqlSafe;

use super::client::Transaction;
use super::cursors;
use super::encode::Encoder;
use super::error::{SqliteError, is_row_error};
use super::table::{SIZES, quoted};
use super::writer::SqliteWriter;
use crate::changes::Acts;
use crate::contract::{cursor_without, own_words};
use crate::fold::Folded;

impl SqliteWriter {
    /// Deletes the keys. Answers with the rows to try instead of those that were refused.
    pub(super) async fn remove(
        &self,
        transaction: &mut Transaction,
        encoder: &Encoder<'_>,
        acts: Acts<'_>,
        folded: &Folded,
        refused: &mut Vec<Refusal>,
    ) -> Result<Vec<usize>, SqliteError> {
        let key = self.table.unique_columns();
        let mut instead = Vec::new();
        let mut pending: Vec<&[usize]> = folded.delete.chunks(largest()).rev().collect();
        while let Some(rows) = pending.pop() {
            let failed = |source| self.client.error("delete rows", source);
            let arguments = encoder.arguments_of(&key, rows);
            let arguments = arguments.map_err(|error| failed(sqlx::Error::Encode(error)))?;
            let sql = AssertSqlSafe(self.table.delete(rows.len()));
            let deleted = sqlx::query_with(sql, arguments).persistent(rows.len() == largest());
            match (deleted.execute(&mut transaction.connection).await, rows) {
                (Ok(_), _) => {}
                (Err(error), [row]) if is_row_error(&error) => {
                    refused.push(Refusal { row: *row, detail: own_words(&error) });
                    instead.extend(folded.next(*row, acts));
                }
                (Err(error), _) if is_row_error(&error) => {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    pending.extend([right, left]);
                }
                (Err(error), _) => return Err(failed(error)),
            }
        }
        Ok(instead)
    }

    /// Deletes all rows.
    pub(super) async fn empty(&self, transaction: &mut Transaction) -> Result<(), SqliteError> {
        let sql = AssertSqlSafe(format!("DELETE FROM {}", quoted(&self.table.name)));
        let done = sqlx::query(sql).execute(&mut transaction.connection).await;
        done.map(|_| ()).map_err(|source| self.client.error("empty the table", source))
    }

    /// The cursor as stored: a record of which no row changed anything is not delivered.
    pub(super) async fn count_dropped(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
        dropped: &BTreeMap<usize, &'static str>,
    ) -> Result<Cursor, SqliteError> {
        let why = "it delivers fewer records than it has";
        let cursor = cursor_without(batch, dropped).ok_or(SqliteError::Batch { why })?;
        let connection = &mut transaction.connection;
        cursors::advance(&self.client, connection, &batch.to, &cursor).await?;
        Ok(cursor)
    }
}

fn largest() -> usize {
    SIZES.into_iter().max().unwrap_or(1)
}
