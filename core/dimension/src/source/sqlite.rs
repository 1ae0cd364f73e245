//! A query on an SQLite file, opened read-only.
//!
//! One SELECT sees one state of the database. Values are what they are in the file, whatever the column was declared as; the
//! contract decides whether they fit.

use std::time::Instant;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use garam_sink::sqlite::{SqliteError, has_second_statement};
use garam_stage::{DimensionSource, Failure, Told, Wanted};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Executor as _, Row as _, SqlSafeStr as _,
    SqliteConnection, Statement as _, TypeInfo as _, ValueRef as _,
};

use super::query::{CONNECT_TIMEOUT, Record, gatherer};
use crate::config::SqliteQuery;
use crate::error::DimensionError;
use crate::gather::{Gatherer, Limits};
use crate::shape::Shape;

/// How many steps of its machine pass between two looks at the clock.
const STEPS: i32 = 10_000;

pub(crate) struct Source {
    query: SqliteQuery,
    shape: Shape,
    limits: Limits,
}

impl Source {
    pub(crate) fn new(query: SqliteQuery, shape: Shape, limits: Limits) -> Self {
        Self { query, shape, limits }
    }

    async fn open(&self) -> Result<SqliteConnection, Failure> {
        let path = &self.query.path;
        // SQLite says of every cause that it is unable to open a file; the operating system knows better.
        std::fs::File::open(path)
            .map_err(|source| DimensionError::File { path: path.clone(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .pragma("query_only", "ON")
            .busy_timeout(CONNECT_TIMEOUT)
            .disable_statement_logging();
        options.connect().await.map_err(|source| self.failed("open a dimension", source))
    }

    async fn ask(&self) -> Result<Told, Failure> {
        const ACTION: &str = "read a dimension";
        if has_second_statement(&self.query.query) {
            return Err(SqliteError::ManyStatements.into());
        }
        let mut connection = self.open().await?;
        let limit = self.query.statement_timeout;
        let deadline = Instant::now() + limit;
        let broken = |source| match Instant::now() < deadline {
            true => self.failed(ACTION, source),
            false => SqliteError::QueryTimeout { limit }.into(),
        };
        let mut handle = connection.lock_handle().await.map_err(broken)?;
        handle.set_progress_handler(STEPS, move || Instant::now() < deadline);
        drop(handle);
        let place = self.query.path.display().to_string();
        let sql = || AssertSqlSafe(self.query.query.clone());
        let prepared = (&mut connection).prepare(sql().into_sql_str()).await.map_err(broken)?;
        let names = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
        let mut gatherer = gatherer(&place, &self.shape, self.limits, names)?;
        let mut record = Record::default();
        let mut rows = sqlx::query(sql()).fetch(&mut connection);
        while let Some(row) = rows.try_next().await.map_err(broken)? {
            take(&row, &mut record, &mut gatherer)?;
        }
        Ok(Told::Rows { rows: gatherer.finish()?, source_us: None })
    }

    fn failed(&self, action: &'static str, source: sqlx::Error) -> Failure {
        SqliteError::Database { action, path: self.query.path.clone(), source }.into()
    }
}

#[async_trait]
impl DimensionSource for Source {
    fn label(&self) -> String {
        format!("sqlite {}", self.query.path.display())
    }

    /// Whether something has changed only the query can tell.
    async fn read(&mut self, _wanted: Wanted) -> Result<Told, Failure> {
        self.ask().await
    }
}

fn take(row: &SqliteRow, record: &mut Record, gatherer: &mut Gatherer<'_>) -> Result<(), Failure> {
    record.clear();
    for (i, column) in row.columns().iter().enumerate() {
        let text = text(row, i);
        match text.map_err(|why| format!("column {}: {why}", column.name())) {
            Ok(text) => record.push(text.as_deref()),
            Err(why) => return Err(gatherer.refuse("type", why).into()),
        }
    }
    Ok(gatherer.push(record.text())?)
}

fn text(row: &SqliteRow, i: usize) -> Result<Option<String>, String> {
    let raw = row.try_get_raw(i).map_err(|error| error.to_string())?;
    if raw.is_null() {
        return Ok(None);
    }
    let told = match raw.type_info().name() {
        "INTEGER" => row.try_get_unchecked::<i64, _>(i).map(|number| number.to_string()),
        "REAL" => row.try_get_unchecked::<f64, _>(i).map(|number| format!("{number:?}")),
        "TEXT" => row.try_get_unchecked::<String, _>(i),
        _ => return Err("bytes are no text: convert them in the query, as with hex()".into()),
    };
    told.map(Some).map_err(|error| error.to_string())
}
