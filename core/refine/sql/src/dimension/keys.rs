//! Which row of a table has a key.
//!
//! In: the key's columns of a table, then those of a batch. Out: for each row of the batch the place of the table's row.
//! Promise: the same places whatever the kind of index; a key with a null in it has none. A key that is one column of whole
//! numbers or of text is looked up as it is; any other as arrow's encoding of its row.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int16Type, Int32Type, Int64Type};
use arrow_array::{Array as _, ArrayRef, ArrowPrimitiveType};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType};

/// The places of a table's rows by key.
pub(super) enum Keys {
    Number(HashMap<i64, u32, Mix>),
    Text(HashMap<Box<str>, u32>),
    Row { converter: RowConverter, places: HashMap<Box<[u8]>, u32> },
}

/// Why a table has no index.
#[derive(Debug)]
pub(super) enum NoIndex {
    Arrow(ArrowError),
    /// The second row of a key.
    Twice(u32),
}

impl Keys {
    /// No key of a table is null.
    pub(super) fn new(columns: &[ArrayRef]) -> Result<Self, NoIndex> {
        match columns {
            [column] if is_number(column.data_type()) => {
                let keys = numbers(column).into_iter().flatten();
                Ok(Self::Number(index(keys, Mix::random())?))
            }
            [column] if *column.data_type() == DataType::Utf8 => {
                let keys = column.as_string::<i32>().iter().flatten().map(Box::from);
                Ok(Self::Text(index(keys, RandomState::new())?))
            }
            columns => {
                let fields =
                    columns.iter().map(|column| SortField::new(column.data_type().clone()));
                let converter = RowConverter::new(fields.collect())?;
                let rows = converter.convert_columns(columns)?;
                let keys = rows.iter().map(|row| Box::from(row.as_ref()));
                let places = index(keys, RandomState::new())?;
                Ok(Self::Row { converter, places })
            }
        }
    }

    /// The place for each row of these columns, whose types are those of the key.
    pub(super) fn places(&self, columns: &[ArrayRef]) -> Result<Vec<Option<u32>>, ArrowError> {
        match (self, columns) {
            (Self::Number(places), [column]) => {
                let place = |key: Option<i64>| places.get(&key?).copied();
                Ok(numbers(column).into_iter().map(place).collect())
            }
            (Self::Text(places), [column]) => {
                let place = |key: Option<&str>| places.get(key?).copied();
                Ok(column.as_string::<i32>().iter().map(place).collect())
            }
            (Self::Row { converter, places }, columns) => {
                // No key is null, so the encoding of a null is in no place.
                let rows = converter.convert_columns(columns)?;
                Ok(rows.iter().map(|row| places.get(row.as_ref()).copied()).collect())
            }
            _ => Err(ArrowError::SchemaError("a key of one column has another number".into())),
        }
    }
}

impl From<ArrowError> for NoIndex {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

fn index<K: Eq + Hash, S: BuildHasher>(
    keys: impl Iterator<Item = K>,
    hasher: S,
) -> Result<HashMap<K, u32, S>, NoIndex> {
    let mut places = HashMap::with_capacity_and_hasher(keys.size_hint().0, hasher);
    for (place, key) in (0_u32..).zip(keys) {
        if places.insert(key, place).is_some() {
            return Err(NoIndex::Twice(place));
        }
    }
    Ok(places)
}

fn is_number(kind: &DataType) -> bool {
    matches!(kind, DataType::Int16 | DataType::Int32 | DataType::Int64)
}

fn numbers(column: &ArrayRef) -> Vec<Option<i64>> {
    fn of<T: ArrowPrimitiveType<Native: Into<i64>>>(column: &ArrayRef) -> Vec<Option<i64>> {
        column.as_primitive::<T>().iter().map(|number| number.map(Into::into)).collect()
    }
    match column.data_type() {
        DataType::Int16 => of::<Int16Type>(column),
        DataType::Int32 => of::<Int32Type>(column),
        _ => of::<Int64Type>(column),
    }
}

/// A hash for single numbers: one wide multiplication, from a seed that nobody knows.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    seed: u64,
}

pub(super) struct Mixed(u64);

impl Mix {
    fn random() -> Self {
        Self { seed: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for Mix {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(self.seed)
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The fractional part of the golden ratio: odd, and its bits are well spread.
        let wide = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
