//! SQL destinations: rows and cursor kept in one transaction of the database that receives them.
//!
//! In: [`garam_stage::StagedBatch`]. Out: `Written` once rows and cursor are committed, `Refused` with every row that stands
//! in the way and nothing committed. Promise: that of [`garam_stage::Destination`], proved against the real database.
//! Not here: refining, retries across restarts, quarantine. One folder per database; a new one is a folder and a line in
//! [`SinkConfig`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use arrow_schema::SchemaRef;
use garam_stage::{Cursor, Destination, Failure, MAIN_SHARD, SlotMap, WriteMode};
use serde::Deserialize;

pub mod address;
mod changes;
mod columns;
mod contract;
mod fold;
mod halves;
mod limits;
mod mode;
pub mod mysql;
pub mod postgres;
mod prompt;
mod row;
mod server;
mod server_error;
mod settings;
mod shards;
pub mod sqlite;
mod stats;
mod table;
mod table_error;

pub use changes::{ChangesError, Truncate};
pub use mysql::MySqlConfig;
pub use postgres::PostgresConfig;
pub use row::TooLarge;
pub use server::{ServerConfig, ServerShard};
pub use sqlite::{Readiness, SqliteConfig};
pub use stats::{SinkFigures, SinkStats};

use halves::Halves;
use mode::Mode;
use shards::Sharded;
use stats::Counted;

/// `[pipeline.NAME.to.KIND]`: the one destination of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkConfig {
    /// A table of a MySQL or MariaDB database.
    #[serde(rename = "mysql")]
    MySql(Box<MySqlConfig>),
    /// A table of a PostgreSQL database.
    Postgres(Box<PostgresConfig>),
    /// A table of an SQLite file.
    Sqlite(SqliteConfig),
}

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCount {
    pub rows: u64,
    /// Different (`_origin`, `_position`, `_ordinal`).
    pub distinct: u64,
}

impl SinkConfig {
    /// What the operator calls it: kind, place and table, and how many shards there are besides.
    pub fn label(&self) -> String {
        let main = match self {
            Self::MySql(config) => config.label(),
            Self::Postgres(config) => config.label(),
            Self::Sqlite(config) => config.label(),
        };
        match self.shards().len() - 1 {
            0 => main,
            more => format!("{main} and {more} more shards"),
        }
    }

    /// Checks the configuration against the rows to come, without touching the database.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), Failure> {
        match self {
            Self::MySql(config) => config.check(schema)?,
            Self::Postgres(config) => config.check(schema)?,
            Self::Sqlite(config) => config.spec(schema).map(drop)?,
        }
        self.check_shards(schema)
    }

    /// The destination, not connected yet: it connects in `prepare`.
    pub fn build(&self, schema: &SchemaRef) -> Result<Box<dyn Destination>, Failure> {
        self.build_counted(schema, Arc::default(), &self.first_map())
    }

    /// The same, by the slot map that its rows are placed by, with figures that are shared with whoever shows them.
    pub fn build_counted(
        &self,
        schema: &SchemaRef,
        stats: Arc<SinkStats>,
        map: &SlotMap,
    ) -> Result<Box<dyn Destination>, Failure> {
        let inner: Box<dyn Destination> = match map.parts.as_slice() {
            [part] => self.shard_of(&part.shard)?.writer(schema, &stats)?,
            _ => Box::new(Sharded::new(self, schema, &stats, map)?),
        };
        let create = match self {
            Self::MySql(config) => config.0.create,
            Self::Postgres(config) => config.0.create,
            Self::Sqlite(config) => config.create,
        };
        let creates = create != sqlite::Create::Never;
        Ok(Box::new(Counted { inner, stats, creates }))
    }

    /// The one writer of one database.
    fn writer(
        &self,
        schema: &SchemaRef,
        stats: &Arc<SinkStats>,
    ) -> Result<Box<dyn Halves>, Failure> {
        match self {
            Self::MySql(config) => config.build(schema, stats),
            Self::Postgres(config) => config.build(schema, stats),
            Self::Sqlite(config) => config.writer(schema),
        }
    }

    /// As `[pipeline.NAME.to.KIND]` spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::MySql(_) => "mysql",
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// The database, without secrets, and the table: two pipelines that name the same would fight over its rows.
    pub fn target(&self) -> (String, &str) {
        match self {
            Self::MySql(config) => (config.place(), &config.0.table),
            Self::Postgres(config) => (config.place(), &config.0.table),
            Self::Sqlite(config) => (config.path.display().to_string(), &config.table),
        }
    }

    /// Whether every record is a row of its own, and stays.
    pub fn keeps_history(&self) -> bool {
        match self {
            Self::MySql(config) => config.0.mode() == Mode::Append,
            Self::Postgres(config) => config.0.mode() == Mode::Append,
            Self::Sqlite(config) => config.mode() == WriteMode::Append,
        }
    }

    /// What happens when the source's table is emptied, where the configuration says.
    pub fn truncate(&self) -> Option<Truncate> {
        match self {
            Self::MySql(config) => config.0.truncate,
            Self::Postgres(config) => config.0.truncate,
            Self::Sqlite(config) => config.truncate,
        }
    }

    /// Whether records that are delivered again leave the table as it is.
    pub fn survives_rewind(&self) -> bool {
        match self {
            Self::MySql(config) => config.survives_rewind(),
            Self::Postgres(config) => config.survives_rewind(),
            Self::Sqlite(config) => config.survives_rewind(),
        }
    }

    /// All cursors kept in the main shard's database, with those of whole pipelines; none when there is no database or no cursor table yet.
    pub async fn read_cursors(&self) -> Result<Vec<Cursor>, Failure> {
        match self {
            Self::MySql(config) => config.read_cursors().await,
            Self::Postgres(config) => config.read_cursors().await,
            Self::Sqlite(config) => config.read_cursors().await,
        }
    }

    /// How many rows the table has, over all shards, and of how many records; for people and counts at the end of a run, not
    /// for decisions.
    pub async fn count_rows(&self) -> Result<RowCount, Failure> {
        let mut sum = RowCount { rows: 0, distinct: 0 };
        for (_, shard) in self.shards() {
            let RowCount { rows, distinct } = shard.count_table().await?;
            sum = RowCount { rows: sum.rows + rows, distinct: sum.distinct + distinct };
        }
        Ok(sum)
    }

    async fn count_table(&self) -> Result<RowCount, Failure> {
        match self {
            Self::MySql(config) => config.count_rows().await,
            Self::Postgres(config) => config.count_rows().await,
            Self::Sqlite(config) => config.count_rows().await,
        }
    }

    /// Reaches the database, and every shard's, and says what `prepare` would find, changing nothing.
    pub async fn connect(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        let mut found = Readiness::Ready;
        for (name, shard) in self.shards() {
            let readiness = shard.look(schema).await;
            let readiness = readiness.map_err(|failure| match name == MAIN_SHARD {
                true => failure,
                false => shards::of_shard(&name, failure),
            })?;
            if readiness != Readiness::Ready {
                found = readiness;
            }
        }
        Ok(found)
    }

    async fn look(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        match self {
            Self::MySql(config) => config.connect(schema).await,
            Self::Postgres(config) => config.connect(schema).await,
            Self::Sqlite(config) => config.connect(schema).await,
        }
    }
}
