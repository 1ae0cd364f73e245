//! Tables that SQL may join on their unique key, and what was read of them.
//!
//! In: declarations, and the place where the newest snapshots are. Out: [`Lookup`],
//! a snapshot with an index by key, made once and kept until the snapshot is another.
//! Promise: a batch sees one state of all its tables. The index: [`keys`]. Not here: reading, refreshing, checking that keys are unique.

mod keys;

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{Array as _, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::ArrowError;
use arrow_select::concat::concat;
use garam_stage::dimension::{Dimension, Missing, Snapshot, SnapshotId, Snapshots};
use garam_stage::{Failure, FailureKind};

use keys::{Keys, NoIndex};

/// What may be joined, and where the newest rows of it are.
#[derive(Debug, Clone, Default)]
pub struct Dimensions {
    pub tables: Vec<Dimension>,
    pub snapshots: Snapshots,
}

/// The tables that one plan joins, in the order of its steps.
pub(crate) struct Joined {
    tables: Vec<Dimension>,
    names: Vec<String>,
    snapshots: Snapshots,
    indexed: Mutex<Vec<Option<Arc<Lookup>>>>,
}

/// A snapshot, found by key.
pub(crate) struct Lookup {
    id: SnapshotId,
    name: String,
    /// Those of the snapshot, and behind them the row that stands in for a missing one, where one does.
    pub(crate) rows: RecordBatch,
    keys: Keys,
    missing: Missing,
}

impl Joined {
    pub(crate) fn new(tables: Vec<Dimension>, snapshots: Snapshots) -> Self {
        let names = tables.iter().map(|table| table.name.clone()).collect();
        let indexed = Mutex::new(vec![None; tables.len()]);
        Self { tables, names, snapshots, indexed }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// All tables at one moment.
    pub(crate) fn now(&self) -> Result<Vec<Arc<Lookup>>, Failure> {
        if self.tables.is_empty() {
            return Ok(Vec::new());
        }
        let set = self.snapshots.now();
        let found = |name: &String| {
            set.get(name).ok_or_else(|| {
                let what = format!("dimension {name} was never read: see `garam dimension ls`");
                Failure::new(FailureKind::Unreachable, what)
            })
        };
        let snapshots = self.names.iter().map(found).collect::<Result<Vec<_>, _>>()?;
        // The lock is held while an index is made: another partition needs the same one.
        let mut indexed = self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = snapshots.into_iter().zip(&self.tables).zip(indexed.iter_mut());
        fresh.map(|((snapshot, table), kept)| newest(snapshot, table, kept)).collect()
    }
}

fn newest(
    snapshot: &Snapshot,
    table: &Dimension,
    kept: &mut Option<Arc<Lookup>>,
) -> Result<Arc<Lookup>, Failure> {
    if let Some(lookup) = kept.as_ref().filter(|lookup| lookup.id == snapshot.id) {
        return Ok(Arc::clone(lookup));
    }
    let lookup = Lookup::new(snapshot, table).map_err(|error| {
        let what = format!("cannot index dimension {}", table.name);
        Failure::new(FailureKind::Internal, what).because(error)
    })?;
    Ok(Arc::clone(kept.insert(Arc::new(lookup))))
}

impl Lookup {
    fn new(snapshot: &Snapshot, table: &Dimension) -> Result<Self, ArrowError> {
        let (id, rows) = (snapshot.id, &snapshot.rows);
        let other = |what: String| ArrowError::SchemaError(what);
        if rows.schema_ref().fields() != table.schema.fields() {
            return Err(other(format!("its rows have {:?}", rows.schema_ref().fields())));
        }
        let column = |name: &String| {
            rows.column_by_name(name).cloned().ok_or_else(|| other(format!("no column {name}")))
        };
        let columns = table.key.iter().map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
        let keys = Keys::new(&columns).map_err(|none| match none {
            NoIndex::Arrow(error) => error,
            NoIndex::Twice(place) => other(format!("its key is there twice, in row {place}")),
        })?;
        let rows = match table.missing {
            Missing::Default => with_default(rows, &table.default_row)?,
            Missing::Null | Missing::Quarantine => rows.clone(),
        };
        let (name, missing) = (table.name.clone(), table.missing);
        Ok(Self { id, name, rows, keys, missing })
    }

    /// The place of each key's row, by the policy for missing ones; none where there is none or a part of the key is null.
    pub(crate) fn places(&self, keys: &[ArrayRef]) -> Result<UInt32Array, NoPlace> {
        let last = self.rows.num_rows().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let default = last.filter(|_| self.missing == Missing::Default);
        let mut places = self.keys.places(keys)?;
        if default.is_some() {
            places.iter_mut().for_each(|place| *place = place.or(default));
        }
        let places = UInt32Array::from(places);
        if self.missing == Missing::Quarantine && places.null_count() > 0 {
            return Err(NoPlace::NoRow(self.name.clone()));
        }
        Ok(places)
    }
}

/// Why a batch has no places.
#[derive(Debug)]
pub(crate) enum NoPlace {
    Arrow(ArrowError),
    /// At least one key has no row in this dimension, and its record is to be put aside.
    NoRow(String),
}

impl From<ArrowError> for NoPlace {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

/// The rows with one more behind them, in which every column may be null.
fn with_default(rows: &RecordBatch, default: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let pairs = rows.columns().iter().zip(default.columns());
    let columns = pairs.map(|(rows, default)| concat(&[rows.as_ref(), default.as_ref()]));
    RecordBatch::try_new(default.schema(), columns.collect::<Result<_, _>>()?)
}
