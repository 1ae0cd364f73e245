//! What can go wrong with a PostgreSQL destination, by cause, and which kind of failure it is to the engine.
//!
//! The server names causes by SQLSTATE (appendix A of its manual); [`Cause`] is what Garam makes of one. Texts are the server's
//! message alone: its detail and context lines show row values.

use std::path::PathBuf;
use std::time::Duration;

use garam_stage::{Failure, FailureKind};

use crate::row::TooLarge;

/// Why the destination could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("cannot read {}", .path.display())]
    Secret {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{from} holds no PostgreSQL address: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    Url { from: String },
    #[error("cannot {action} at {place}")]
    Database {
        action: &'static str,
        place: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("cannot {action} at {place}: no answer within {limit:?}")]
    Silent { action: &'static str, place: String, limit: Duration },
    /// No reply to COMMIT, or one that does not say: the rows may be there or not.
    #[error("cannot tell whether a batch was committed at {place}")]
    CommitUnknown {
        place: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("cannot write at {place}: {why}")]
    Server { place: String, why: ServerFault },
    #[error(
        "another writer moved the cursor of pipeline {pipeline} partition {partition}: expected next={next} epoch={epoch}"
    )]
    Fenced { pipeline: String, partition: u32, next: u64, epoch: u64 },
    #[error("pipeline {pipeline} partition {partition} has a cursor already")]
    CursorExists { pipeline: String, partition: u32 },
    #[error("cursor column {column} at {place} holds {found}")]
    StoredCursor { place: String, column: &'static str, found: String },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A caller's broken invariant.
    #[error("batch breaks the contract of destinations: {why}")]
    Batch { why: &'static str },
    #[error("column {column} has type {found}, which this destination cannot store")]
    ColumnType { column: String, found: String },
    #[error(
        "a trigger, rule or policy of table {table} dropped {missing} of {rows} rows without an error: remove it, rows must not disappear"
    )]
    RowsVanished { table: String, rows: usize, missing: u64 },
}

/// What makes a server unfit to keep a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFault {
    #[error("it is a standby that follows another server")]
    Standby,
    #[error(
        "transactions are read-only for this role: alter role or database, set default_transaction_read_only = off"
    )]
    ReadOnly,
    #[error(
        "fsync is off, so a power cut would lose what was acknowledged: set fsync = on in postgresql.conf"
    )]
    NoFsync,
    #[error(
        "the database is encoded in {found}, which cannot hold every text: create it with encoding UTF8"
    )]
    Encoding { found: String },
    #[error("its version is {found}, at least 12 is needed")]
    Version { found: i32 },
}

/// How configuration, contract and table do not fit together, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("say where the database is: exactly one of url_file and url")]
    NoUrl,
    #[error("statement_timeout is {found:?}, out of bounds: 1s to 1h")]
    StatementTimeout { found: Duration },
    #[error(
        "table name {table:?} cannot be used: NAME or SCHEMA.NAME, each 1 to 63 letters, digits and _, not beginning with a digit, \"pg_\" or \"_garam\""
    )]
    Name { table: String },
    #[error("mode \"{mode}\" needs key = [..]: the columns that identify a row")]
    NoKey { mode: &'static str },
    #[error(
        "mode \"append\" keeps every record, so key = [..] has no meaning: leave it out, or use another mode"
    )]
    AppendWithKey,
    #[error("key column {column} is no column of the rows")]
    UnknownKey { column: String },
    #[error("key column {column} is named twice")]
    KeyTwice { column: String },
    #[error("key column {column} may be null: declare it \"not null\" in the contract")]
    NullableKey { column: String },
    #[error("version has no meaning in mode \"{mode}\", which never changes a row: leave it out")]
    VersionMode { mode: &'static str },
    #[error("version column {column} is no column of the contract")]
    UnknownVersion { column: String },
    #[error("version column {column} may be null: declare it \"not null\" in the contract")]
    NullableVersion { column: String },
    #[error(
        "version column {column} has type {found}, which does not say which row is newer: use a number, date or timestamp"
    )]
    VersionType { column: String, found: String },
    #[error(
        "version cannot be _version: files of many hosts have no order of their own; name a column of the contract that grows with every change of a row, or upsert without a guard"
    )]
    SystemVersion,
    #[error("table {table} does not exist and create = \"never\": create it with\n{ddl}")]
    Missing { table: String, ddl: String },
    #[error("{table} is a {kind}, not a table: name another table")]
    NotATable { table: String, kind: &'static str },
    #[error(
        "table {table} is {kind}: a crash of the server would empty it and leave the cursor; alter table {table} set logged"
    )]
    NotLogged { table: String, kind: &'static str },
    #[error("table {table} lacks columns {columns}: add them with\n{ddl}")]
    MissingColumns { table: String, columns: String, ddl: String },
    #[error("column {column} of table {table} is generated: rename the contract's column")]
    Generated { table: String, column: String },
    #[error(
        "column {column} of table {table} is declared {declared}, which would change or refuse its values: it must be {needed}"
    )]
    Type { table: String, column: String, declared: String, needed: String },
    #[error(
        "column {column} of table {table} compares different texts as equal (a nondeterministic collation), so it cannot be in a key"
    )]
    Collation { table: String, column: String },
    #[error(
        "column {column} of table {table} is NOT NULL without a default and no column of the contract: give it a default"
    )]
    Required { table: String, column: String },
    #[error(
        "table {table} has no unique index on exactly ({columns}) that is checked at once: create it with\n{ddl}"
    )]
    NoUniqueIndex { table: String, columns: String, ddl: String },
    #[error("role {role} may not {rights} table {table}: {grant}")]
    Rights { table: String, role: String, rights: String, grant: String },
    #[error("role {role} may not create table {table}: {grant}")]
    Create { table: String, role: String, grant: String },
    #[error(
        "table _garam_cursors was made by another version of Garam (columns {found}): upgrade Garam, nothing was changed"
    )]
    CursorTable { found: String },
}

