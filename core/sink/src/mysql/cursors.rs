//! The cursor table: where each pipeline stands, in the database that holds its rows.
//!
//! ```text
//! _garam_cursors    one row per pipeline, input partition and slot range
//!   pipeline text, partition, slot_first, slot_last          the key
//!   incarnation text, next, fingerprint, epoch               where and whose
//!   plan, slot_map_epoch, quarantine_next
//!   records_in, delivered, quarantined, dropped text, gap_units, gaps      cumulative; dropped = {"reason":count}
//!   updated datetime(6), UTC                                 for people; nothing is decided by it
//! ```
//!
//! Numbers are `bigint`: `fingerprint` and `plan` are hashes and stored bit for bit, so they may read as negative; offsets,
//! epochs and counters must stay below 2^63, which is checked.
//!
//! Promise: a row changes only through [`CursorTable::advance`], which matches exactly the state the writer believes in, or
//! through [`CursorTable::raise_epoch`], which makes every older writer's belief wrong. Both lock the row until the
//! transaction ends, so a second writer waits for the first one's outcome before it looks.

use garam_stage::{Cursor, CursorKey};
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, Row as _};

use super::client::{Client, Transaction};
use super::error::{MySqlError, is_duplicate};
use super::table::beside;
use crate::row::{StoredRow, bind_state, signed};
use crate::table::{TableError, TableName};

const COLUMNS: &str = "pipeline,partition,slot_first,slot_last,incarnation,next,fingerprint,epoch,plan,\
slot_map_epoch,quarantine_next,records_in,delivered,quarantined,dropped,gap_units,gaps,updated";

/// `partition` is a word of the language.
const READ: &str = "pipeline, `partition`, slot_first, slot_last, incarnation, next, fingerprint, epoch, plan, \
slot_map_epoch, quarantine_next, records_in, delivered, quarantined, dropped, gap_units, gaps";

const KEY: &str = "pipeline = ? AND `partition` = ? AND slot_first = ? AND slot_last = ?";

const DEFINITIONS: &str = "(
  pipeline varchar(64) NOT NULL,
  `partition` bigint NOT NULL,
  slot_first int NOT NULL,
  slot_last int NOT NULL,
  incarnation varchar(64) NOT NULL,
  next bigint NOT NULL,
  fingerprint bigint NOT NULL,
  epoch bigint NOT NULL,
  plan bigint NOT NULL,
  slot_map_epoch bigint NOT NULL,
  quarantine_next bigint NOT NULL,
  records_in bigint NOT NULL,
  delivered bigint NOT NULL,
  quarantined bigint NOT NULL,
  dropped longtext NOT NULL,
  gap_units bigint NOT NULL,
  gaps bigint NOT NULL,
  updated datetime(6) NOT NULL,
  PRIMARY KEY (pipeline, `partition`, slot_first, slot_last)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE";

/// Where the cursors are.
#[derive(Debug)]
pub(crate) struct CursorTable {
    /// Quoted, with its database where one is named.
    name: String,
    database: Option<String>,
}

type Bound = Query<'static, MySql, MySqlArguments>;

impl CursorTable {
    /// In the database of the rows.
    pub(crate) fn beside(table: &TableName) -> Self {
        Self { name: beside(table, "_garam_cursors"), database: table.schema.clone() }
    }

