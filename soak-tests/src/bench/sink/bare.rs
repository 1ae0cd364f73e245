//! The bare loop: the statement that the destination uses, over the same rows, from a program that does nothing else.
//!
//! In: a server, how many records. Out: records a second into an empty table of the same shape, and over rows that are there.
//! No log, no parsing, no cursor, no checks: one connection, transactions of as many rows as a batch has at most, values bound
//! as the driver has them. What a destination with all its promises reaches of this is the figure that counts.

use anyhow::Context as _;
use sqlx::mysql::MySqlArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, AssertSqlSafe};
use tokio::time::Instant;

use super::arrays::arguments;
use super::records::Record;
use crate::server::{Db, Server, Session};

/// What the table has, in order: the contract's columns, then those that the core adds.
const COLUMNS: [&str; 16] = [
    "id",
    "ver",
    "at",
    "host",
    "lvl",
    "code",
    "ms",
    "sum",
    "_host",
    "_path",
    "_origin",
    "_position",
    "_ordinal",
    "_version",
    "_event_time",
    "_ingest_time",
];
const TYPES: [&str; 16] = [
    "bigint",
    "bigint",
    "timestamptz",
    "text",
    "text",
    "integer",
    "double precision",
    "numeric",
    "text",
    "text",
    "bytea",
    "numeric",
    "integer",
    "bytea",
    "timestamptz",
    "timestamptz",
];
pub(super) const HOST: &str = "bench";
pub(super) const PATH: &str = "/tmp/garam-bench/logs/b0.log";
pub(super) const ORIGIN: [u8; 32] = [0xAB; 32];
/// About the records of a batch.
const TRANSACTION: usize = 8_000;

/// Records a second: into an empty table, and over the same rows again.
pub(super) async fn bare(server: &Server, records: u64, guard: bool) -> anyhow::Result<[f64; 2]> {
    let mut session = server.session().await?;
    for sql in table(server.db, &mut session).await? {
        session.run(&sql).await?;
    }
    let mut rates = [0.0; 2];
    for (round, rate) in (0..).zip(&mut rates) {
        let mut seconds = 0.0;
        let mut number = 0;
        while number < records {
            let upto = records.min(number + TRANSACTION as u64);
            let rows: Vec<Record> =
                (number..upto).map(|number| Record::new(number, records, round)).collect();
            let began = Instant::now();
            transaction(&mut session, server.db, &rows, guard).await?;
            seconds += began.elapsed().as_secs_f64();
            number = upto;
        }
        *rate = records as f64 / seconds;
    }
    Ok(rates)
}

/// What makes a table like the one that the core has made.
async fn table(db: Db, session: &mut Session) -> anyhow::Result<Vec<String>> {
    Ok(match db {
        Db::Postgres => vec!["create table bare (like bench including all)".into()],
        Db::Mariadb | Db::Mysql => vec!["create table bare like bench".into()],
        Db::Sqlite => {
            let rows = session.rows("select sql from sqlite_master where name = 'bench'").await?;
            let sql = rows.into_iter().flatten().next().context("there is no table bench")?;
            vec!["pragma synchronous = full".into(), sql.replace("\"bench\"", "bare")]
        }
    })
}

async fn transaction(
    session: &mut Session,
    db: Db,
    rows: &[Record],
    guard: bool,
) -> anyhow::Result<()> {
    session.run("BEGIN").await?;
    for part in rows.chunks(rows_of_a_statement(db)) {
        let sql = AssertSqlSafe(statement(db, part.len(), guard));
        match session {
            Session::Postgres(to) => {
                sqlx::query_with(sql, arguments(part)?).execute(to).await.map(|_| ())
            }
            Session::Mysql(to) => sqlx::query_with(sql, mysql(part)?).execute(to).await.map(|_| ()),
            Session::Sqlite(to) => {
                sqlx::query_with(sql, sqlite(part)?).execute(to).await.map(|_| ())
            }
        }?;
    }
    session.run("COMMIT").await
}

/// As many as the destination has at most.
fn rows_of_a_statement(db: Db) -> usize {
    match db {
        Db::Postgres => 2_000,
        Db::Mariadb | Db::Mysql => 512,
        Db::Sqlite => 128,
    }
}

