//! The cursor table: where each pipeline stands, in the schema that holds its rows.
//!
//! ```text
//! _garam_cursors    one row per pipeline, input partition and slot range
//!   pipeline text, partition, slot_first, slot_last          the key
//!   incarnation text, next, fingerprint, epoch               where and whose
//!   plan, slot_map_epoch, quarantine_next
//!   records_in, delivered, quarantined, dropped text, gap_units, gaps      cumulative; dropped = {"reason":count}
//!   updated timestamptz                                      for people; nothing is decided by it
//! ```
//!
//! Numbers are `bigint`: `fingerprint` and `plan` are hashes and stored bit for bit, so they may read as negative; offsets,
//! epochs and counters must stay below 2^63, which is checked.
//!
//! Promise: a row changes only through [`CursorTable::advance`], which matches exactly the state the writer believes in, or
//! through [`CursorTable::raise_epoch`], which makes every older writer's belief wrong. Both lock the row until the
//! transaction ends, so a second writer waits for the first one's outcome before it looks.

use garam_stage::{Cursor, CursorKey};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row as _};

use super::client::{Client, Transaction};
use super::error::PostgresError;
use super::table::Table;
use crate::row::{StoredRow, bind_state, signed};
use crate::table::{TableError, TableName};

const COLUMNS: &str = "pipeline,partition,slot_first,slot_last,incarnation,next,fingerprint,epoch,plan,\
slot_map_epoch,quarantine_next,records_in,delivered,quarantined,dropped,gap_units,gaps,updated";

const READ: &str = "pipeline, partition, slot_first, slot_last, incarnation, next, fingerprint, epoch, plan, slot_map_epoch, \
quarantine_next, records_in, delivered, quarantined, dropped, gap_units, gaps";

const KEY: &str = "pipeline = $1 AND partition = $2 AND slot_first = $3 AND slot_last = $4";

/// Where the cursors are.
#[derive(Debug)]
pub(crate) struct CursorTable {
    /// Quoted, with its schema where one is named.
    name: String,
}

type Bound = Query<'static, Postgres, PgArguments>;

impl CursorTable {
    /// In the schema of the rows.
    pub(crate) fn beside(table: &Table) -> Self {
        Self { name: table.name.sibling("_garam_cursors") }
    }

    pub(crate) fn named(table: &str) -> Result<Self, TableError> {
        Ok(Self { name: TableName::parse(table)?.sibling("_garam_cursors") })
    }

