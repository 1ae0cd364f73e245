//! What can go wrong with a PostgreSQL destination, by cause, and which kind of failure it is to the engine.
//!
//! The server names causes by SQLSTATE (appendix A of its manual); [`Cause`] is what Garam makes of one. Texts are the server's
//! message alone: its detail and context lines show row values.

use std::path::PathBuf;
use std::time::Duration;

use garam_stage::{Failure, FailureKind};

use crate::row::TooLarge;
use crate::table::{ColumnTypeError, TableError};

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
    #[error(transparent)]
    ColumnType(#[from] ColumnTypeError),
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
            Self::Table(error) => error.kind(),
            Self::ColumnType(_) | Self::RowsVanished { .. } => FailureKind::Schema,
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