/// What an error of a statement means for the transaction around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The content of a row.
    Row,
    Failure(FailureKind),
}

impl PostgresError {
    /// The kind the engine and the supervisor decide by.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Table(error) if error.is_config() => FailureKind::Config,
            Self::Table(TableError::Rights { .. } | TableError::Create { .. }) => {
                FailureKind::Refused
            }
            Self::Table(_) | Self::ColumnType { .. } | Self::RowsVanished { .. } => {
                FailureKind::Schema
            }
            Self::Url { .. } => FailureKind::Config,
            Self::Secret { .. } => FailureKind::Refused,
            Self::Server { why: ServerFault::Standby, .. } => FailureKind::Unreachable,
            Self::Server { .. } => FailureKind::Refused,
            Self::Database { source, .. } => match cause(source) {
                Cause::Row => FailureKind::Data,
                Cause::Failure(kind) => kind,
            },
            Self::Silent { .. } => FailureKind::Unreachable,
            Self::CommitUnknown { .. } => FailureKind::Unknown,
            Self::Fenced { .. } | Self::CursorExists { .. } => FailureKind::Fenced,
            Self::StoredCursor { .. } => FailureKind::Corrupt,
            Self::TooLarge(_) | Self::Batch { .. } => FailureKind::Internal,
        }
    }
}

impl TableError {
    /// Whether the configuration alone is wrong, whatever the database holds.
    fn is_config(&self) -> bool {
        matches!(
            self,
            Self::NoUrl
                | Self::StatementTimeout { .. }
                | Self::Name { .. }
                | Self::NoKey { .. }
                | Self::AppendWithKey
                | Self::UnknownKey { .. }
                | Self::KeyTwice { .. }
                | Self::NullableKey { .. }
                | Self::VersionMode { .. }
                | Self::UnknownVersion { .. }
                | Self::NullableVersion { .. }
                | Self::VersionType { .. }
                | Self::SystemVersion
        )
    }
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        let failure = Failure::new(error.kind(), error.to_string());
        match error {
            PostgresError::Database { source, .. }
            | PostgresError::CommitUnknown { source, .. } => failure.because(source),
            PostgresError::Secret { source, .. } => failure.because(source),
            _ => failure,
        }
    }
}

/// The SQLSTATE, when the error came from the server itself.
pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Whether the server said that a COMMIT failed and everything is undone. Anything less clear is unknown.
pub(crate) fn undone_by_commit(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|state| state.starts_with("23") || state.starts_with("40"))
}

/// What the error of a statement means.
pub(crate) fn cause(error: &sqlx::Error) -> Cause {
    let Some(state) = sqlstate(error) else {
        return Cause::Failure(match error {
            // A certificate that is not believed, as TLS puts it.
            sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                FailureKind::Refused
            }
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => FailureKind::Unreachable,
            // A connection that breaks in the middle of a message.
            sqlx::Error::Protocol(_) => FailureKind::Unreachable,
            sqlx::Error::Tls(_) => FailureKind::Refused,
            sqlx::Error::Configuration(_) => FailureKind::Config,
            _ => FailureKind::Internal,
        });
    };
    Cause::Failure(match state.as_str() {
        // Serialization failure, deadlock, lock_timeout, statement_timeout.
        "40001" | "40P01" | "55P03" | "57014" => FailureKind::Contention,
        // A primary that became a standby under the connection.
        "25006" => FailureKind::Unreachable,
        "53100" => FailureKind::Full,
        "XX001" | "XX002" => FailureKind::Corrupt,
        "3D000" | "42501" => FailureKind::Refused,
        // A trigger's own error; a value too large for an index; a view's check option.
        "P0001" | "54000" | "44000" => return Cause::Row,
        _ => match state.get(..2).unwrap_or_default() {
            // Data exception; integrity constraint violation.
            "22" | "23" => return Cause::Row,
            // Connection exception; operator intervention; insufficient resources; system error; transaction state, which
            // a closed connection heals; a statement that the server has forgotten.
            "08" | "57" | "53" | "58" | "25" | "26" => FailureKind::Unreachable,
            "28" => FailureKind::Refused,
            "40" => FailureKind::Contention,
            "42" | "0A" | "3F" | "55" => FailureKind::Schema,
            _ => FailureKind::Internal,
        },
    })
}
