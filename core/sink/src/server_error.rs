//! What can go wrong with an SQL server as destination, by cause, and which kind of failure it is to the engine.
//!
//! In: what every kind of server says alike, and what only one says ([`OwnError`]). Not here: how a server names its causes
//! (each kind's `error`).

use std::path::PathBuf;
use std::time::Duration;

use garam_stage::{Failure, FailureKind};

use crate::row::TooLarge;
use crate::table::{ColumnTypeError, TableError};

/// What only one kind of server says, and how it names causes.
pub trait OwnError: std::error::Error + 'static {
    /// Its addresses: name and form.
    const ADDRESS: &'static str;

    /// The kind the engine and the supervisor decide by.
    fn kind(&self) -> FailureKind;

    /// What the error of a statement means.
    fn judge(error: &sqlx::Error) -> Cause;
}

/// Why the destination could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError<O: OwnError> {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("cannot read {}", .path.display())]
    Secret {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{from} holds no {}", O::ADDRESS)]
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
    #[error(transparent)]
    Own(#[from] O),
}

/// What an error of a statement means for the transaction around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The content of a row.
    Row,
    Failure(FailureKind),
}

impl Cause {
    /// Of an error that is not the server's own: what lies between has failed.
    pub(crate) fn of_connection(error: &sqlx::Error) -> Self {
        Self::Failure(match error {
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
        })
    }
}

impl<O: OwnError> ServerError<O> {
    /// The kind the engine and the supervisor decide by.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Table(error) => error.kind(),
            Self::ColumnType(_) => FailureKind::Schema,
            Self::Url { .. } => FailureKind::Config,
            Self::Secret { .. } => FailureKind::Refused,
            Self::Database { source, .. } => match O::judge(source) {
                Cause::Row => FailureKind::Data,
                Cause::Failure(kind) => kind,
            },
            Self::Silent { .. } => FailureKind::Unreachable,
            Self::CommitUnknown { .. } => FailureKind::Unknown,
            Self::Fenced { .. } | Self::CursorExists { .. } => FailureKind::Fenced,
            Self::StoredCursor { .. } => FailureKind::Corrupt,
            Self::TooLarge(_) | Self::Batch { .. } => FailureKind::Internal,
            Self::Own(error) => error.kind(),
        }
    }
}

impl<O: OwnError> From<ServerError<O>> for Failure {
    fn from(error: ServerError<O>) -> Self {
        let failure = Self::new(error.kind(), error.to_string());
        match error {
            ServerError::Database { source, .. } | ServerError::CommitUnknown { source, .. } => {
                failure.because(source)
            }
            ServerError::Secret { source, .. } => failure.because(source),
            _ => failure,
        }
    }
}
