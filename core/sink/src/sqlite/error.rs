//! What can go wrong with an SQLite destination, by cause, and which kind of failure it is to the engine.

use std::path::PathBuf;

use garam_stage::{Failure, FailureKind};

use crate::changes::ChangesError;
use crate::row::TooLarge;

/// Why the destination could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("cannot {action} in {}", .path.display())]
    Database {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    /// The file cannot be opened; `source` is what the operating system says about it.
    #[error("cannot open database {}", .path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The reply to COMMIT was an error: the rows may be there or not.
    #[error("cannot tell whether a batch was committed to {}", .path.display())]
    CommitUnknown {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "another writer moved the cursor of pipeline {pipeline} partition {partition}: expected next={next} epoch={epoch}"
    )]
    Fenced { pipeline: String, partition: u32, next: u64, epoch: u64 },
    #[error("pipeline {pipeline} partition {partition} has a cursor already")]
    CursorExists { pipeline: String, partition: u32 },
    #[error("cursor column {column} of {} holds {found}", .path.display())]
    StoredCursor { path: PathBuf, column: &'static str, found: String },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A caller's broken invariant.
    #[error("batch breaks the contract of destinations: {why}")]
    Batch { why: &'static str },
    #[error("column {column} has type {found}, which this destination cannot store")]
    ColumnType { column: String, found: String },
    #[error(
        "a trigger or rule of table {table} dropped {missing} of {rows} rows without an error: remove it, rows must not disappear"
    )]
    RowsVanished { table: String, rows: usize, missing: u64 },
    #[error("query is not one statement: leave out what follows the semicolon")]
    ManyStatements,
    #[error("query took longer than {limit:?} and was stopped")]
    QueryTimeout { limit: std::time::Duration },
}

/// How configuration, contract and table do not fit together, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Changes(#[from] ChangesError),
    #[error(
        "table name {table:?} cannot be used: 1 to 63 letters, digits and _, not beginning with a digit, \"sqlite_\" or \"_garam\""
    )]
    Name { table: String },
    #[error("create = \"evolve\" is for servers: SQLite's tables are altered by hand")]
    Evolve,
    #[error("mode \"upsert\" needs key = [..]: the columns that identify a row")]
    UpsertWithoutKey,
    #[error(
        "mode \"append\" keeps every record, so key = [..] has no meaning: leave it out, or use mode \"upsert\""
    )]
    AppendWithKey,
    #[error("key column {column} is no column of the rows")]
    UnknownKey { column: String },
    #[error("key column {column} is named twice")]
    KeyTwice { column: String },
    #[error("key column {column} may be null: declare it \"not null\" in the contract")]
    NullableKey { column: String },
    #[error("table {table} does not exist and create = \"never\": create it with\n{ddl}")]
    Missing { table: String, ddl: String },
    #[error("{table} is a {kind}, not a table: name another table")]
    NotATable { table: String, kind: String },
    #[error("table {table} lacks columns {columns}: add them with\n{ddl}")]
    MissingColumns { table: String, columns: String, ddl: String },
    #[error("column {column} of table {table} is generated: rename the contract's column")]
    Generated { table: String, column: String },
    #[error(
        "column {column} of table {table} is declared {declared:?}, which would change its values: it must be {needed}"
    )]
    Affinity { table: String, column: String, declared: String, needed: &'static str },
    #[error(
        "column {column} of table {table} is NOT NULL without a default and no column of the contract: give it a default"
    )]
    Required { table: String, column: String },
    #[error("table {table} has no unique index on exactly ({columns}): create it with\n{ddl}")]
    NoUniqueIndex { table: String, columns: String, ddl: String },
    #[error(
        "table {table} has another unique index, {index} on ({columns}): an upsert by ({key}) could hit it for a row of another key: drop that index, make it non-unique, or use it as key"
    )]
    OtherUniqueIndex { table: String, index: String, columns: String, key: String },
    #[error(
        "table _garam_cursors was made by another version of Garam (columns {found}): upgrade Garam, nothing was changed"
    )]
    CursorTable { found: String },
}