fn statement(db: Db, rows: usize, guard: bool) -> String {
    let all = COLUMNS.join(",");
    let values = || vec![format!("({})", ["?"; 16].join(",")); rows].join(",");
    // The version last: what is assigned before it can still see the old one.
    let set = |offered: fn(&str) -> String, guard: bool| {
        let columns = COLUMNS.iter().skip(2).chain(COLUMNS.get(1));
        let each = columns.map(|column| match (offered(column), guard) {
            (offered, false) => format!("{column}={offered}"),
            (value, true) => {
                let newer = offered("ver");
                format!("{column}=IF(bare.ver<={newer},{value},bare.{column})")
            }
        });
        each.collect::<Vec<_>>().join(",")
    };
    match db {
        Db::Postgres => {
            let arrays = (1..).zip(TYPES).map(|(i, kind)| format!("${i}::{kind}[]"));
            let arrays = arrays.collect::<Vec<_>>().join(",");
            let set = set(|column| format!("excluded.{column}"), false);
            let guard = if guard { " WHERE t.ver <= excluded.ver" } else { "" };
            format!(
                "INSERT INTO bare AS t ({all}) SELECT * FROM unnest({arrays}) AS s ({all}) \
                 ON CONFLICT (id) DO UPDATE SET {set}{guard}"
            )
        }
        Db::Mysql => {
            let set = set(|column| format!("n.{column}"), guard);
            format!(
                "INSERT INTO bare ({all}) VALUES {} AS n ON DUPLICATE KEY UPDATE {set}",
                values()
            )
        }
        Db::Mariadb => {
            let set = set(|column| format!("VALUES({column})"), guard);
            format!("INSERT INTO bare ({all}) VALUES {} ON DUPLICATE KEY UPDATE {set}", values())
        }
        Db::Sqlite => {
            let set = set(|column| format!("excluded.{column}"), false);
            format!(
                "INSERT INTO bare ({all}) VALUES {} ON CONFLICT (id) DO UPDATE SET {set}",
                values()
            )
        }
    }
}

fn mysql(rows: &[Record]) -> anyhow::Result<MySqlArguments> {
    let mut to = MySqlArguments::default();
    for row in rows {
        let at = row.at(' ');
        bound(to.add(row.id))?;
        bound(to.add(row.version))?;
        bound(to.add(at.as_str()))?;
        bound(to.add(row.host.as_str()))?;
        bound(to.add(row.level))?;
        bound(to.add(row.code))?;
        bound(to.add(row.latency))?;
        bound(to.add(row.sum().as_str()))?;
        bound(to.add(HOST))?;
        bound(to.add(PATH))?;
        bound(to.add(ORIGIN.as_slice()))?;
        bound(to.add(row.version.to_string().as_str()))?;
        bound(to.add(0i32))?;
        bound(to.add(version(row).as_slice()))?;
        bound(to.add(at.as_str()))?;
        bound(to.add(at.as_str()))?;
    }
    Ok(to)
}

fn sqlite(rows: &[Record]) -> anyhow::Result<SqliteArguments> {
    let mut to = SqliteArguments::default();
    for row in rows {
        let at = row.at('T') + "Z";
        bound(to.add(row.id))?;
        bound(to.add(row.version))?;
        bound(to.add(at.clone()))?;
        bound(to.add(row.host.clone()))?;
        bound(to.add(row.level))?;
        bound(to.add(row.code))?;
        bound(to.add(row.latency))?;
        bound(to.add(row.sum()))?;
        bound(to.add(HOST))?;
        bound(to.add(PATH))?;
        bound(to.add(ORIGIN.to_vec()))?;
        bound(to.add(row.version))?;
        bound(to.add(0i32))?;
        bound(to.add(version(row).to_vec()))?;
        bound(to.add(at.clone()))?;
        bound(to.add(at))?;
    }
    Ok(to)
}

/// As the core has it: which life of the source, and a number that grows.
pub(super) fn version(row: &Record) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes.iter_mut().skip(12).zip(row.version.to_be_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn bound(outcome: Result<(), sqlx::error::BoxDynError>) -> anyhow::Result<()> {
    outcome.map_err(|error| anyhow::anyhow!("cannot bind a value: {error}"))
}
