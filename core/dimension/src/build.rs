//! Rows as a source told them, into a snapshot: the key is unique and never null, the order is the key's, the id is theirs.

use arrow_array::{Array as _, RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use garam_stage::{Dimension, Snapshot, SnapshotId};
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::DimensionError;
use crate::gather::size;
use crate::rows::{self, Keys, Why};

/// A snapshot, and its rows as bytes for the disk.
#[derive(Debug)]
pub struct Built {
    pub snapshot: Snapshot,
    /// Of its columns in memory.
    pub bytes: u64,
    pub(crate) body: Vec<u8>,
}

/// Checks rows and puts them in order. `place`: for whoever reads why they are refused.
pub fn build(
    dimension: &Dimension,
    place: &str,
    rows: &RecordBatch,
    loaded_us: i64,
    source_us: Option<i64>,
) -> Result<Built, DimensionError> {
    let broken = |why: Why| DimensionError::Internal { place: place.to_owned(), why };
    let key = key_columns(dimension).map_err(broken)?;
    for &column in &key {
        let values = rows.column(column);
        if let Some(row) = (0..rows.num_rows()).find(|&row| values.is_null(row)) {
            let column = rows.schema_ref().field(column).name().clone();
            let (place, number) = (place.to_owned(), row as u64 + 1);
            return Err(DimensionError::NoKey { place, number, column });
        }
    }
    let keys = Keys::of(rows, &key).map_err(broken)?;
    let order = in_order(&keys, rows.num_rows()).map_err(broken)?;
    if let Some((first, second)) = twice(&keys, &order) {
        return Err(DimensionError::Twice {
            place: place.to_owned(),
            key: dimension.key.join(", "),
            first: u64::from(first) + 1,
            second: u64::from(second) + 1,
            value: shown(rows, &key, first as usize),
        });
    }
    drop(keys);
    let sorted = take_record_batch(rows, &UInt32Array::from(order));
    let sorted = sorted.map_err(|error| broken(error.to_string()))?;
    let body = rows::encode(&sorted).map_err(broken)?;
    let id = id(dimension, &body);
    let bytes = size(&sorted);
    let key = dimension.key.clone();
    let snapshot = Snapshot { id, rows: sorted, key, loaded_us, source_us };
    Ok(Built { snapshot, bytes, body })
}

/// The id of rows in the order of their keys.
pub(crate) fn id(dimension: &Dimension, body: &[u8]) -> SnapshotId {
    let mut hash = Xxh3Default::new();
    for field in dimension.schema.fields() {
        let nullable = if field.is_nullable() { "" } else { " not null" };
        hash.update(format!("{} {}{nullable}\n", field.name(), field.data_type()).as_bytes());
    }
    hash.update(format!("key {}\n", dimension.key.join(" ")).as_bytes());
    hash.update(body);
    SnapshotId(hash.digest128())
}

fn key_columns(dimension: &Dimension) -> Result<Vec<usize>, Why> {
    let at = |name: &String| dimension.schema.index_of(name).map_err(|error| error.to_string());
    dimension.key.iter().map(at).collect()
}

/// The rows' numbers in the order of their keys' bytes; equal keys in the source's order.
fn in_order(keys: &Keys, rows: usize) -> Result<Vec<u32>, Why> {
    let rows = u32::try_from(rows).map_err(|_| format!("{rows} rows are too many"))?;
    let mut order: Vec<u32> = (0..rows).collect();
    order.sort_by(|&a, &b| keys.get(a as usize).cmp(keys.get(b as usize)));
    Ok(order)
}

fn twice(keys: &Keys, order: &[u32]) -> Option<(u32, u32)> {
    let pairs = order.windows(2).filter_map(|pair| match pair {
        [a, b] if keys.get(*a as usize) == keys.get(*b as usize) => Some((*a, *b)),
        _ => None,
    });
    // The first that somebody who reads the source from its beginning would meet.
    pairs.min_by_key(|(_, second)| *second)
}

/// A key for the operator, as text.
fn shown(rows: &RecordBatch, key: &[usize], row: usize) -> String {
    let cell = |&column: &usize| crate::words::in_words(rows.column(column), row);
    key.iter().map(cell).collect::<Vec<_>>().join(", ")
}
