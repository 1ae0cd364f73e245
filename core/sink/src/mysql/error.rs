//! What can go wrong with a MySQL or MariaDB destination, by cause, and which kind of failure it is to the engine.
//!
//! The servers name causes by number (`mysqld_error.h`, `errmsg-utf8.txt`), more exactly than by SQLSTATE; [`Cause`] is what Garam
//! makes of one.

use garam_stage::FailureKind;
use sqlx::mysql::MySqlDatabaseError;

use super::dialect::Dialect;
pub(crate) use crate::server_error::Cause;
use crate::server_error::{OwnError, ServerError};

/// Why the destination could not do what was asked.
pub type MySqlError = ServerError<OnlyMySql>;

/// What only MySQL and MariaDB say.
#[derive(Debug, thiserror::Error)]
pub enum OnlyMySql {
    #[error("cannot write at {place}: {why}")]
    Server { place: String, why: ServerFault },
    #[error(
        "column {column} is decimal with {scale} digits behind the point, {} has at most {most}: use fewer", .dialect.name()
    )]
    Scale { column: String, scale: u8, most: u8, dialect: Dialect },
    #[error("the key has more than an index holds ({most} bytes): leave columns out of it")]
    KeyTooLong { most: usize },
    #[error(
        "table {table} took {changed} of {rows} rows without an error: rows must not disappear"
    )]
    RowsVanished { table: String, rows: usize, changed: u64 },
    #[error("others create tables at {place} for longer than {seconds} s")]
    CreationLocked { place: String, seconds: u64 },
}

/// What makes a server unfit to keep a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFault {
    /// Such a password is encrypted with a key of the server otherwise, whom nobody knows then.
    #[error(
        "it wants to see the password, which is shown under TLS only: set ssl-mode=VERIFY_IDENTITY, or at least REQUIRED"
    )]
    NeedsTls,
    #[error("it is read-only (read_only = on), as a replica is")]
    ReadOnly,
    #[error(
        "innodb_flush_log_at_trx_commit is {found}, so a power cut would lose what was acknowledged: set it to 1"
    )]
    NotSynced { found: i64 },
    #[error(
        "the binary log is on and sync_binlog is {found}, so a power cut would lose what was acknowledged: set it to 1"
    )]
    BinlogNotSynced { found: i64 },
    #[error(
        "the address names no database: add one behind the port, or write the table as DATABASE.NAME"
    )]
    NoDatabase,
    #[error(
        "its version is {found}, at least {} {}.{}.{} is needed",
        .dialect.name(), .dialect.oldest().0, .dialect.oldest().1, .dialect.oldest().2
    )]
    Version { found: String, dialect: Dialect },
}

impl OwnError for OnlyMySql {
    const ADDRESS: &'static str =
        "MySQL address: expected mysql://USER:PASSWORD@HOST:PORT/DATABASE";

    fn kind(&self) -> FailureKind {
        match self {
            Self::Scale { .. } | Self::KeyTooLong { .. } | Self::RowsVanished { .. } => {
                FailureKind::Schema
            }
            Self::Server { why: ServerFault::NoDatabase, .. } => FailureKind::Config,
            Self::Server { why: ServerFault::ReadOnly, .. } => FailureKind::Unreachable,
            Self::Server { .. } => FailureKind::Refused,
            Self::CreationLocked { .. } => FailureKind::Contention,
        }
    }

    fn judge(error: &sqlx::Error) -> Cause {
        cause(error)
    }
}

/// The server's number of an error, when it came from the server itself.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// Whether a key that is there already stands in the way.
pub(crate) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1062 | 1169 | 1586))
}

/// Whether the server said that a COMMIT failed and everything is undone: a cluster's certification does. Anything less clear
/// is unknown.
pub(crate) fn undone_by_commit(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1213 | 3101))
}

