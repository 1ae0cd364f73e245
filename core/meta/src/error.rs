//! What can go wrong with the core's own tables, by cause.

use std::path::{Path, PathBuf};

use garam_stage::{Failure, FailureKind};

use crate::copy;

#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error(
        "{} has format {found}, this build reads up to {supported}: upgrade Garam, nothing was changed",
        .path.display()
    )]
    NewerFormat { path: PathBuf, found: i64, supported: i64 },
    #[error(
        "{} is an SQLite file of another program: give this core a data_dir of its own, nothing was changed",
        .path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} is damaged: {found}; nothing was changed: {}",
        .path.display(), ways_out(.path)
    )]
    Damaged { path: PathBuf, found: String },
    #[error(
        "{} is not what its copy says: the {what} of the copy is not in it (restored from an older backup, or damaged); nothing was changed: {}; if the file is right, remove the copy",
        .path.display(), ways_out(.path)
    )]
    OtherThanCopy { path: PathBuf, what: String },
    #[error(
        "{} is missing or empty, but its copy is there: put the copy back (cp {} {}); or remove the copy too, and the core starts with new ids: pipelines then begin as at their first start",
        .path.display(), copy::path_of(.path).display(), .path.display()
    )]
    Missing { path: PathBuf },
    #[error("{}: {what} holds {found:?}, which is not its form", .path.display())]
    Stored { path: PathBuf, what: &'static str, found: String },
    #[error(
        "two plans have the id {id:016x}: change the pipeline's SQL in any way, a blank will do"
    )]
    PlanCollision { id: u64 },
    #[error(
        "pipeline {pipeline} has its rows in shards {stored}, and the configuration says {found}: put those back; other shards need a pipeline of another name, which fills them from what the log holds"
    )]
    OtherShards { pipeline: String, stored: String, found: String },
    #[error("{what} is {value}, above what an SQLite integer holds")]
    TooLarge { what: &'static str, value: u64 },
    #[error("cannot {action} {}", .path.display())]
    Sql {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: sqlx::Error,
    },
}

impl MetaError {
    pub(crate) fn sql(path: &Path, action: &'static str, source: sqlx::Error) -> Self {
        match primary_code(&source) {
            // SQLITE_CORRUPT, SQLITE_NOTADB
            Some(11 | 26) => Self::Damaged { path: path.to_owned(), found: source.to_string() },
            _ => Self::Sql { path: path.to_owned(), action, source },
        }
    }

    /// The kind the supervisor decides by.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NewerFormat { .. }
            | Self::Foreign { .. }
            | Self::PlanCollision { .. }
            | Self::OtherShards { .. } => FailureKind::Config,
            Self::Damaged { .. }
            | Self::OtherThanCopy { .. }
            | Self::Missing { .. }
            | Self::Stored { .. } => FailureKind::Corrupt,
            Self::TooLarge { .. } => FailureKind::Internal,
            Self::Sql { source, .. } => match primary_code(source) {
                _ if is_contention(source) => FailureKind::Contention,
                // SQLITE_FULL
                Some(13) => FailureKind::Full,
                // SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN
                Some(3 | 8 | 14) => FailureKind::Refused,
                // SQLITE_IOERR
                Some(10) => FailureKind::Unreachable,
                _ => FailureKind::Internal,
            },
        }
    }
}

impl From<MetaError> for Failure {
    fn from(error: MetaError) -> Self {
        let failure = Failure::new(error.kind(), error.to_string());
        match error {
            MetaError::Sql { source, .. } => failure.because(source),
            _ => failure,
        }
    }
}

/// The choices of an operator whose file cannot be used.
fn ways_out(path: &Path) -> String {
    format!(
        "stop the core, move {0}, {0}-wal and {0}-shm away, then put back {1} as {0}, or a backup; without either remove {1} too, and the core starts with new ids: pipelines then begin as at their first start",
        path.display(),
        copy::path_of(path).display()
    )
}

/// Another connection holds the file: SQLITE_BUSY, SQLITE_LOCKED.
pub(crate) fn is_contention(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(5 | 6))
}

/// SQLite's primary result code, when the error is its own.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}
