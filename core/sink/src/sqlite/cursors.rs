//! The cursor table: where each pipeline stands, in the database that holds its rows.
//!
//! ```text
//! _garam_cursors    one row per pipeline, input partition and slot range
//!   pipeline TEXT, partition, slot_first, slot_last          the key
//!   incarnation TEXT, next, fingerprint, epoch               where and whose
//!   plan, slot_map_epoch, quarantine_next
//!   records_in, delivered, quarantined, dropped TEXT, gap_units, gaps      cumulative; dropped = {"reason":count}
//!   updated TEXT                                             for people; nothing is decided by it
//! ```
//!
//! Integers of 64 bits: `fingerprint` and `plan` are hashes and stored bit for bit, so they may read as negative; offsets,
//! epochs and counters are numbers and must stay below 2^63, which is checked.
//!
//! Promise: a row changes only through [`advance`], which matches exactly the state the writer believes in, or through
//! [`raise_epoch`], which makes every older writer's belief wrong.

use std::path::Path;

use garam_stage::{Cursor, CursorKey, Failure};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite, SqliteConnection};

use super::client::Client;
use super::error::{SqliteError, TableError};
use crate::row::{StoredRow, bind_state, signed};

const CREATE: &str = "\
CREATE TABLE IF NOT EXISTS _garam_cursors (
  pipeline TEXT NOT NULL,
  partition INTEGER NOT NULL,
  slot_first INTEGER NOT NULL,
  slot_last INTEGER NOT NULL,
  incarnation TEXT NOT NULL,
  next INTEGER NOT NULL,
  fingerprint INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  plan INTEGER NOT NULL,
  slot_map_epoch INTEGER NOT NULL,
  quarantine_next INTEGER NOT NULL,
  records_in INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  quarantined INTEGER NOT NULL,
  dropped TEXT NOT NULL,
  gap_units INTEGER NOT NULL,
  gaps INTEGER NOT NULL,
  updated TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
  PRIMARY KEY (pipeline, partition, slot_first, slot_last)
) STRICT, WITHOUT ROWID";

const COLUMNS: &str = "pipeline,partition,slot_first,slot_last,incarnation,next,fingerprint,epoch,plan,\
slot_map_epoch,quarantine_next,records_in,delivered,quarantined,dropped,gap_units,gaps,updated";

const SELECT: &str = "\
SELECT pipeline, partition, slot_first, slot_last, incarnation, next, fingerprint, epoch, plan, slot_map_epoch, \
quarantine_next, records_in, delivered, quarantined, dropped, gap_units, gaps FROM _garam_cursors";

const SELECT_ONE: &str = "\
SELECT pipeline, partition, slot_first, slot_last, incarnation, next, fingerprint, epoch, plan, slot_map_epoch, \
quarantine_next, records_in, delivered, quarantined, dropped, gap_units, gaps FROM _garam_cursors \
WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";

const INSERT: &str = "\
INSERT INTO _garam_cursors (pipeline, partition, slot_first, slot_last, incarnation, next, fingerprint, epoch, plan, \
slot_map_epoch, quarantine_next, records_in, delivered, quarantined, dropped, gap_units, gaps) \
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";

const ADVANCE: &str = "\
UPDATE _garam_cursors SET incarnation = ?, next = ?, fingerprint = ?, epoch = ?, plan = ?, slot_map_epoch = ?, \
quarantine_next = ?, records_in = ?, delivered = ?, quarantined = ?, dropped = ?, gap_units = ?, gaps = ?, \
updated = strftime('%Y-%m-%dT%H:%M:%fZ') \
WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ? \
AND incarnation = ? AND next = ? AND epoch = ?";

const RAISE_EPOCH: &str = "\
UPDATE _garam_cursors SET epoch = ? WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";

type Bound = Query<'static, Sqlite, SqliteArguments>;

/// Creates the table where it is absent; one with other columns belongs to another version and is left alone.
pub(crate) async fn prepare(
    client: &Client,
    connection: &mut SqliteConnection,
) -> Result<(), SqliteError> {
    let failed = |source| client.error("create the cursor table", source);
    sqlx::query(CREATE).execute(&mut *connection).await.map_err(failed)?;
    let sql = "SELECT group_concat(name) FROM pragma_table_info('_garam_cursors')";
    let found: String = sqlx::query_scalar(sql).fetch_one(connection).await.map_err(failed)?;
    if found != COLUMNS {
        return Err(TableError::CursorTable { found }.into());
    }
    Ok(())
}