impl SqliteError {
    /// The kind the engine and the supervisor decide by.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Table(TableError::Changes(error)) => error.kind(),
            Self::Table(error) if error.is_config() => FailureKind::Config,
            Self::Table(_) | Self::ColumnType { .. } | Self::RowsVanished { .. } => {
                FailureKind::Schema
            }
            Self::Database { source, .. } => kind_of(source),
            Self::Open { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied
                | std::io::ErrorKind::ReadOnlyFilesystem
                | std::io::ErrorKind::NotFound
                | std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::IsADirectory => FailureKind::Refused,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    FailureKind::Full
                }
                _ => FailureKind::Unreachable,
            },
            Self::CommitUnknown { .. } => FailureKind::Unknown,
            Self::Fenced { .. } | Self::CursorExists { .. } => FailureKind::Fenced,
            Self::StoredCursor { .. } => FailureKind::Corrupt,
            Self::TooLarge(_) | Self::Batch { .. } => FailureKind::Internal,
            Self::ManyStatements => FailureKind::Config,
            Self::QueryTimeout { .. } => FailureKind::Unreachable,
        }
    }
}

impl TableError {
    /// Whether the configuration alone is wrong, whatever the database holds.
    fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Name { .. }
                | Self::Evolve
                | Self::UpsertWithoutKey
                | Self::AppendWithKey
                | Self::UnknownKey { .. }
                | Self::KeyTwice { .. }
                | Self::NullableKey { .. }
        )
    }
}

impl From<SqliteError> for Failure {
    fn from(error: SqliteError) -> Self {
        let kind = error.kind();
        let what = error.to_string();
        match error {
            SqliteError::Database { source, .. } | SqliteError::CommitUnknown { source, .. } => {
                Failure::new(kind, what).because(source)
            }
            SqliteError::Open { source, .. } => Failure::new(kind, what).because(source),
            _ => Failure::new(kind, what),
        }
    }
}

/// Primary result codes of SQLite (`sqlite3.h`); the low byte of an extended code.
pub(crate) mod code {
    pub(crate) const ERROR: i32 = 1;
    pub(crate) const PERM: i32 = 3;
    pub(crate) const BUSY: i32 = 5;
    pub(crate) const LOCKED: i32 = 6;
    pub(crate) const READONLY: i32 = 8;
    pub(crate) const INTERRUPT: i32 = 9;
    pub(crate) const IOERR: i32 = 10;
    pub(crate) const CORRUPT: i32 = 11;
    pub(crate) const FULL: i32 = 13;
    pub(crate) const CANTOPEN: i32 = 14;
    pub(crate) const SCHEMA: i32 = 17;
    pub(crate) const TOOBIG: i32 = 18;
    pub(crate) const CONSTRAINT: i32 = 19;
    pub(crate) const MISMATCH: i32 = 20;
    pub(crate) const AUTH: i32 = 23;
    pub(crate) const NOTADB: i32 = 26;
}

/// The primary result code, when the error came from SQLite itself.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

/// Whether a row's content caused the error.
pub(crate) fn is_row_error(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::CONSTRAINT | code::MISMATCH | code::TOOBIG))
}

fn kind_of(error: &sqlx::Error) -> FailureKind {
    let Some(code) = primary_code(error) else {
        return match error {
            sqlx::Error::Io(_) => FailureKind::Unreachable,
            _ => FailureKind::Internal,
        };
    };
    match code {
        code::BUSY | code::LOCKED => FailureKind::Contention,
        code::FULL => FailureKind::Full,
        code::CORRUPT | code::NOTADB => FailureKind::Corrupt,
        code::READONLY | code::PERM | code::AUTH => FailureKind::Refused,
        code::CANTOPEN | code::IOERR | code::INTERRUPT => FailureKind::Unreachable,
        code::ERROR | code::SCHEMA => FailureKind::Schema,
        code::CONSTRAINT | code::MISMATCH | code::TOOBIG => FailureKind::Data,
        _ => FailureKind::Internal,
    }
}
