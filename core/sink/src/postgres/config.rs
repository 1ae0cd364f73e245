//! `[pipeline.NAME.to.postgres]`: which server and table, and how rows meet those already there.

use std::path::PathBuf;
use std::time::Duration;

use arrow_schema::SchemaRef;
use garam_stage::contract::OneOrMany;
use garam_stage::{Cursor, Destination, Failure};
use serde::Deserialize;
use sqlx::AssertSqlSafe;

use super::client::{Address, Client};
use super::cursors::CursorTable;
use super::error::PostgresError;
use super::inspect;
use super::table::Table;
use super::writer::PostgresWriter;
use crate::RowCount;
use crate::address::Url;
use crate::mode::Mode;
use crate::sqlite::{Create, Readiness};
use crate::table::{TableError, TableName};

/// A table of a PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// A file whose only line is `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`. Read at each connect,
    /// so that a password can change. Exactly one of `url_file` and `url`.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// The same in place, for addresses without a secret, or as `"${env:NAME}"`.
    #[serde(default)]
    pub url: Option<Url>,
    /// A file whose only line is the password; it wins over one in the address.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The table, `NAME` or `SCHEMA.NAME`: each 1 to 63 letters, digits and `_`.
    pub table: String,
    /// How rows meet those already there. Default: `upsert` when `key` is given, else `append`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The column or columns that identify a row; they must be `not null`. For every mode but `append`.
    #[serde(default)]
    pub key: Option<OneOrMany>,
    /// The guard, for `upsert` and `update`: a column that grows with every change of a row. A record never overwrites a
    /// row with a larger one; with an equal one it may. Default: none, the last record in log order wins.
    #[serde(default)]
    pub version: Option<String>,
    /// `missing` creates the table when it is absent (default), `never` leaves that to the operator. An existing table is
    /// never altered.
    #[serde(default)]
    pub create: Create,
    /// How long the server may work on one statement. Default `60s`; 1s to 1h. A lock is waited for a sixth of it.
    #[serde(default = "default_statement_timeout", with = "humantime_serde")]
    pub statement_timeout: Duration,
}

fn default_statement_timeout() -> Duration {
    Duration::from_secs(60)
}

impl PostgresConfig {
    /// What the operator calls it.
    pub fn label(&self) -> String {
        format!("postgres {} table {}", self.place(), self.table)
    }

    /// Which database, without secrets: server, port and name, or the file that says so.
    pub fn place(&self) -> String {
        match self.address() {
            Ok(address) => address.place(),
            Err(_) => "nowhere".to_owned(),
        }
    }

    /// Checks the configuration against the rows to come. Touches nothing.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), PostgresError> {
        self.client()?;
        self.table(schema).map(|_| ())
    }

    /// The destination; it connects in `prepare`.
    pub fn build(&self, schema: &SchemaRef) -> Result<Box<dyn Destination>, Failure> {
        let writer = PostgresWriter::new(self.client()?, self.table(schema)?, self.create);
        Ok(Box::new(writer))
    }

    /// Reaches the server and says what `prepare` would find, changing nothing.
    pub async fn connect(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        let table = self.table(schema)?;
        let mut client = self.client()?;
        let mut transaction = client.begin().await?;
        let found = inspect::look(&client, &mut transaction, &table).await?;
        let readiness = match (found, self.create) {
            (Some(existing), _) => {
                existing.check(&table).map_err(PostgresError::from)?;
                Readiness::Ready
            }
            (None, Create::Missing) => {
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
        let cursors = CursorTable::named(&self.table).map_err(PostgresError::from)?;
        let mut transaction = client.begin().await?;
        let found = cursors.read_all(&client, &mut transaction).await?;
        client.rollback(transaction).await;
        Ok(found)
    }

    /// Whether records that are delivered again leave the table as it is: not where an old row would cover a newer one, or
    /// be refused.
    pub fn survives_rewind(&self) -> bool {
        self.mode().survives_rewind(self.version.is_some())
    }

    /// How many rows the table has, and of how many records.
    pub async fn count_rows(&self) -> Result<RowCount, Failure> {
        const ACTION: &str = "count the rows";
        let table = TableName::parse(&self.table).map_err(PostgresError::from)?.quoted();
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

    fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::usual(self.key.is_some()))
    }

    fn client(&self) -> Result<Client, PostgresError> {
        let limit = self.statement_timeout;
        if limit < Duration::from_secs(1) || limit > Duration::from_secs(3600) {
            return Err(TableError::StatementTimeout { found: limit }.into());
        }
        Ok(Client::new(self.address()?, self.password_file.clone(), limit))
    }

    fn address(&self) -> Result<Address, PostgresError> {
        match (&self.url_file, &self.url) {
            (Some(path), None) => Ok(Address::File(path.clone())),
            (None, Some(url)) => Address::text("url", &url.0),
            _ => Err(TableError::NoUrl.into()),
        }
    }

    fn table(&self, schema: &SchemaRef) -> Result<Table, PostgresError> {
        let key = self.key.clone().map(OneOrMany::into_vec).unwrap_or_default();
        Table::new(&self.table, schema, self.mode(), key, self.version.as_deref())
    }
}
