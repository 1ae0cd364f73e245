//! Rows as columns of known types: what every SQL server's encoder starts from.
//!
//! In: a batch, the columns of the table. Out: typed views, bytes that say whether two keys are equal, which of two values is
//! larger. Not here: how a server wants a value (its `encode`).

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{
    Array, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};

use crate::table::{ColumnTypeError, Stored, TableColumn};

/// A batch, column by column.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    columns: Vec<(&'a str, Values<'a>)>,
}

#[derive(Debug)]
pub(crate) enum Values<'a> {
    Boolean(&'a BooleanArray),
    SmallInt(&'a Int16Array),
    Int(&'a Int32Array),
    BigInt(&'a Int64Array),
    Real(&'a Float32Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Text(&'a StringArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Bytes(&'a FixedSizeBinaryArray),
    Position(&'a FixedSizeBinaryArray),
}

impl<'a> Columns<'a> {
    pub(crate) fn new(
        columns: &'a [TableColumn],
        rows: &'a RecordBatch,
    ) -> Result<Self, ColumnTypeError> {
        let columns = columns.iter().enumerate().map(|(i, column)| {
            let array = rows.columns().get(i).map(AsRef::as_ref);
            let typed = array.and_then(|array| values(column.stored, array));
            let typed = typed.ok_or_else(|| ColumnTypeError {
                column: column.name.clone(),
                found: array.map_or("none".into(), |array| array.data_type().to_string()),
            })?;
            Ok((column.name.as_str(), typed))
        });
        Ok(Self { columns: columns.collect::<Result<_, _>>()? })
    }

    pub(crate) fn all(&self) -> std::ops::Range<usize> {
        0..self.columns.len()
    }

    /// Each with its name, in order.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'a str, &Values<'a>)> {
        self.columns.iter().map(|(name, values)| (*name, values))
    }

    pub(crate) fn get(&self, column: usize) -> Option<&Values<'a>> {
        self.columns.get(column).map(|(_, values)| values)
    }

    /// Rows that a server cannot hold, with the reason: `suspicion` looks at a whole column and says what could be wrong with a
    /// value, `wrong` at one value. Values are not named: rows may be confidential.
    pub(crate) fn unstorable(
        &self,
        suspicion: impl Fn(&Values<'a>) -> Option<&'static str>,
        wrong: impl Fn(&Values<'a>, usize) -> bool,
    ) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (name, values) in &self.columns {
            let Some(why) = suspicion(values) else { continue };
            let array = values.array();
            let rows = (0..array.len()).filter(|&row| !array.is_null(row) && wrong(values, row));
            found.extend(rows.map(|row| (row, format!("column {name}: {why}"))));
        }
        found.sort_by_key(|(row, _)| *row);
        found.dedup_by_key(|(row, _)| *row);
        found
    }

    /// Bytes that are equal exactly for keys that are equal to the server. Key columns are never null.
    pub(crate) fn key(&self, columns: &[usize], row: usize, out: &mut Vec<u8>) {
        out.clear();
        for values in columns.iter().filter_map(|&column| self.get(column)) {
            values.key(row, out);
        }
    }

    /// Which of two rows has the larger value. The column is never null.
    pub(crate) fn compare(&self, column: usize, a: usize, b: usize) -> Ordering {
        self.get(column).map_or(Ordering::Equal, |values| values.compare(a, b))
    }
}

impl Values<'_> {
    pub(crate) fn array(&self) -> &dyn Array {
        match self {
            Self::Boolean(array) => *array,
            Self::SmallInt(array) => *array,
            Self::Int(array) => *array,
            Self::BigInt(array) => *array,
            Self::Real(array) => *array,
            Self::Double(array) => *array,
            Self::Decimal(array, _) => *array,
            Self::Text(array) => *array,
            Self::Date(array) => *array,
            Self::Timestamp(array) => *array,
            Self::Bytes(array) | Self::Position(array) => *array,
        }
    }

    fn key(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(array) => out.push(u8::from(array.value(row))),
            Self::SmallInt(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Int(array) => out.extend(array.value(row).to_be_bytes()),
            Self::BigInt(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Real(array) => out.extend(one_spelling(array.value(row).into()).to_be_bytes()),
            Self::Double(array) => out.extend(one_spelling(array.value(row)).to_be_bytes()),
            Self::Decimal(array, _) => out.extend(array.value(row).to_be_bytes()),
            Self::Text(array) => {
                let text = array.value(row);
                out.extend((text.len() as u64).to_be_bytes());
                out.extend(text.as_bytes());
            }
            Self::Date(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Timestamp(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Bytes(array) | Self::Position(array) => out.extend(array.value(row)),
        }
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Self::Boolean(array) => array.value(a).cmp(&array.value(b)),
            Self::SmallInt(array) => array.value(a).cmp(&array.value(b)),
            Self::Int(array) => array.value(a).cmp(&array.value(b)),
            Self::BigInt(array) => array.value(a).cmp(&array.value(b)),
            Self::Real(array) => order(array.value(a).into(), array.value(b).into()),
            Self::Double(array) => order(array.value(a), array.value(b)),
            Self::Decimal(array, _) => array.value(a).cmp(&array.value(b)),
            Self::Text(array) => array.value(a).cmp(array.value(b)),
            Self::Date(array) => array.value(a).cmp(&array.value(b)),
            Self::Timestamp(array) => array.value(a).cmp(&array.value(b)),
            Self::Bytes(array) | Self::Position(array) => array.value(a).cmp(array.value(b)),
        }
    }
}

fn values(stored: Stored, array: &dyn Array) -> Option<Values<'_>> {
    Some(match stored {
        Stored::Boolean => Values::Boolean(array.as_boolean_opt()?),
        Stored::SmallInt => Values::SmallInt(array.as_primitive_opt::<Int16Type>()?),
        Stored::Int => Values::Int(array.as_primitive_opt::<Int32Type>()?),
        Stored::BigInt => Values::BigInt(array.as_primitive_opt::<Int64Type>()?),
        Stored::Real => Values::Real(array.as_primitive_opt::<Float32Type>()?),
        Stored::Double => Values::Double(array.as_primitive_opt::<Float64Type>()?),
        Stored::Decimal { scale, .. } => {
            let array = array.as_primitive_opt::<Decimal128Type>()?;
            if array.scale() != i8::try_from(scale).ok()? {
                return None;
            }
            Values::Decimal(array, scale)
        }
        Stored::Text => Values::Text(array.as_string_opt::<i32>()?),
        Stored::Date => Values::Date(array.as_primitive_opt::<Date32Type>()?),
        Stored::Timestamp => {
            Values::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?)
        }
        Stored::Bytes(_) => Values::Bytes(array.as_fixed_size_binary_opt()?),
        Stored::Position => Values::Position(array.as_fixed_size_binary_opt()?),
    })
}

/// To the server, 0 equals -0 and every NaN equals every other.
fn one_spelling(number: f64) -> u64 {
    if number.is_nan() {
        f64::NAN.to_bits()
    } else if number == 0.0 {
        0
    } else {
        number.to_bits()
    }
}

/// As the server orders them: NaN is the largest.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// A big-endian number of up to 16 bytes.
pub(crate) fn position(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |sum, &byte| (sum << 8) | u128::from(byte))
}

#[cfg(test)]
mod tests {
    use super::{one_spelling, order};
    use std::cmp::Ordering::{Equal, Greater, Less};

    #[test]
    fn floats_are_equal_and_ordered_as_the_servers_have_them() {
        assert_eq!(one_spelling(-0.0), one_spelling(0.0));
        assert_eq!(one_spelling(f64::NAN), one_spelling(-f64::NAN));
        assert_eq!(order(f64::NAN, f64::INFINITY), Greater);
        assert_eq!(order(f64::NAN, f64::NAN), Equal);
        assert_eq!(order(-0.0, 0.0), Equal);
        assert_eq!(order(1.0, f64::NAN), Less);
    }
}