    /// Creates the table where it is absent.
    pub(crate) async fn prepare(
        &self,
        client: &Client,
        transaction: &mut Transaction,
    ) -> Result<(), PostgresError> {
        if self.check(client, transaction).await? {
            return Ok(());
        }
        let sql = format!(
            "CREATE TABLE {} (
  pipeline text NOT NULL,
  partition bigint NOT NULL,
  slot_first integer NOT NULL,
  slot_last integer NOT NULL,
  incarnation text NOT NULL,
  next bigint NOT NULL,
  fingerprint bigint NOT NULL,
  epoch bigint NOT NULL,
  plan bigint NOT NULL,
  slot_map_epoch bigint NOT NULL,
  quarantine_next bigint NOT NULL,
  records_in bigint NOT NULL,
  delivered bigint NOT NULL,
  quarantined bigint NOT NULL,
  dropped text NOT NULL,
  gap_units bigint NOT NULL,
  gaps bigint NOT NULL,
  updated timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (pipeline, partition, slot_first, slot_last)
) WITH (fillfactor = 50)",
            self.name
        );
        let asked = sqlx::query(AssertSqlSafe(sql)).execute(&mut transaction.connection);
        client.within("create the cursor table", asked).await.map(|_| ())
    }

    /// Whether the table is there; one with other columns belongs to another version and is left alone.
    pub(crate) async fn check(
        &self,
        client: &Client,
        transaction: &mut Transaction,
    ) -> Result<bool, PostgresError> {
        let sql = "SELECT (SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute \
                   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), c.relpersistence::text \
                   FROM pg_class c WHERE c.oid = to_regclass($1)";
        let asked =
            sqlx::query_as(sql).bind(self.name.clone()).fetch_optional(&mut transaction.connection);
        let found: Option<(String, String)> =
            client.within("look at the cursor table", asked).await?;
        match found {
            None => Ok(false),
            Some((columns, _)) if columns != COLUMNS => {
                Err(TableError::CursorTable { found: columns }.into())
            }
            Some((_, persistence)) if persistence != "p" => {
                let (table, kind) = ("_garam_cursors".to_owned(), "unlogged");
                Err(TableError::NotLogged { table, kind }.into())
            }
            Some(_) => Ok(true),
        }
    }

    /// The cursor as stored.
    pub(crate) async fn read(
        &self,
        client: &Client,
        transaction: &mut Transaction,
        key: &CursorKey,
    ) -> Result<Option<Cursor>, PostgresError> {
        let sql = format!("SELECT {READ} FROM {} WHERE {KEY} FOR UPDATE", self.name);
        let query = bind_key(sqlx::query(AssertSqlSafe(sql)), key);
        let asked = query.fetch_optional(&mut transaction.connection);
        let row = client.within("read the cursor", asked).await?;
        row.map(|row| Stored { client, row: &row }.cursor()).transpose()
    }

    /// All cursors; none when there is no table.
    pub(crate) async fn read_all(
        &self,
        client: &Client,
        transaction: &mut Transaction,
    ) -> Result<Vec<Cursor>, PostgresError> {
        if !self.check(client, transaction).await? {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {READ} FROM {} ORDER BY pipeline, partition, slot_first, slot_last",
            self.name
        );
        let asked = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut transaction.connection);
        let rows = client.within("read the cursors", asked).await?;
        rows.iter().map(|row| Stored { client, row }.cursor()).collect()
    }

    /// Stores the first cursor of a key.
    pub(crate) async fn insert(
        &self,
        client: &Client,
        transaction: &mut Transaction,
        cursor: &Cursor,
    ) -> Result<(), PostgresError> {
        let sql = format!(
            "INSERT INTO {} ({READ}) VALUES \
             ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT DO NOTHING",
            self.name
        );
        let query = bind_state(bind_key(sqlx::query(AssertSqlSafe(sql)), &cursor.key), cursor)?;
        let asked = query.execute(&mut transaction.connection);
        let done = client.within("store the first cursor", asked).await?;
        if done.rows_affected() != 1 {
            let pipeline = cursor.key.pipeline.to_string();
            let partition = cursor.key.partition;
            return Err(PostgresError::CursorExists { pipeline, partition });
        }
        Ok(())
    }

    /// The compare-and-set: `from` must be what is stored, by incarnation, next and epoch.
    pub(crate) async fn advance(
        &self,
        client: &Client,
        transaction: &mut Transaction,
        from: &Cursor,
        to: &Cursor,
    ) -> Result<(), PostgresError> {
        let sql = format!(
            "UPDATE {} SET incarnation = $5, next = $6, fingerprint = $7, epoch = $8, plan = $9, slot_map_epoch = $10, \
             quarantine_next = $11, records_in = $12, delivered = $13, quarantined = $14, dropped = $15, \
             gap_units = $16, gaps = $17, updated = clock_timestamp() \
             WHERE {KEY} AND incarnation = $18 AND next = $19 AND epoch = $20",
            self.name
        );
        let query = bind_state(bind_key(sqlx::query(AssertSqlSafe(sql)), &from.key), to)?
            .bind(from.incarnation.to_string())
            .bind(signed("the cursor's offset", from.next.0)?)
            .bind(signed("the cursor's epoch", from.epoch)?);
        let asked = query.execute(&mut transaction.connection);
        let done = client.within("move the cursor", asked).await?;
        if done.rows_affected() != 1 {
            return Err(PostgresError::Fenced {
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
        &self,
        client: &Client,
        transaction: &mut Transaction,
        key: &CursorKey,
        epoch: u64,
    ) -> Result<(), PostgresError> {
        let sql = format!("UPDATE {} SET epoch = $5 WHERE {KEY}", self.name);
        let query = bind_key(sqlx::query(AssertSqlSafe(sql)), key)
            .bind(signed("the cursor's epoch", epoch)?);
        let asked = query.execute(&mut transaction.connection);
        client.within("take the cursor over", asked).await.map(|_| ())
    }
}

fn bind_key(query: Bound, key: &CursorKey) -> Bound {
    query
        .bind(key.pipeline.to_string())
        .bind(i64::from(key.partition))
        .bind(i32::from(key.slots.first))
        .bind(i32::from(key.slots.last))
}

/// One stored row. Somebody may have edited it by hand, so nothing is assumed.
struct Stored<'a> {
    client: &'a Client,
    row: &'a PgRow,
}

impl StoredRow for Stored<'_> {
    type Error = PostgresError;

    fn integer(&self, column: &'static str) -> Result<i64, PostgresError> {
        let found = match column {
            "slot_first" | "slot_last" => self.row.try_get::<i32, _>(column).map(i64::from),
            column => self.row.try_get(column),
        };
        found.map_err(|source| self.client.error("read the cursor", source))
    }

    fn text(&self, column: &'static str) -> Result<String, PostgresError> {
        self.row.try_get(column).map_err(|source| self.client.error("read the cursor", source))
    }

    fn wrong(&self, column: &'static str, found: String) -> PostgresError {
        PostgresError::StoredCursor { place: self.client.place().to_owned(), column, found }
    }
}
