//! `garam query`: one statement over a destination, read-only.
//!
//! In: SQL from an operator. Out: column names and rows as plain values, cut at a limit. Promise: nothing can be written
//! (opened read-only, `query_only` besides), no second statement runs, and the query ends: by rows, bytes or time.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use garam_stage::Failure;
use serde::{Serialize, Serializer};
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, Column as _, Executor as _, Row as _, SqlSafeStr as _, SqliteConnection,
    Statement as _, TypeInfo as _, ValueRef as _,
};

use super::client::Client;
use super::error::{SqliteError, code, primary_code};

/// How many virtual machine steps pass between two looks at the clock.
const STEPS: i32 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// The most rows returned.
    pub rows: usize,
    /// The most bytes of values returned.
    pub bytes: usize,
    pub time: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { rows: 1_000, bytes: 64 * 1024 * 1024, time: Duration::from_secs(30) }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<QueryValue>>,
    /// There was more than the limits allow.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// Runs one statement against a database file that is there.
pub async fn read_only_query(
    path: &Path,
    sql: &str,
    limits: QueryLimits,
) -> Result<QueryResult, Failure> {
    if has_second_statement(sql) {
        return Err(SqliteError::ManyStatements.into());
    }
    let client = Client::new(path.to_owned());
    let mut connection = client.open_read_only().await?;
    let deadline = Instant::now() + limits.time;
    let failed = |source| match primary_code(&source) {
        Some(code::INTERRUPT) => SqliteError::QueryTimeout { limit: limits.time },
        _ => client.error("run the query", source),
    };
    let mut handle = connection.lock_handle().await.map_err(failed)?;
    handle.set_progress_handler(STEPS, move || Instant::now() < deadline);
    drop(handle);
    Ok(run(&mut connection, sql, limits).await.map_err(failed)?)
}

async fn run(
    connection: &mut SqliteConnection,
    sql: &str,
    limits: QueryLimits,
) -> Result<QueryResult, sqlx::Error> {
    let statement =
        (&mut *connection).prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
    let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut result = QueryResult { columns, rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    let mut stream = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch(connection);
    while let Some(row) = stream.try_next().await? {
        if result.rows.len() == limits.rows || bytes > limits.bytes {
            result.truncated = true;
            break;
        }
        let row = decode(&row)?;
        bytes += row.iter().map(QueryValue::size).sum::<usize>();
        result.rows.push(row);
    }
    Ok(result)
}

fn decode(row: &SqliteRow) -> Result<Vec<QueryValue>, sqlx::Error> {
    (0..row.len())
        .map(|i| {
            let raw = row.try_get_raw(i)?;
            if raw.is_null() {
                return Ok(QueryValue::Null);
            }
            Ok(match raw.type_info().name() {
                "INTEGER" => QueryValue::Integer(row.try_get_unchecked(i)?),
                "REAL" => QueryValue::Real(row.try_get_unchecked(i)?),
                "TEXT" => {
                    let bytes: &[u8] = row.try_get_unchecked(i)?;
                    QueryValue::Text(String::from_utf8_lossy(bytes).into_owned())
                }
                _ => QueryValue::Blob(row.try_get_unchecked(i)?),
            })
        })
        .collect()
}

/// Whether something stands behind a semicolon, outside of strings, names and comments.
pub fn has_second_statement(sql: &str) -> bool {
    let mut rest = sql.as_bytes();
    let mut ended = false;
    while let Some((&first, after)) = rest.split_first() {
        let skip = |until: &[u8], from: &[u8]| -> usize {
            from.windows(until.len())
                .position(|window| window == until)
                .map_or(from.len(), |at| at + until.len())
        };
        let token = match first {
            b'\'' | b'"' | b'`' => 1 + skip(&[first], after),
            b'[' => 1 + skip(b"]", after),
            b'-' if after.first() == Some(&b'-') => 1 + skip(b"\n", after),
            b'/' if after.first() == Some(&b'*') => {
                2 + skip(b"*/", after.get(1..).unwrap_or_default())
            }
            _ => 1,
        };
        let is_blank = first.is_ascii_whitespace() || (token > 1 && matches!(first, b'-' | b'/'));
        match first {
            b';' => ended = true,
            _ if is_blank => {}
            _ if ended => return true,
            _ => {}
        }
        rest = rest.get(token..).unwrap_or_default();
    }
    false
}

impl QueryValue {
    fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }
}

/// As SQLite's own shell would print it; the caller escapes control characters for its medium.
impl fmt::Display for QueryValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(number) => number.fmt(f),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Text(text) => f.write_str(text),
            Self::Blob(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// Null, numbers and text as themselves; bytes as hexadecimal text.
impl Serialize for QueryValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Integer(number) => to.serialize_i64(*number),
            Self::Real(number) => to.serialize_f64(*number),
            Self::Text(text) => to.serialize_str(text),
            Self::Blob(_) => to.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::has_second_statement;

    #[test]
    fn one_statement_is_told_from_two() {
        for one in [
            "select 1",
            "select 1;",
            "select 1 ; -- done; really\n /* ; */ ",
            "select ';', \"a;b\", `c;`, [d;] -- x ; y",
            "select 'it''s; fine'",
            "",
        ] {
            assert!(!has_second_statement(one), "{one}");
        }
        for two in ["select 1; select 2", "select ';'; x", "select 1;;x", "-- c\nselect 1; /* */ x"]
        {
            assert!(has_second_statement(two), "{two}");
        }
    }
}
