//! Tables to join rows with: what one can be read from, what was read of it, and all of them at one moment.
//!
//! In: [`DimensionSource`], a table somewhere else. Out: [`Snapshot`], its rows as they were at one time, checked, and named by
//! what they say. Promise: a snapshot never changes; a [`SnapshotSet`] is of one moment, so whoever takes one for a batch sees one
//! state of all dimensions; the same rows have the same id, in whatever order the source told them.
//! Not here: reading, checking, keeping on disk (`dimension`), joining (`refine`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use serde::Deserialize;

use crate::failure::Failure;

/// What a table to join is declared to be: known before anything is read.
#[derive(Debug, Clone)]
pub struct Dimension {
    pub name: String,
    /// The declared columns, in order.
    pub schema: SchemaRef,
    /// Columns that together name a row: never null, never twice.
    pub key: Vec<String>,
    pub missing: Missing,
    /// One row that stands in for a missing one where that is [`Missing::Default`]: the columns' defaults, null where they have
    /// none. Every column of it may be null.
    pub default_row: RecordBatch,
}

/// What becomes of a record whose key the dimension does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The dimension's columns are null.
    #[default]
    Null,
    /// They have their defaults.
    Default,
    /// The record is put aside.
    Quarantine,
}

/// Names rows and their schema by a hash of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub u128);

/// A dimension as it was at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub id: SnapshotId,
    /// In the declared schema, in an order that the keys alone decide.
    pub rows: RecordBatch,
    /// As [`Dimension::key`]. No key is null, none is there twice.
    pub key: Vec<String>,
    /// When it was read here, microseconds since the epoch.
    pub loaded_us: i64,
    /// The source's own time of what was read, where it has one: a file's last change, a server's clock.
    pub source_us: Option<i64>,
}

/// All dimensions at one moment. Those that were never read are absent.
#[derive(Debug, Clone, Default)]
pub struct SnapshotSet {
    /// Larger for every later set of this process.
    pub number: u64,
    pub snapshots: BTreeMap<String, Arc<Snapshot>>,
}

/// The place where the newest set is. Clones are the same place.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    newest: Arc<RwLock<Arc<SnapshotSet>>>,
}

/// Whether a source may spare itself the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Rows only if there can be others than were read last.
    IfChanged,
    Anyway,
}

/// What a source has to tell.
#[derive(Debug, Clone)]
pub enum Told {
    /// Nothing can have changed since the last reading.
    Unchanged,
    /// It changes right now: it is to be asked again after so long.
    Unsettled(Duration),
    Rows {
        /// In the declared schema; order and keys as the source has them.
        rows: RecordBatch,
        source_us: Option<i64>,
    },
}

/// What a dimension can be read from.
///
/// Contract. *Consistency:* the rows are those of one state of the source, or there is a failure. *Strictness:* one row that does
/// not fit its column fails the whole reading, with the row named. *Bounds:* a reading ends by rows, bytes or time. *Cancellation:*
/// dropping a future leaves nothing open at the source. *Failures* say in `what` everything but the source's values, so that it
/// may be logged; a value that is at fault is in `source`.
#[async_trait]
pub trait DimensionSource: Send {
    /// What the operator calls it, without secrets.
    fn label(&self) -> String;

    async fn read(&mut self, wanted: Wanted) -> Result<Told, Failure>;
}

impl Snapshots {
    /// The newest set. Whoever holds it keeps seeing the same.
    pub fn now(&self) -> Arc<SnapshotSet> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a snapshot the newest of its dimension, in one step for everybody who asks.
    pub fn put(&self, dimension: &str, snapshot: Arc<Snapshot>) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        let mut snapshots = newest.snapshots.clone();
        snapshots.insert(dimension.to_owned(), snapshot);
        *newest = Arc::new(SnapshotSet { number: newest.number + 1, snapshots });
    }
}

impl SnapshotSet {
    pub fn get(&self, dimension: &str) -> Option<&Arc<Snapshot>> {
        self.snapshots.get(dimension)
    }

    /// The first of these that was never read.
    pub fn absent<'a>(&self, dimensions: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        dimensions.into_iter().find(|name| !self.snapshots.contains_key(*name))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
