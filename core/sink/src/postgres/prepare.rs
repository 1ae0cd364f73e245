//! Before anything is written: the table and the cursor table are made, altered or refused.
//!
//! In: what the catalog says, `create`. Out: a table that keeps every row, and what its columns hold at most. All of it is one
//! transaction of its own, before the first batch.

use sqlx::AssertSqlSafe;

use super::client::Transaction;
use super::error::PostgresError;
use super::inspect;
use super::writer::PostgresWriter;
use crate::sqlite::Create;

impl PostgresWriter {
    pub(super) async fn prepare_tables(
        &mut self,
        transaction: &mut Transaction,
    ) -> Result<(), PostgresError> {
        // Two pipelines that start at the same moment would both find nothing there.
        let asked = sqlx::query("SELECT pg_advisory_xact_lock(hashtext('garam create tables'))")
            .execute(&mut transaction.connection);
        self.client.within("wait for others that create tables", asked).await?;
        let found = match inspect::look(&self.client, transaction, &self.table).await? {
            Some(found) if self.create == Create::Evolve => {
                for sql in found.additions(&self.table)? {
                    self.define(transaction, "add a column", sql).await?;
                }
                inspect::look(&self.client, transaction, &self.table).await?
            }
            Some(found) => Some(found),
            None if self.create == Create::Never => return Err(self.table.missing().into()),
            None => {
                inspect::may_create(&self.client, transaction, &self.table).await?;
                self.define(transaction, "create the table", self.table.ddl()).await?;
                inspect::look(&self.client, transaction, &self.table).await?
            }
        };
        let found = found.ok_or_else(|| self.table.missing())?;
        found.check(&self.table)?;
        self.suits_copy = found.suits_copy(&self.table);
        self.limits = found.limits(&self.table);
        self.cursors.prepare(&self.client, transaction).await
    }

    async fn define(
        &self,
        transaction: &mut Transaction,
        action: &'static str,
        sql: String,
    ) -> Result<(), PostgresError> {
        let asked = sqlx::query(AssertSqlSafe(sql)).execute(&mut transaction.connection);
        self.client.within(action, asked).await.map(|_| ())
    }
}
