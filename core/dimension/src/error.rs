//! Why a dimension could not be read or kept, by cause.
//!
//! What is displayed holds no value of the source, so that it may be logged; [`DimensionError::values`] is for the operator who
//! asked.

use std::path::PathBuf;

use garam_stage::{Failure, FailureKind};

#[derive(Debug, thiserror::Error)]
pub enum DimensionError {
    #[error("cannot read {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read {}: it is no file", .path.display())]
    NoFile { path: PathBuf },
    #[error(
        "{} kept changing while it was read: write a whole file beside it and rename that over it", .path.display()
    )]
    Torn { path: PathBuf },
    #[error("{}: its last line has no end, so it may be cut short: end it with a line feed", .path.display())]
    CutShort { path: PathBuf },
    #[error("{place} is empty: a first line that names the columns is expected, or header = false")]
    NoHeader { place: String },
    #[error("{place}: the first line does not name the columns")]
    Header { place: String },
    #[error("{place} has no column {column}; there is {there}")]
    NoColumn { place: String, column: String, there: String },
    /// `detail` may show a value.
    #[error("{place}: {what} {number} does not fit: {reason}")]
    Row { place: String, what: &'static str, number: u64, reason: &'static str, detail: String },
    #[error("{place} has more than {limit} rows: raise max_rows, or leave rows out")]
    Rows { place: String, limit: u64 },
    #[error(
        "{place} takes more than {limit} bytes: raise max_bytes, or leave columns and rows out"
    )]
    Bytes { place: String, limit: u64 },
    /// `value` is the key that two rows have.
    #[error("{place}: rows {first} and {second} have the same key ({key}): it must name one row")]
    Twice { place: String, key: String, first: u64, second: u64, value: String },
    #[error("{place}: row {number} has no {column}, which is part of the key")]
    NoKey { place: String, number: u64, column: String },
    #[error("cannot keep a snapshot in {}", .path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A snapshot file is not what was written.
    #[error("{} cannot be used: {why}", .path.display())]
    Stored { path: PathBuf, why: String },
    /// A broken invariant.
    #[error("cannot build {place}: {why}")]
    Internal { place: String, why: String },
}

/// A value that is at fault, behind a failure that does not show it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Values(String);

impl DimensionError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => FailureKind::Refused,
                _ => FailureKind::Unreachable,
            },
            Self::NoFile { .. } => FailureKind::Refused,
            Self::Header { .. } | Self::NoHeader { .. } | Self::NoColumn { .. } => {
                FailureKind::Schema
            }
            Self::Keep { .. } => FailureKind::Full,
            Self::Stored { .. } => FailureKind::Corrupt,
            Self::Internal { .. } => FailureKind::Internal,
            Self::Torn { .. }
            | Self::CutShort { .. }
            | Self::Row { .. }
            | Self::Rows { .. }
            | Self::Bytes { .. }
            | Self::Twice { .. }
            | Self::NoKey { .. } => FailureKind::Data,
        }
    }

    /// The value that is at fault, in words.
    pub fn values(&self) -> Option<String> {
        match self {
            Self::Row { detail, .. } => Some(detail.clone()),
            Self::Twice { key, value, .. } => Some(format!("{key} = {value}")),
            _ => None,
        }
    }
}

impl From<DimensionError> for Failure {
    fn from(error: DimensionError) -> Self {
        let failure = Self::new(error.kind(), error.to_string());
        if let Some(values) = error.values() {
            return failure.because(Values(values));
        }
        match error {
            DimensionError::File { source, .. } | DimensionError::Keep { source, .. } => {
                failure.because(source)
            }
            _ => failure,
        }
    }
}

/// A failure as it may be logged and shown to everybody who may see the status: without the source's values.
pub(crate) fn without_values(failure: &Failure) -> String {
    match &failure.source {
        Some(source) if source.is::<Values>() => failure.what.clone(),
        _ => failure.to_string(),
    }
}
