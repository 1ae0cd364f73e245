//! A query at a PostgreSQL server.
//!
//! One connection for each reading, one read-only transaction, one cursor in it: the rows are of one state of the database, and
//! arrive in pieces. The cursor takes one SELECT and nothing else. A standby does as well as any other server.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use garam_sink::address::{Address, Place as _, secret};
use garam_sink::postgres::{OnlyPostgres, PostgresError};
use garam_stage::{Failure, Told};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Executor as _, PgConnection, Row as _,
    SqlSafeStr as _, Statement as _, TypeInfo as _, ValueRef as _,
};

use super::query::{Asked, CONNECT_TIMEOUT, Record, Server, gatherer, within};
use crate::config::ServerQuery;
use crate::gather::Gatherer;

const FETCH: &str = "FETCH FORWARD 4096 FROM garam_dimension";

pub(crate) struct Postgres;

pub(crate) fn address(query: &ServerQuery) -> Result<Address<PgConnectOptions>, PostgresError> {
    Address::of(query.url_file.as_deref(), query.url.as_ref())
}

#[async_trait]
impl Server for Postgres {
    const KIND: &'static str = "postgres";
    type Connection = PgConnection;

    fn place(query: &ServerQuery) -> String {
        address(query).map_or_else(|_| "nowhere".to_owned(), |address| address.place())
    }

    async fn open(query: &ServerQuery) -> Result<(PgConnection, String), Failure> {
        let mut options = address(query)?.read::<OnlyPostgres>()?;
        if let Some(path) = &query.password_file {
            options = options.password(&secret::<OnlyPostgres>(path)?);
        }
        let place = options.place();
        if options.get_application_name().is_none() {
            options = options.application_name("garam");
        }
        let asked = async {
            let opened = options.disable_statement_logging().connect().await;
            opened.map_err(|source| failed("connect", &place, source))
        };
        let opened =
            within(CONNECT_TIMEOUT, asked, || Self::silent("connect", &place, CONNECT_TIMEOUT));
        Ok((opened.await?, place))
    }

    async fn ask(
        asked: &Asked,
        mut connection: PgConnection,
        place: &str,
    ) -> Result<Told, Failure> {
        let Asked { query, shape, limits } = asked;
        const ACTION: &str = "read a dimension";
        let broken = |source| failed(ACTION, place, source);
        let limit = query.statement_timeout.as_millis();
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = {limit}; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'"
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(broken)?;
        let clock = "SELECT (extract(epoch FROM now()) * 1000000)::bigint";
        let (source_us,): (i64,) =
            sqlx::query_as(clock).fetch_one(&mut connection).await.map_err(broken)?;
        let sql = AssertSqlSafe(query.query.clone()).into_sql_str();
        let prepared = (&mut connection).prepare(sql).await.map_err(broken)?;
        let names = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
        let mut gatherer = gatherer(place, shape, *limits, names)?;
        let cursor = format!("DECLARE garam_dimension NO SCROLL CURSOR FOR {}", query.query);
        sqlx::query(AssertSqlSafe(cursor)).execute(&mut connection).await.map_err(broken)?;
        let mut record = Record::default();
        loop {
            let mut rows = sqlx::raw_sql(FETCH).fetch(&mut connection);
            let mut is_empty = true;
            while let Some(row) = rows.try_next().await.map_err(broken)? {
                is_empty = false;
                take(&row, &mut record, &mut gatherer)?;
            }
            if is_empty {
                break;
            }
        }
        Ok(Told::Rows { rows: gatherer.finish()?, source_us: Some(source_us) })
    }
    fn silent(action: &'static str, place: &str, limit: Duration) -> Failure {
        PostgresError::Silent { action, place: place.to_owned(), limit }.into()
    }
}

/// The values as the server writes them, which is how a contract reads them but for these types.
fn take(row: &PgRow, record: &mut Record, gatherer: &mut Gatherer<'_>) -> Result<(), Failure> {
    record.clear();
    for (i, column) in row.columns().iter().enumerate() {
        let value = row.try_get_raw(i);
        let value = value.map_err(|e| gatherer.refuse("syntax", e.to_string()))?;
        if value.is_null() {
            record.push(None);
            continue;
        }
        let kind = column.type_info().name();
        let unfit = |why: String| format!("column {}: {why}", column.name());
        if kind == "BYTEA" {
            let why =
                unfit("bytes are no text: convert them in the query, as with encode()".into());
            return Err(gatherer.refuse("type", why).into());
        }
        let text = value.as_str();
        let text = text.map_err(|e| gatherer.refuse("syntax", unfit(e.to_string())))?;
        match (kind, text, text.strip_suffix("+00")) {
            ("BOOL", "t", _) => record.push(Some("true")),
            ("BOOL", _, _) => record.push(Some("false")),
            ("TIMESTAMPTZ", _, Some(time)) => record.push(Some(&format!("{time}Z"))),
            _ => record.push(Some(text)),
        }
    }
    Ok(gatherer.push(record.text())?)
}

fn failed(action: &'static str, place: &str, source: sqlx::Error) -> Failure {
    PostgresError::Database { action, place: place.to_owned(), source }.into()
}
