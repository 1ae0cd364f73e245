//! A small table, batches for it, and a look at what is stored.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::{
    Decimal128Builder, FixedSizeBinaryBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use garam_proto::{Incarnation, LogOffset, PipelineId};
use garam_sink::SqliteConfig;
use garam_sink::sqlite::{QueryLimits, read_only_query};
use garam_stage::contract::OneOrMany;
use garam_stage::{
    ContractConfig, Counters, Cursor, CursorKey, Destination, Failure, Format, Outcome, PlanId,
    RecordRef, SlotRange, StagedBatch, UnknownColumns, WriteMode,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;

/// id, name, amount decimal(10,2), score double, at timestamp, and the system columns.
pub(crate) fn schema() -> SchemaRef {
    let columns = [
        ("id", "bigint not null"),
        ("name", "text"),
        ("amount", "decimal(10,2)"),
        ("score", "double"),
        ("at", "timestamp"),
    ];
    let columns = columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec();
    ContractConfig {
        time: Some("at".into()),
        unknown: UnknownColumns::Drop,
        ..ContractConfig::new(Format::Json, columns)
    }
    .check()
    .unwrap()
    .schema()
}

/// What a row is made of; the rest is fixed.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) name: Option<String>,
    pub(crate) score: f64,
    pub(crate) position: u128,
    pub(crate) ordinal: i32,
}

pub(crate) fn row(id: i64, name: &str, position: u128) -> Row {
    Row { id, name: Some(name.into()), score: 0.5, position, ordinal: 0 }
}

/// `count` rows of growing id and position.
pub(crate) fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
    ids.map(|id| row(id, &format!("name {id}"), u128::try_from(id).unwrap() * 10)).collect()
}

pub(crate) fn record_batch(rows: &[Row]) -> RecordBatch {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut amount = Decimal128Builder::new().with_data_type(DataType::Decimal128(10, 2));
    let mut at = TimestampMicrosecondBuilder::new().with_data_type(utc.clone());
    let mut ingest = TimestampMicrosecondBuilder::new().with_data_type(utc);
    let mut origin = FixedSizeBinaryBuilder::new(32);
    let mut position = FixedSizeBinaryBuilder::new(16);
    let mut version = FixedSizeBinaryBuilder::new(20);
    for row in rows {
        amount.append_value(i128::from(row.id) * 100 + 5);
        at.append_value(1_795_476_244_123_456);
        ingest.append_value(1_795_476_245_000_000);
        origin.append_value([0xAB; 32]).unwrap();
        position.append_value(row.position.to_be_bytes()).unwrap();
        let mut bytes = [0; 20];
        bytes[4..].copy_from_slice(&row.position.to_be_bytes());
        version.append_value(bytes).unwrap();
    }
    let at = Arc::new(at.finish());
    let text = |value: &str| Arc::new(StringArray::from(vec![value; rows.len()]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.id).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.name.clone()).collect::<StringArray>()),
        Arc::new(amount.finish()),
        Arc::new(rows.iter().map(|row| row.score).collect::<Float64Array>()),
        at.clone(),
        text("web-1"),
        text("/var/log/app.log"),
        Arc::new(origin.finish()),
        Arc::new(position.finish()),
        Arc::new(rows.iter().map(|row| row.ordinal).collect::<Int32Array>()),
        Arc::new(version.finish()),
        at,
        Arc::new(ingest.finish()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The rows as one log entry, offered at `from`. Every row is a record of its own, except those of ordinal above 0.
pub(crate) fn batch(from: &Cursor, rows: &[Row]) -> StagedBatch {
    let mut index = 0;
    let mut sources = Vec::new();
    for row in rows {
        index += u32::from(row.ordinal == 0);
        sources.push(RecordRef { offset: from.next, index });
    }
    let mut to = from.clone();
    to.next = from.next.next();
    to.fingerprint = 0xFEED_0000_0000_0000 + to.next.0;
    to.counters.records_in += u64::from(index);
    to.counters.delivered += u64::from(index);
    StagedBatch { rows: record_batch(rows), sources, from: from.clone(), to }
}

pub(crate) fn first_cursor() -> Cursor {
    Cursor {
        key: CursorKey { pipeline: PipelineId([7; 16]), partition: 0, slots: SlotRange::ALL },
        incarnation: Incarnation([9; 16]),
        next: LogOffset(0),
        fingerprint: 0,
        epoch: 1,
        plan: PlanId(0xF000_0000_0000_0001),
        slot_map_epoch: 0,
        quarantine_next: LogOffset(0),
        counters: Counters::default(),
    }
}

/// A folder with a database in it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("out.db")
    }

    pub(crate) fn config(&self, mode: WriteMode) -> SqliteConfig {
        SqliteConfig {
            path: self.path(),
            table: "orders".into(),
            mode: Some(mode),
            key: (mode == WriteMode::Upsert).then(|| OneOrMany::One("id".into())),
            truncate: None,
            create: garam_sink::sqlite::Create::Missing,
            shard: Vec::new(),
        }
    }

    pub(crate) fn destination(&self, mode: WriteMode) -> Box<dyn Destination> {
        self.config(mode).build(&schema()).unwrap()
    }

    /// A prepared destination and its first cursor.
    pub(crate) async fn ready(&self, mode: WriteMode) -> (Box<dyn Destination>, Cursor) {
        let mut destination = self.destination(mode);
        destination.prepare().await.unwrap();
        let cursor = first_cursor();
        destination.begin(&cursor).await.unwrap();
        (destination, cursor)
    }

    /// Runs SQL as somebody else would.
    pub(crate) async fn execute(&self, sql: &str) {
        let mut connection = self.connection().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    pub(crate) async fn connection(&self) -> SqliteConnection {
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.path())
            .create_if_missing(true)
            .connect()
            .await
            .unwrap()
    }

    /// A query's rows as lines of text.
    pub(crate) async fn lines(&self, sql: &str) -> String {
        let result = read_only_query(&self.path(), sql, QueryLimits::default()).await.unwrap();
        let line =
            |row: &Vec<_>| row.iter().map(ToString::to_string).collect::<Vec<String>>().join(" | ");
        result.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn count(&self) -> usize {
        self.lines("select count(*) from orders").await.parse().unwrap()
    }
}

/// The cursor a write stored; anything else fails the test.
pub(crate) fn written(outcome: Result<Outcome, Failure>) -> Cursor {
    match outcome.unwrap() {
        Outcome::Written { cursor, .. } => cursor,
        Outcome::Refused { rows } => panic!("refused: {rows:?}"),
    }
}

/// The rows a write refused; anything else fails the test.
pub(crate) fn refused(outcome: Result<Outcome, Failure>) -> Vec<(usize, String)> {
    match outcome.unwrap() {
        Outcome::Refused { rows } => rows.into_iter().map(|r| (r.row, r.detail)).collect(),
        Outcome::Written { .. } => panic!("written"),
    }
}

/// Polls a future a bounded number of times, then drops it: a cancellation at any await.
pub(crate) async fn cancelled_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return std::task::Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
