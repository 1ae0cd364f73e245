//! `[pipeline.NAME.to.sqlite]`: which file and table, and how rows meet those already there.

use std::path::PathBuf;

use arrow_schema::SchemaRef;
use garam_stage::contract::OneOrMany;
use garam_stage::{Cursor, Destination, Failure, TableSpec, WriteMode};
use serde::Deserialize;

use super::client::Client;
use super::cursors::read_cursors;
use super::error::{SqliteError, TableError};
use super::inspect;
use super::query::{QueryLimits, QueryValue, read_only_query};
use super::table::{Table, quoted};
use super::writer::SqliteWriter;
use crate::RowCount;
use crate::changes::Truncate;
use crate::halves::Halves;

/// A table of an SQLite file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. Created when absent; its folder is not.
    pub path: PathBuf,
    /// The table's name: 1 to 63 letters, digits and `_`.
    pub table: String,
    /// `append` keeps every record, `upsert` the last one of each key. Default: `upsert` when `key` is given, else
    /// `append`.
    #[serde(default)]
    pub mode: Option<WriteMode>,
    /// The column or columns that identify a row; they must be `not null`. Only for `upsert`.
    #[serde(default)]
    pub key: Option<OneOrMany>,
    /// For rows that are changes, in `upsert`: what happens when the source's table is emptied. `pause` stops the pipeline until
    /// a person says more (default), `apply` empties the table too, `ignore` drops and counts it.
    #[serde(default)]
    pub truncate: Option<Truncate>,
    /// `missing` creates the table when it is absent (default), `never` leaves that to the operator. An existing table is
    /// never altered: `evolve` is refused.
    #[serde(default)]
    pub create: Create,
    /// More files, for a part of the keys each. Not for mode `append`. Default: none.
    #[serde(default)]
    pub shard: Vec<SqliteShard>,
}

/// `[[pipeline.NAME.to.sqlite.shard]]`: another file. What it does not say is as of the destination itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteShard {
    /// What the slot map calls it: 1 to 63 letters, digits, `-` and `_`; not `main`, which is the destination itself.
    pub name: String,
    /// Its file: no other shard's.
    pub path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Create {
    Never,
    #[default]
    Missing,
    /// And adds columns that the contract has and the table lacks. A server's only.
    Evolve,
}

/// What `prepare` would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The table is there and fits.
    Ready,
    /// The database is there, the table will be created.
    TableWillBeCreated,
    /// The table is there and fits once it has more columns, which it will get.
    ColumnsWillBeAdded,
    /// The folder is there, the database will be created.
    DatabaseWillBeCreated,
}

impl SqliteConfig {
    /// One shard as a destination of its own.
    pub(crate) fn of_shard(&self, shard: &SqliteShard) -> Self {
        Self { path: shard.path.clone(), shard: Vec::new(), ..self.clone() }
    }

    /// What the operator calls it.
    pub fn label(&self) -> String {
        format!("sqlite {} table {}", self.path.display(), self.table)
    }

    /// The table to write, checked against the rows to come. Touches nothing.
    pub fn spec(&self, schema: &SchemaRef) -> Result<TableSpec, SqliteError> {
        Ok(self.table(schema)?.into_spec())
    }

    /// The destination; it opens the file in `prepare`.
    pub fn build(&self, schema: &SchemaRef) -> Result<Box<dyn Destination>, Failure> {
        Ok(self.writer(schema)?)
    }

    pub(crate) fn writer(&self, schema: &SchemaRef) -> Result<Box<dyn Halves>, Failure> {
        let table = self.table(schema)?;
        Ok(Box::new(SqliteWriter::new(Client::new(self.path.clone()), table, self.create)))
    }

    /// Opens the database read-only and says what `prepare` would find.
    pub async fn connect(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        let table = self.table(schema)?;
        let client = Client::new(self.path.clone());
        if !client.file_exists()? {
            client.check_folder()?;
            self.may_create(&table)?;
            return Ok(Readiness::DatabaseWillBeCreated);
        }
        let mut connection = client.open_read_only().await?;
        let looked = inspect::look(&mut connection, &table.name).await;
        match looked.map_err(|source| client.error("read the table's columns", source))? {
            Some(existing) => {
                existing.check(&table).map_err(SqliteError::from)?;
                Ok(Readiness::Ready)
            }
            None => {
                self.may_create(&table)?;
                Ok(Readiness::TableWillBeCreated)
            }
        }
    }

    /// Whether records that are delivered again leave the table as it is: not where an old row would cover a newer one.
    pub fn survives_rewind(&self) -> bool {
        self.mode() == WriteMode::Append
    }

    /// All cursors kept in the file; none when it is not there yet.
    pub async fn read_cursors(&self) -> Result<Vec<Cursor>, Failure> {
        match Client::new(self.path.clone()).file_exists()? {
            true => read_cursors(&self.path).await,
            false => Ok(Vec::new()),
        }
    }

    /// How many rows the table has, and of how many records.
    pub async fn count_rows(&self) -> Result<RowCount, Failure> {
        let table = quoted(&self.table);
        let sql = format!(
            "select count(*), (select count(*) from (select distinct _origin, _position, _ordinal from {table})) from {table}"
        );
        let answer = read_only_query(&self.path, &sql, QueryLimits::default()).await?;
        let number = |i: usize| match answer.rows.first().and_then(|row| row.get(i)) {
            Some(QueryValue::Integer(n)) => u64::try_from(*n).unwrap_or(0),
            _ => 0,
        };
        Ok(RowCount { rows: number(0), distinct: number(1) })
    }

    pub(crate) fn mode(&self) -> WriteMode {
        self.mode.unwrap_or(match self.key {
            None => WriteMode::Append,
            Some(_) => WriteMode::Upsert,
        })
    }

    fn may_create(&self, table: &Table) -> Result<(), SqliteError> {
        match self.create {
            Create::Missing | Create::Evolve => Ok(()),
            Create::Never => {
                Err(TableError::Missing { table: table.name.clone(), ddl: table.ddl() }.into())
            }
        }
    }

    fn table(&self, schema: &SchemaRef) -> Result<Table, SqliteError> {
        if self.create == Create::Evolve {
            return Err(TableError::Evolve.into());
        }
        let key = self.key.clone().map(OneOrMany::into_vec).unwrap_or_default();
        let mode = self.mode();
        let spec = TableSpec { table: self.table.clone(), schema: schema.clone(), mode, key };
        Table::new(spec, self.truncate)
    }
}
