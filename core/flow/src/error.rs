//! What the engine itself finds wrong, by cause; at the door it becomes a [`Failure`].
//!
//! In: a log's error, a rule of the protocol that does not hold. Out: [`Failure`] with the kind that decides what the
//! supervisor does, and a text that names the operator's choices.
//! Not here: failures of refiner, destination and memory, which arrive as [`Failure`] and pass through unchanged.

use garam_log::LogError;
use garam_proto::{Incarnation, LogOffset, Malformed, PartitionId};
use garam_stage::{Failure, FailureKind};

use crate::producer::NotAppended;

/// Why a flow stops by its own decision.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    #[error("cannot {doing}")]
    Log {
        doing: &'static str,
        #[source]
        source: LogError,
    },
    #[error(
        "cannot continue {partition}: the cursor was written for incarnation {stored} of the log, which is {found} now; nothing was changed: rewind the pipeline to the log's start, re-base the cursor, or accept a counted gap"
    )]
    OtherIncarnation { partition: PartitionId, stored: Incarnation, found: Incarnation },
    #[error(
        "cannot continue {partition}: the cursor stands at {next}, the log holds [{start}, {end}]; nothing was changed: rewind the pipeline to the log's start, re-base the cursor, or accept a counted gap"
    )]
    CursorOutside { partition: PartitionId, next: LogOffset, start: LogOffset, end: LogOffset },
    #[error(
        "cannot continue {partition}: the cursor stands at {next} of an earlier life of the log, which went another way at {branch} (restored from a backup, or repaired); nothing was changed: rewind the pipeline to the log's start, re-base the cursor, or accept a counted gap"
    )]
    CursorBeyondBranch { partition: PartitionId, next: LogOffset, branch: LogOffset },
    #[error(
        "cannot continue {partition}: the entry before offset {next} is not the one the cursor was written for (fingerprint {found:016x}, expected {expected:016x}); nothing was changed: rewind the pipeline, re-base the cursor, or accept a counted gap"
    )]
    OtherFingerprint { partition: PartitionId, next: LogOffset, expected: u64, found: u64 },
    #[error(
        "cannot continue {partition}: the destination has no cursor, but one at offset {remembered} is remembered; nothing was changed: restore the destination, rewind the pipeline to the log's start, re-base the cursor at {remembered}, or accept a counted gap"
    )]
    CursorLost { partition: PartitionId, remembered: LogOffset },
    #[error(
        "cannot continue: the cursor needs quarantine entries from {next} on, {partition} holds [{start}, {end}] of them; nothing was changed: rewind the pipeline to the log's start, so that what was put aside is judged again; or re-base the cursor and accept that records put aside are missing from the quarantine or delivered"
    )]
    QuarantineOutside { partition: PartitionId, next: LogOffset, start: LogOffset, end: LogOffset },
    #[error("cannot read binding entry {offset} of {partition}: {why}")]
    QuarantineUnreadable { partition: PartitionId, offset: LogOffset, why: String },
    #[error("cannot encode a quarantine entry")]
    QuarantineEncode(#[from] Malformed),
    #[error("the quarantine of this pipeline has a newer owner, this writer stops")]
    QuarantineTaken,
    #[error("the quarantine's mark is {found} where this writer put {expected}")]
    QuarantineMark { expected: u128, found: u128 },
    #[error(
        "the cursor moved to {found} while this writer stood between {from} and {to}: another writer is active, this one stops"
    )]
    Overtaken { from: LogOffset, to: LogOffset, found: LogOffset },
    #[error(
        "{rounds} rounds of refused rows from offset {next} on, and still more are refused: the table does not fit the rows; check the table's constraints against the contract"
    )]
    RefusedAgain { next: LogOffset, rounds: u32 },
    #[error(
        "{bad} of {records} records from offset {next} of {partition} on break the contract, the first with {reason}: {detail}; nothing was put aside: make the contract fit and restart, or raise quarantine.max_share to have them put aside"
    )]
    Systemic {
        partition: PartitionId,
        next: LogOffset,
        bad: u64,
        records: u64,
        reason: &'static str,
        detail: String,
    },
    #[error(
        "counters do not balance at offset {next}: {records_in} in, {delivered} delivered, {quarantined} quarantined, {dropped} dropped"
    )]
    Unbalanced { next: LogOffset, records_in: u64, delivered: u64, quarantined: u64, dropped: u64 },
    #[error("the refiner broke its contract: {why}")]
    Refiner { why: String },
    #[error("the destination broke its contract: {why}")]
    Destination { why: String },
    #[error("cannot cut rows out of a batch")]
    Arrow(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("a worker thread was lost while {doing}")]
    Worker {
        doing: &'static str,
        #[source]
        source: tokio::task::JoinError,
    },
    #[error("no randomness for a session id")]
    Random(#[source] getrandom::Error),
}

impl FlowError {
    /// Wraps a log's error with what was being done: use with `map_err`.
    pub(crate) fn log(doing: &'static str) -> impl FnOnce(LogError) -> Failure {
        move |source| Self::Log { doing, source }.into()
    }

    /// What an append to the quarantine or the requeue lane came to.
    pub(crate) fn quarantine(doing: &'static str, error: NotAppended) -> Failure {
        match error {
            NotAppended::Log(source) => Self::Log { doing, source },
            NotAppended::Stale => Self::QuarantineTaken,
            NotAppended::Mark { expected, found } => Self::QuarantineMark { expected, found },
        }
        .into()
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Log { source, .. } => log_kind(source),
            Self::OtherIncarnation { .. }
            | Self::CursorOutside { .. }
            | Self::CursorBeyondBranch { .. }
            | Self::OtherFingerprint { .. }
            | Self::CursorLost { .. }
            | Self::QuarantineOutside { .. } => FailureKind::Cursor,
            Self::QuarantineUnreadable { .. } => FailureKind::Corrupt,
            Self::QuarantineTaken | Self::Overtaken { .. } => FailureKind::Fenced,
            Self::RefusedAgain { .. } | Self::Systemic { .. } => FailureKind::Schema,
            Self::QuarantineEncode(_)
            | Self::QuarantineMark { .. }
            | Self::Unbalanced { .. }
            | Self::Refiner { .. }
            | Self::Destination { .. }
            | Self::Arrow(_)
            | Self::Worker { .. }
            | Self::Random(_) => FailureKind::Internal,
        }
    }
}

fn log_kind(error: &LogError) -> FailureKind {
    match error {
        LogError::UnknownStream { .. } | LogError::NewerFormat { .. } | LogError::Locked { .. } => {
            FailureKind::Config
        }
        LogError::UnknownOrigin { .. } | LogError::Invalid { .. } => FailureKind::Internal,
        LogError::Denied(_) | LogError::Stopped { .. } | LogError::Io { .. } => {
            FailureKind::Refused
        }
        LogError::Full { .. } => FailureKind::Full,
        LogError::Damaged { .. } => FailureKind::Corrupt,
        LogError::OutOfRange { .. } => FailureKind::Cursor,
        LogError::Closed => FailureKind::Unreachable,
    }
}

impl From<FlowError> for Failure {
    fn from(error: FlowError) -> Self {
        let (kind, what) = (error.kind(), error.to_string());
        let failure = Failure::new(kind, what);
        match error {
            FlowError::Log { source, .. } => failure.because(source),
            FlowError::QuarantineEncode(source) => failure.because(source),
            FlowError::Arrow(source) => failure.because(source),
            FlowError::Worker { source, .. } => failure.because(source),
            FlowError::Random(source) => failure.because(source),
            _ => failure,
        }
    }
}