/// What the error of a statement means.
pub(crate) fn cause(error: &sqlx::Error) -> Cause {
    let Some(found) = error.as_database_error() else {
        return Cause::of_connection(error);
    };
    let state = found.code().unwrap_or_default();
    Cause::Failure(match number(error).unwrap_or_default() {
        // Duplicates, nulls, lengths, ranges, texts, foreign keys, checks, a view's check option, a trigger's own error, a
        // partition that no value fits, a row too large for a page or the undo log.
        1048 | 1062 | 1118 | 1169 | 1264 | 1265 | 1292 | 1366 | 1367 | 1369 | 1406 | 1411
        | 1451 | 1452 | 1526 | 1586 | 1644 | 1690 | 1713 | 1748 | 3819 => return Cause::Row,
        // MariaDB's CHECK; MySQL has another error of that number.
        4025 if state == "23000" => return Cause::Row,
        // Deadlock, lock wait timeout (which undoes the statement only: the transaction is closed by who gets this), locks that
        // are not waited for, changed since it was read, statement timeouts, a table altered meanwhile, a lock table that is
        // full, a killed statement.
        1213 | 1205 | 3572 | 1020 | 3024 | 1969 | 1412 | 1615 | 1206 | 1317 => {
            FailureKind::Contention
        }
        // Read-only: what was the primary is a replica now.
        1792 | 1836 => FailureKind::Unreachable,
        1290 if found.message().contains("read-only") => FailureKind::Unreachable,
        // Table full, disk full.
        1114 | 1021 => FailureKind::Full,
        // No space left, as the storage engine hands it on.
        3 | 1026 | 1030 if found.message().contains("28") => FailureKind::Full,
        1034 | 1035 | 1194 | 1195 | 1712 => FailureKind::Corrupt,
        // Shutdown, killed connections, idle too long, too many connections or statements, no memory, a packet that broke.
        1040
        | 1041
        | 1053
        | 1077
        | 1037
        | 1038
        | 1152..=1161
        | 1184
        | 1203
        | 1243
        | 1461
        | 1927
        | 3169
        | 4031 => FailureKind::Unreachable,
        // Passwords, rights, databases, accounts, options.
        1044 | 1045 | 1049 | 1129 | 1130 | 1142 | 1143 | 1227 | 1251 | 1290 | 1370 | 1396
        | 1698 | 1862 | 3118 | 3955 | 4151 => FailureKind::Refused,
        // No default for a column.
        1364 => FailureKind::Schema,
        _ => match state.get(..2).unwrap_or_default() {
            // Data exception; integrity constraint violation; check option; a signal's own state.
            "22" | "23" | "44" | "45" => return Cause::Row,
            "08" => FailureKind::Unreachable,
            "28" => FailureKind::Refused,
            "40" => FailureKind::Contention,
            "42" | "0A" | "3D" => FailureKind::Schema,
            _ => FailureKind::Internal,
        },
    })
}

/// The server's own message without what it shows of the row.
pub(crate) fn own_words(error: &sqlx::Error, key: &[String]) -> String {
    let words = crate::contract::own_words(error);
    let null_key = |column: &String| words == format!("Column '{column}' cannot be null");
    match number(error) {
        // What an upsert does to a row of another key, on purpose: keys of the batch are never null.
        Some(1048) if key.iter().any(null_key) => {
            "it meets the row of another key in another unique index".to_owned()
        }
        _ => without_value(words.strip_suffix(" at row 1").unwrap_or(&words)),
    }
}

/// `Duplicate entry 'secret' for key 'k'` as `Duplicate entry for key 'k'`.
fn without_value(words: &str) -> String {
    match (words.find(" '"), words.rfind("' for ")) {
        (Some(begin), Some(end)) if begin < end => {
            let (before, behind) = (words.get(..begin), words.get(end + 1..));
            format!("{}{}", before.unwrap_or_default(), behind.unwrap_or_default())
        }
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_value;

    #[test]
    fn what_is_put_aside_shows_no_row() {
        let check = |words, expect: &str| assert_eq!(without_value(words), expect);
        check("Duplicate entry 'a' for key 'o.PRIMARY'", "Duplicate entry for key 'o.PRIMARY'");
        check("Duplicate entry 'it's' for 'x' for key 'k'", "Duplicate entry for key 'k'");
        check("Data too long for column 'name'", "Data too long for column 'name'");
        check("Incorrect date value: 'x' for column `d`", "Incorrect date value: for column `d`");
    }
}
