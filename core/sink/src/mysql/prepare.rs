//! Before anything is written: the table and the cursor table are made, altered or refused.
//!
//! In: what the catalog says, `create`. Out: a table that keeps every row, and what its columns hold at most. These servers commit
//! each DDL statement by itself, so whoever is interrupted here finds the first part done and goes on.

use sqlx::AssertSqlSafe;

use super::client::Transaction;
use super::error::{MySqlError, OnlyMySql};
use super::inspect;
use super::writer::MySqlWriter;
use crate::sqlite::Create;

/// How long others that create tables are waited for.
const CREATION_SECONDS: u64 = 30;

impl MySqlWriter {
    /// DDL commits at once on these servers; whoever comes second finds what the first has made.
    pub(super) async fn prepare_tables(
        &mut self,
        transaction: &mut Transaction,
    ) -> Result<(), MySqlError> {
        const WAIT: &str = "wait for others that create tables";
        let table = self.table.as_ref().ok_or(MySqlError::Batch { why: "no server was met" })?;
        let asked = sqlx::query_scalar("SELECT CAST(get_lock('garam create tables', ?) AS SIGNED)")
            .bind(CREATION_SECONDS)
            .fetch_one(&mut transaction.connection);
        let locked: Option<i64> = self.client.within(WAIT, asked).await?;
        if locked != Some(1) {
            let (place, seconds) = (self.client.place().to_owned(), CREATION_SECONDS);
            return Err(OnlyMySql::CreationLocked { place, seconds }.into());
        }
        let found = match inspect::look(&self.client, transaction, table).await? {
            Some(found) if self.create == Create::Evolve => {
                for sql in found.additions(table)? {
                    self.define(transaction, "add a column", sql).await?;
                }
                inspect::look(&self.client, transaction, table).await?
            }
            Some(found) => Some(found),
            None if self.create == Create::Never => return Err(table.missing().into()),
            None => {
                inspect::may_create(&self.client, transaction, table).await?;
                self.define(transaction, "create the table", table.ddl()).await?;
                inspect::look(&self.client, transaction, table).await?
            }
        };
        let found = found.ok_or_else(|| table.missing())?;
        found.check(table)?;
        inspect::may_write(&self.client, transaction, table).await?;
        let limits = found.limits(table);
        self.limits = limits;
        self.cursors.prepare(&self.client, transaction).await?;
        let asked = sqlx::query("DO release_lock('garam create tables')")
            .execute(&mut transaction.connection);
        self.client.within(WAIT, asked).await.map(|_| ())
    }

    async fn define(
        &self,
        transaction: &mut Transaction,
        action: &'static str,
        sql: String,
    ) -> Result<(), MySqlError> {
        let asked = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut transaction.connection);
        self.client.within(action, asked).await.map(|_| ())
    }
}