    /// Creates the table where it is absent.
    pub(crate) async fn prepare(
        &self,
        client: &Client,
        transaction: &mut Transaction,
    ) -> Result<(), MySqlError> {
        if self.check(client, transaction).await? {
            return Ok(());
        }
        let collation = transaction.server.dialect.exact_collation();
        let sql = format!("CREATE TABLE {} {DEFINITIONS} {collation}", self.name);
        let asked = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut transaction.connection);
        client.within("create the cursor table", asked).await.map(|_| ())
    }

    /// Whether the table is there; one with other columns belongs to another version and is left alone.
    pub(crate) async fn check(
        &self,
        client: &Client,
        transaction: &mut Transaction,
    ) -> Result<bool, MySqlError> {
        let sql = "SELECT CAST(t.engine AS CHAR), CAST((SELECT group_concat(c.column_name ORDER BY c.ordinal_position) \
                   FROM information_schema.columns c \
                   WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name) AS CHAR) \
                   FROM information_schema.tables t \
                   WHERE t.table_schema = coalesce(?, database()) AND t.table_name = '_garam_cursors'";
        let asked = sqlx::query_as(sql)
            .bind(self.database.clone())
            .fetch_optional(&mut transaction.connection);
        let found: Option<(Option<String>, Option<String>)> =
            client.within("look at the cursor table", asked).await?;
        let Some((engine, columns)) = found else { return Ok(false) };
        let (engine, columns) = (engine.unwrap_or_default(), columns.unwrap_or_default());
        if columns != COLUMNS {
            return Err(TableError::CursorTable { found: columns }.into());
        }
        if !engine.eq_ignore_ascii_case("innodb") {
            return Err(TableError::Engine { table: "_garam_cursors".into(), engine }.into());
        }
        Ok(true)
    }

    /// The cursor as stored.
    pub(crate) async fn read(
        &self,
        client: &Client,
        transaction: &mut Transaction,
        key: &CursorKey,
    ) -> Result<Option<Cursor>, MySqlError> {
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
    ) -> Result<Vec<Cursor>, MySqlError> {
        if !self.check(client, transaction).await? {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {READ} FROM {} ORDER BY pipeline, `partition`, slot_first, slot_last",
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
    ) -> Result<(), MySqlError> {
        let values = vec!["?"; 17].join(", ");
        let sql = format!(
            "INSERT INTO {} ({READ}, updated) VALUES ({values}, utc_timestamp(6))",
            self.name
        );
        let query = bind_state(bind_key(sqlx::query(AssertSqlSafe(sql)), &cursor.key), cursor)?;
        let asked = query.execute(&mut transaction.connection);
        match client.within("store the first cursor", asked).await {
            Ok(_) => Ok(()),
            Err(MySqlError::Database { source, .. }) if is_duplicate(&source) => {
                let pipeline = cursor.key.pipeline.to_string();
                Err(MySqlError::CursorExists { pipeline, partition: cursor.key.partition })
            }
            Err(error) => Err(error),
        }
    }

    /// The compare-and-set: `from` must be what is stored, by incarnation, next and epoch.
    pub(crate) async fn advance(
        &self,
        client: &Client,
        transaction: &mut Transaction,
        from: &Cursor,
        to: &Cursor,
    ) -> Result<(), MySqlError> {
        let sql = format!(
            "UPDATE {} SET incarnation = ?, next = ?, fingerprint = ?, epoch = ?, plan = ?, slot_map_epoch = ?, \
             quarantine_next = ?, records_in = ?, delivered = ?, quarantined = ?, dropped = ?, gap_units = ?, gaps = ?, \
             updated = utc_timestamp(6) WHERE {KEY} AND incarnation = ? AND next = ? AND epoch = ?",
            self.name
        );
        let query = bind_key(bind_state(sqlx::query(AssertSqlSafe(sql)), to)?, &from.key)
            .bind(from.incarnation.to_string())
            .bind(signed("the cursor's offset", from.next.0)?)
            .bind(signed("the cursor's epoch", from.epoch)?);
        let asked = query.execute(&mut transaction.connection);
        let done = client.within("move the cursor", asked).await?;
        // Rows that were found, not those that changed: the connection asks for that.
        if done.rows_affected() != 1 {
            return Err(MySqlError::Fenced {
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
    ) -> Result<(), MySqlError> {
        let sql = format!("UPDATE {} SET epoch = ? WHERE {KEY}", self.name);
        let epoch = signed("the cursor's epoch", epoch)?;
        let query = bind_key(sqlx::query(AssertSqlSafe(sql)).bind(epoch), key);
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
    row: &'a MySqlRow,
}

impl StoredRow for Stored<'_> {
    type Error = MySqlError;

    fn integer(&self, column: &'static str) -> Result<i64, MySqlError> {
        self.row.try_get(column).map_err(|source| self.client.error("read the cursor", source))
    }

    fn text(&self, column: &'static str) -> Result<String, MySqlError> {
        self.row.try_get(column).map_err(|source| self.client.error("read the cursor", source))
    }

    fn wrong(&self, column: &'static str, found: String) -> MySqlError {
        MySqlError::StoredCursor { place: self.client.place().to_owned(), column, found }
    }
}
