//! Tables that SQL may join on their unique key, and what was read of them.
//!
//! In: names, declared columns and keys; a closure that gives the newest rows of several tables at one moment. Out: [`Lookup`],
//! a snapshot with an index by key, made once and kept until the snapshot is another.
//! Promise: a batch sees one state of all its tables. Not here: reading, refreshing, checking that keys are unique.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, SchemaRef};
use garam_stage::{Failure, FailureKind};

/// A table as it is declared.
#[derive(Debug, Clone)]
pub struct Dimension {
    pub name: String,
    pub schema: SchemaRef,
    /// Columns that together name a row: never null, never twice.
    pub key: Vec<String>,
}

/// A table as it was at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Another for other rows.
    pub id: u128,
    /// In the declared schema.
    pub rows: RecordBatch,
}

/// The newest snapshots of these tables, in their order, all of one moment.
pub type Newest = dyn Fn(&[String]) -> Result<Vec<Snapshot>, Failure> + Send + Sync;

/// What may be joined.
#[derive(Clone)]
pub struct Dimensions {
    pub tables: Vec<Dimension>,
    pub newest: Arc<Newest>,
}

impl Dimensions {
    pub fn none() -> Self {
        Self { tables: Vec::new(), newest: Arc::new(|_: &[String]| Ok(Vec::new())) }
    }
}

impl fmt::Debug for Dimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dimensions").field("tables", &self.tables).finish_non_exhaustive()
    }
}

/// The tables that one plan joins, in the order of its steps.
pub(crate) struct Joined {
    tables: Vec<Dimension>,
    names: Vec<String>,
    newest: Arc<Newest>,
    indexed: Mutex<Vec<Option<Arc<Lookup>>>>,
}

/// A snapshot, found by key.
pub(crate) struct Lookup {
    id: u128,
    pub(crate) rows: RecordBatch,
    keys: RowConverter,
    places: HashMap<Box<[u8]>, u32>,
}

impl Joined {
    pub(crate) fn new(tables: Vec<Dimension>, newest: Arc<Newest>) -> Self {
        let names = tables.iter().map(|table| table.name.clone()).collect();
        let indexed = Mutex::new(vec![None; tables.len()]);
        Self { tables, names, newest, indexed }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// All tables at one moment.
    pub(crate) fn now(&self) -> Result<Vec<Arc<Lookup>>, Failure> {
        if self.tables.is_empty() {
            return Ok(Vec::new());
        }
        let snapshots = (self.newest)(&self.names)?;
        if snapshots.len() != self.tables.len() {
            let what = format!("{} of {} dimensions are there", snapshots.len(), self.tables.len());
            return Err(Failure::new(FailureKind::Internal, what));
        }
        // The lock is held while an index is made: another partition needs the same one.
        let mut indexed = self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = snapshots.into_iter().zip(&self.tables).zip(indexed.iter_mut());
        fresh.map(|((snapshot, table), kept)| newest(snapshot, table, kept)).collect()
    }
}

fn newest(
    snapshot: Snapshot,
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
    fn new(Snapshot { id, rows }: Snapshot, table: &Dimension) -> Result<Self, ArrowError> {
        let other = |what: String| ArrowError::SchemaError(what);
        if rows.schema_ref().fields() != table.schema.fields() {
            return Err(other(format!("its rows have {:?}", rows.schema_ref().fields())));
        }
        let column = |name: &String| {
            rows.column_by_name(name).cloned().ok_or_else(|| other(format!("no column {name}")))
        };
        let columns = table.key.iter().map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
        let keys = RowConverter::new(fields.collect())?;
        let encoded = keys.convert_columns(&columns)?;
        let mut places = HashMap::with_capacity(rows.num_rows());
        for (place, key) in (0_u32..).zip(encoded.iter()) {
            if places.insert(Box::from(key.as_ref()), place).is_some() {
                return Err(other(format!("its key is there twice, in row {place}")));
            }
        }
        Ok(Self { id, rows, keys, places })
    }

    /// The place of each key's row; none where there is none or a part of the key is null.
    pub(crate) fn places(&self, keys: &[ArrayRef]) -> Result<UInt32Array, ArrowError> {
        let encoded = self.keys.convert_columns(keys)?;
        // No key is null, so the encoding of a null is in no place.
        Ok(encoded.iter().map(|key| self.places.get(key.as_ref()).copied()).collect())
    }
}
