//! What can go wrong with a PostgreSQL destination, by cause, and which kind of failure it is to the engine.
//!
//! The server names causes by SQLSTATE (appendix A of its manual); [`Cause`] is what Garam makes of one. Texts are the server's
//! message alone: its detail and context lines show row values.

use garam_stage::FailureKind;

pub(crate) use crate::server_error::Cause;
use crate::server_error::{OwnError, ServerError};

/// Why the destination could not do what was asked.
pub type PostgresError = ServerError<OnlyPostgres>;

/// What only PostgreSQL says.
#[derive(Debug, thiserror::Error)]
pub enum OnlyPostgres {
    #[error("cannot write at {place}: {why}")]
    Server { place: String, why: ServerFault },
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

impl OwnError for OnlyPostgres {
    const ADDRESS: &'static str =
        "PostgreSQL address: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE";

    fn kind(&self) -> FailureKind {
        match self {
            Self::RowsVanished { .. } => FailureKind::Schema,
            Self::Server { why: ServerFault::Standby, .. } => FailureKind::Unreachable,
            Self::Server { .. } => FailureKind::Refused,
        }
    }

    fn judge(error: &sqlx::Error) -> Cause {
        cause(error)
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
        return Cause::of_connection(error);
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
