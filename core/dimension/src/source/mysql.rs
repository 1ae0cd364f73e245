//! A query at a MySQL or MariaDB server.
//!
//! One connection for each reading, one read-only transaction with a snapshot of its own: the rows are of one state of the
//! database, and arrive one by one.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use garam_sink::address::{Address, Place as _, secret};
use garam_sink::mysql::{MySqlError, OnlyMySql};
use garam_stage::{Failure, Told};
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Executor as _, MySqlConnection, Row as _,
    SqlSafeStr as _, Statement as _, TypeInfo as _,
};

use super::query::{Asked, CONNECT_TIMEOUT, Record, Server, gatherer, within};
use crate::config::ServerQuery;
use crate::gather::Gatherer;

const ABOUT: &str =
    "SELECT CAST(@@version AS CHAR), CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

pub(crate) struct MySql;

pub(crate) fn address(query: &ServerQuery) -> Result<Address<MySqlConnectOptions>, MySqlError> {
    Address::of(query.url_file.as_deref(), query.url.as_ref())
}

#[async_trait]
impl Server for MySql {
    const KIND: &'static str = "mysql";
    type Connection = MySqlConnection;

    fn place(query: &ServerQuery) -> String {
        address(query).map_or_else(|_| "nowhere".to_owned(), |address| address.place())
    }

    async fn open(query: &ServerQuery) -> Result<(MySqlConnection, String), Failure> {
        let mut options = address(query)?.read::<OnlyMySql>()?;
        if let Some(path) = &query.password_file {
            options = options.password(&secret::<OnlyMySql>(path)?);
        }
        let place = options.place();
        let asked = async {
            // `||` means what the server's own clients take it for.
            let options = options.pipes_as_concat(false).disable_statement_logging();
            options.connect().await.map_err(|source| failed("connect", &place, source))
        };
        let opened =
            within(CONNECT_TIMEOUT, asked, || Self::silent("connect", &place, CONNECT_TIMEOUT));
        Ok((opened.await?, place))
    }

    async fn ask(
        asked: &Asked,
        mut connection: MySqlConnection,
        place: &str,
    ) -> Result<Told, Failure> {
        let Asked { query, shape, limits } = asked;
        let broken = |source| failed("read a dimension", place, source);
        let (version, source_us): (String, i64) =
            sqlx::query_as(ABOUT).fetch_one(&mut connection).await.map_err(broken)?;
        let limit = query.statement_timeout;
        let limit = match version.contains("MariaDB") {
            true => format!("max_statement_time = {}", limit.as_secs_f64()),
            false => format!("max_execution_time = {}", limit.as_millis()),
        };
        let begin = format!(
            "SET SESSION time_zone = '+00:00', {limit}; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
             START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(broken)?;
        let sql = || AssertSqlSafe(query.query.clone());
        // What can be prepared is one statement.
        let prepared = (&mut connection).prepare(sql().into_sql_str()).await.map_err(broken)?;
        let names = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
        let mut gatherer = gatherer(place, shape, *limits, names)?;
        let mut record = Record::default();
        let mut rows = sqlx::raw_sql(sql()).fetch(&mut connection);
        while let Some(row) = rows.try_next().await.map_err(broken)? {
            take(&row, &mut record, &mut gatherer)?;
        }
        Ok(Told::Rows { rows: gatherer.finish()?, source_us: Some(source_us) })
    }
    fn silent(action: &'static str, place: &str, limit: Duration) -> Failure {
        MySqlError::Silent { action, place: place.to_owned(), limit }.into()
    }
}

/// The values as the server writes them, which is how a contract reads them but for bits.
fn take(row: &MySqlRow, record: &mut Record, gatherer: &mut Gatherer<'_>) -> Result<(), Failure> {
    record.clear();
    for (i, column) in row.columns().iter().enumerate() {
        let value: Result<Option<&[u8]>, _> = row.try_get_unchecked(i);
        let value = value.map_err(|e| gatherer.refuse("syntax", e.to_string()))?;
        let Some(value) = value else {
            record.push(None);
            continue;
        };
        if column.type_info().name() == "BIT" {
            let number = value.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
            record.push(Some(&number.to_string()));
            continue;
        }
        let Ok(text) = std::str::from_utf8(value) else {
            let name = column.name();
            let why = format!(
                "column {name}: bytes are no text: convert them in the query, as with hex()"
            );
            return Err(gatherer.refuse("type", why).into());
        };
        record.push(Some(text));
    }
    Ok(gatherer.push(record.text())?)
}

fn failed(action: &'static str, place: &str, source: sqlx::Error) -> Failure {
    MySqlError::Database { action, place: place.to_owned(), source }.into()
}