/// The cursor as stored.
pub(crate) async fn read(
    client: &Client,
    connection: &mut SqliteConnection,
    key: &CursorKey,
) -> Result<Option<Cursor>, SqliteError> {
    let row = bind_key(sqlx::query(SELECT_ONE), key)
        .fetch_optional(connection)
        .await
        .map_err(|source| client.error("read the cursor", source))?;
    row.map(|row| Stored { client, row: &row }.cursor()).transpose()
}

/// Stores the first cursor of a key.
pub(crate) async fn insert(
    client: &Client,
    connection: &mut SqliteConnection,
    cursor: &Cursor,
) -> Result<(), SqliteError> {
    let query = bind_state(bind_key(sqlx::query(INSERT), &cursor.key), cursor)?;
    let done = query
        .execute(connection)
        .await
        .map_err(|source| client.error("store the first cursor", source))?;
    if done.rows_affected() != 1 {
        let pipeline = cursor.key.pipeline.to_string();
        return Err(SqliteError::CursorExists { pipeline, partition: cursor.key.partition });
    }
    Ok(())
}

/// The compare-and-set: `from` must be what is stored, by incarnation, next and epoch.
pub(crate) async fn advance(
    client: &Client,
    connection: &mut SqliteConnection,
    from: &Cursor,
    to: &Cursor,
) -> Result<(), SqliteError> {
    let next = signed("the cursor's offset", from.next.0)?;
    let epoch = signed("the cursor's epoch", from.epoch)?;
    let query = bind_key(bind_state(sqlx::query(ADVANCE), to)?, &from.key)
        .bind(from.incarnation.to_string())
        .bind(next)
        .bind(epoch);
    let done = query
        .execute(connection)
        .await
        .map_err(|source| client.error("move the cursor", source))?;
    if done.rows_affected() != 1 {
        return Err(SqliteError::Fenced {
            pipeline: from.key.pipeline.to_string(),
            partition: from.key.partition,
            next: from.next.0,
            epoch: from.epoch,
        });
    }
    Ok(())
}

/// Makes `epoch` the only one whose writer may move the cursor.
pub(crate) async fn raise_epoch(
    client: &Client,
    connection: &mut SqliteConnection,
    key: &CursorKey,
    epoch: u64,
) -> Result<(), SqliteError> {
    let query = sqlx::query(RAISE_EPOCH).bind(signed("the cursor's epoch", epoch)?);
    bind_key(query, key)
        .execute(connection)
        .await
        .map_err(|source| client.error("take the cursor over", source))?;
    Ok(())
}

/// All cursors kept in a database; none when it has no cursor table. Opens it read-only.
pub async fn read_cursors(path: &Path) -> Result<Vec<Cursor>, Failure> {
    let client = Client::new(path.to_owned());
    let mut connection = client.open_read_only().await?;
    let failed = |source| client.error("read the cursors", source);
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_garam_cursors'";
    let tables: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.map_err(failed)?;
    if tables == 0 {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(SELECT).fetch_all(&mut connection).await.map_err(failed)?;
    Ok(rows.iter().map(|row| Stored { client: &client, row }.cursor()).collect::<Result<_, _>>()?)
}

fn bind_key(query: Bound, key: &CursorKey) -> Bound {
    query
        .bind(key.pipeline.to_string())
        .bind(i64::from(key.partition))
        .bind(i64::from(key.slots.first))
        .bind(i64::from(key.slots.last))
}

/// One stored row. Somebody may have edited it by hand, so nothing is assumed.
struct Stored<'a> {
    client: &'a Client,
    row: &'a SqliteRow,
}

impl StoredRow for Stored<'_> {
    type Error = SqliteError;

    fn integer(&self, column: &'static str) -> Result<i64, SqliteError> {
        self.row.try_get(column).map_err(|source| self.client.error("read the cursor", source))
    }

    fn text(&self, column: &'static str) -> Result<String, SqliteError> {
        self.row.try_get(column).map_err(|source| self.client.error("read the cursor", source))
    }

    fn wrong(&self, column: &'static str, found: String) -> SqliteError {
        SqliteError::StoredCursor { path: self.client.path().clone(), column, found }
    }
}
