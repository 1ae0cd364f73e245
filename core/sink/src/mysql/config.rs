//! `[pipeline.NAME.to.mysql]`: which server and table, and how rows meet those already there. MySQL or MariaDB: the server says.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use garam_stage::{Cursor, Failure};
use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnectOptions;

use super::client::Client;
use super::cursors::CursorTable;
use super::error::{MySqlError, OnlyMySql};
use super::inspect;
use super::table::{Wanted, full_name};
use super::writer::MySqlWriter;
use crate::RowCount;
use crate::halves::Halves;
use crate::server::ServerConfig;
use crate::sqlite::{Create, Readiness};
use crate::stats::SinkStats;
use crate::table::TableName;

/// A table of a MySQL or MariaDB database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct MySqlConfig(pub ServerConfig);

impl MySqlConfig {
    /// What the operator calls it.
    pub fn label(&self) -> String {
        format!("mysql {} table {}", self.place(), self.0.table)
    }

    /// Which database, without secrets: server, port and name, or the file that says so.
    pub fn place(&self) -> String {
        self.0.place::<MySqlConnectOptions, OnlyMySql>()
    }

    /// Checks the configuration against the rows to come, without touching the server.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), MySqlError> {
        self.client()?;
        self.wanted(schema).map(|_| ())
    }

    /// The destination; it connects in `prepare`.
    pub(crate) fn build(
        &self,
        schema: &SchemaRef,
        stats: &Arc<SinkStats>,
    ) -> Result<Box<dyn Halves>, Failure> {
        let client = self.client()?.counted(stats);
        Ok(Box::new(MySqlWriter::new(client, self.wanted(schema)?, self.0.create)))
    }

    /// Reaches the server and says what `prepare` would find, changing nothing.
    pub async fn connect(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        let wanted = self.wanted(schema)?;
        let mut client = self.client()?;
        let mut transaction = client.begin().await?;
        let table = wanted.table(transaction.server.dialect)?;
        let found = inspect::look(&client, &mut transaction, &table).await?;
        let readiness = match (found, self.0.create) {
            (Some(existing), Create::Evolve)
                if !existing.additions(&table).map_err(MySqlError::from)?.is_empty() =>
            {
                Readiness::ColumnsWillBeAdded
            }
            (Some(existing), _) => {
                existing.check(&table).map_err(MySqlError::from)?;
                inspect::may_write(&client, &mut transaction, &table).await?;
                Readiness::Ready
            }
            (None, Create::Missing | Create::Evolve) => {
                inspect::may_create(&client, &mut transaction, &table).await?;
                Readiness::TableWillBeCreated
            }
            (None, Create::Never) => return Err(MySqlError::from(table.missing()).into()),
        };
        CursorTable::beside(&table.name).check(&client, &mut transaction).await?;
        client.rollback(transaction).await;
        Ok(readiness)
    }

    /// All cursors kept beside the table; none when there is no cursor table.
    pub async fn read_cursors(&self) -> Result<Vec<Cursor>, Failure> {
        let mut client = self.client()?;
        let name = TableName::parse(&self.0.table).map_err(MySqlError::from)?;
        let mut transaction = client.begin().await?;
        let found = CursorTable::beside(&name).read_all(&client, &mut transaction).await?;
        client.rollback(transaction).await;
        Ok(found)
    }

    /// Whether records that are delivered again leave the table as it is.
    pub fn survives_rewind(&self) -> bool {
        self.0.survives_rewind()
    }

    /// How many rows the table has, and of how many records.
    pub async fn count_rows(&self) -> Result<RowCount, Failure> {
        const ACTION: &str = "count the rows";
        let table = full_name(&TableName::parse(&self.0.table).map_err(MySqlError::from)?);
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

    fn client(&self) -> Result<Client, MySqlError> {
        let limit = self.0.statement_timeout()?;
        let database = TableName::parse(&self.0.table)?.schema;
        Ok(Client::new(self.0.address()?, database, self.0.password_file.clone(), limit))
    }

    fn wanted(&self, schema: &SchemaRef) -> Result<Wanted, MySqlError> {
        let config = &self.0;
        let (mode, key, version) = (config.mode(), config.key(), config.version.as_deref());
        Wanted::new(&config.table, schema, mode, &key, version, config.truncate)
    }
}
