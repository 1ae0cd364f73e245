//! `[pipeline.NAME.to.postgres]`: which server and table, and how rows meet those already there.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use garam_stage::{Cursor, Failure};
use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;

use super::client::Client;
use super::cursors::CursorTable;
use super::error::{OnlyPostgres, PostgresError};
use super::inspect;
use super::table::Table;
use super::writer::PostgresWriter;
use crate::RowCount;
use crate::halves::Halves;
use crate::server::ServerConfig;
use crate::sqlite::{Create, Readiness};
use crate::stats::SinkStats;
use crate::table::TableName;

/// A table of a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PostgresConfig(pub ServerConfig);

impl PostgresConfig {
    /// What the operator calls it.
    pub fn label(&self) -> String {
        format!("postgres {} table {}", self.place(), self.0.table)
    }

    /// Which database, without secrets: server, port and name, or the file that says so.
    pub fn place(&self) -> String {
        self.0.place::<PgConnectOptions, OnlyPostgres>()
    }

    /// Checks the configuration against the rows to come. Touches nothing.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), PostgresError> {
        self.client()?;
        self.table(schema).map(|_| ())
    }

    /// The destination; it connects in `prepare`.
    pub(crate) fn build(
        &self,
        schema: &SchemaRef,
        stats: &Arc<SinkStats>,
    ) -> Result<Box<dyn Halves>, Failure> {
        let client = self.client()?.counted(stats);
        let writer = PostgresWriter::new(client, self.table(schema)?, self.0.create);
        Ok(Box::new(writer))
    }

    /// Reaches the server and says what `prepare` would find, changing nothing.
    pub async fn connect(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        let table = self.table(schema)?;
        let mut client = self.client()?;
        let mut transaction = client.begin().await?;
        let found = inspect::look(&client, &mut transaction, &table).await?;
        let readiness = match (found, self.0.create) {
            (Some(existing), Create::Evolve)
                if !existing.additions(&table).map_err(PostgresError::from)?.is_empty() =>
            {
                Readiness::ColumnsWillBeAdded
            }
            (Some(existing), _) => {
                existing.check(&table).map_err(PostgresError::from)?;
                Readiness::Ready
            }
            (None, Create::Missing | Create::Evolve) => {
                inspect::may_create(&client, &mut transaction, &table).await?;
                Readiness::TableWillBeCreated
            }
            (None, Create::Never) => return Err(PostgresError::from(table.missing()).into()),
        };
        CursorTable::beside(&table).check(&client, &mut transaction).await?;
        client.rollback(transaction).await;
        Ok(readiness)
    }

    /// All cursors kept beside the table; none when there is no cursor table.
    pub async fn read_cursors(&self) -> Result<Vec<Cursor>, Failure> {
        let mut client = self.client()?;
        let cursors = CursorTable::named(&self.0.table).map_err(PostgresError::from)?;
        let mut transaction = client.begin().await?;
        let found = cursors.read_all(&client, &mut transaction).await?;
        client.rollback(transaction).await;
        Ok(found)
    }

    /// Whether records that are delivered again leave the table as it is: not where an old row would cover a newer one, or
    /// be refused.
    pub fn survives_rewind(&self) -> bool {
        self.0.survives_rewind()
    }

    /// How many rows the table has, and of how many records.
    pub async fn count_rows(&self) -> Result<RowCount, Failure> {
        const ACTION: &str = "count the rows";
        let table = TableName::parse(&self.0.table).map_err(PostgresError::from)?.quoted();
        let sql = format!(
            "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT _origin, _position, _ordinal FROM {table}) AS d) FROM {table}"
        );
        let mut client = self.client()?;
        let mut transaction = client.begin().await?;
        let asked = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut transaction.connection);
        let (rows, distinct): (i64, i64) = client.within(ACTION, asked).await?;
        client.rollback(transaction).await;
        Ok(RowCount { rows: rows.cast_unsigned(), distinct: distinct.cast_unsigned() })
    }

    fn client(&self) -> Result<Client, PostgresError> {
        let limit = self.0.statement_timeout()?;
        Ok(Client::new(self.0.address()?, self.0.password_file.clone(), limit))
    }

    fn table(&self, schema: &SchemaRef) -> Result<Table, PostgresError> {
        let config = &self.0;
        let (mode, key, version) = (config.mode(), config.key(), config.version.as_deref());
        Table::new(&config.table, schema, mode, key, version, config.truncate)
    }
}
