//! Arrow values as SQLite values. Pure.
//!
//! In: a batch with the table's columns. Out: bound arguments, row by row, or why SQLite cannot hold a value as it is: SQLite
//! stores NaN as NULL and has no year outside 0000–9999, and neither may happen in silence.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::DataType;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, error::BoxDynError};

use super::error::SqliteError;
use super::table::{Stored, Table};
use crate::fold::Keyed;

/// A batch, column by column, ready to be bound.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    columns: Vec<(&'a str, Values<'a>)>,
}

#[derive(Debug)]
enum Values<'a> {
    Boolean(&'a BooleanArray),
    SmallInt(&'a Int16Array),
    Int(&'a Int32Array),
    BigInt(&'a Int64Array),
    Real(&'a Float32Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8, i8),
    Text(&'a StringArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Blob(&'a FixedSizeBinaryArray),
    Position(&'a FixedSizeBinaryArray),
}

/// A value SQLite would not give back as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unstorable {
    NotANumber,
    Year,
}

impl Unstorable {
    fn why(self) -> &'static str {
        match self {
            Self::NotANumber => "NaN would be stored as NULL",
            Self::Year => "its year is outside 0000 to 9999",
        }
    }
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(table: &'a Table, rows: &'a RecordBatch) -> Result<Self, SqliteError> {
        if rows.num_columns() != table.columns.len() + usize::from(table.obeys.is_some()) {
            return Err(SqliteError::Batch { why: "its columns are not those of the table" });
        }
        let columns = table
            .columns
            .iter()
            .zip(rows.columns())
            .map(|(column, array)| {
                let values = values(column.stored, array.as_ref()).ok_or_else(|| {
                    let found = array.data_type().to_string();
                    SqliteError::ColumnType { column: column.name.clone(), found }
                })?;
                Ok((column.name.as_str(), values))
            })
            .collect::<Result<_, SqliteError>>()?;
        Ok(Self { columns })
    }

    /// Why SQLite cannot hold this row, if so. The value itself is not named: rows may be confidential.
    pub(crate) fn unstorable(&self, row: usize) -> Option<String> {
        self.columns.iter().find_map(|(name, values)| {
            let why = values.unstorable(row)?;
            Some(format!("column {name}: {}", why.why()))
        })
    }

    /// The values of these rows in these columns, row by row.
    pub(crate) fn arguments_of(
        &self,
        columns: &[usize],
        rows: &[usize],
    ) -> Result<SqliteArguments, BoxDynError> {
        let mut arguments = SqliteArguments::default();
        for &row in rows {
            for (_, values) in columns.iter().filter_map(|&column| self.columns.get(column)) {
                values.bind(row, &mut None, &mut arguments)?;
            }
        }
        Ok(arguments)
    }

    /// The values of these rows, one after the other.
    pub(crate) fn arguments(&self, rows: &[usize]) -> Result<SqliteArguments, BoxDynError> {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * self.columns.len(), 0);
        // Host, path and the like repeat from row to row: one copy serves the statement.
        let mut last: Vec<Option<Arc<str>>> = vec![None; self.columns.len()];
        for &row in rows {
            for ((_, values), last) in self.columns.iter().zip(&mut last) {
                values.bind(row, last, &mut arguments)?;
            }
        }
        Ok(arguments)
    }
}

impl Keyed for Encoder<'_> {
    /// Key columns are never null.
    fn key(&self, columns: &[usize], row: usize, out: &mut Vec<u8>) {
        out.clear();
        for (_, values) in columns.iter().filter_map(|&column| self.columns.get(column)) {
            values.key(row, out);
        }
    }

    /// There is no guard here, so nothing is older.
    fn compare(&self, _: usize, _: usize, _: usize) -> Ordering {
        Ordering::Equal
    }
}

impl Values<'_> {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(array) => array.is_null(row),
            Self::SmallInt(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::BigInt(array) => array.is_null(row),
            Self::Real(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Decimal(array, ..) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::Blob(array) | Self::Position(array) => array.is_null(row),
        }
    }

    fn unstorable(&self, row: usize) -> Option<Unstorable> {
        if self.is_null(row) {
            return None;
        }
        match self {
            Self::Real(array) if array.value(row).is_nan() => Some(Unstorable::NotANumber),
            Self::Double(array) if array.value(row).is_nan() => Some(Unstorable::NotANumber),
            Self::Date(array) if date_text(array.value(row)).is_none() => Some(Unstorable::Year),
            Self::Timestamp(array) if timestamp_text(array.value(row)).is_none() => {
                Some(Unstorable::Year)
            }
            _ => None,
        }
    }

    fn bind(
        &self,
        row: usize,
        last: &mut Option<Arc<str>>,
        arguments: &mut SqliteArguments,
    ) -> Result<(), BoxDynError> {
        if self.is_null(row) {
            return arguments.add(None::<i64>);
        }
        match self {
            Self::Boolean(array) => arguments.add(i64::from(array.value(row))),
            Self::SmallInt(array) => arguments.add(i64::from(array.value(row))),
            Self::Int(array) => arguments.add(i64::from(array.value(row))),
            Self::BigInt(array) => arguments.add(array.value(row)),
            Self::Real(array) => arguments.add(f64::from(array.value(row))),
            Self::Double(array) => arguments.add(array.value(row)),
            Self::Decimal(array, precision, scale) => {
                arguments.add(Decimal128Type::format_decimal(array.value(row), *precision, *scale))
            }
            Self::Text(array) => {
                let text = array.value(row);
                match last {
                    Some(same) if same.as_ref() == text => arguments.add(same.clone()),
                    _ => arguments.add(last.insert(text.into()).clone()),
                }
            }
            Self::Date(array) => arguments.add(date_text(array.value(row))),
            Self::Timestamp(array) => arguments.add(timestamp_text(array.value(row))),
            Self::Blob(array) => arguments.add(array.value(row)),
            Self::Position(array) => {
                let position = position(array.value(row));
                match i64::try_from(position) {
                    Ok(small) => arguments.add(small),
                    Err(_) => arguments.add(format!("{position:039}")),
                }
            }
        }
    }

    fn key(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(array) => out.push(u8::from(array.value(row))),
            Self::SmallInt(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Int(array) => out.extend(array.value(row).to_be_bytes()),
            Self::BigInt(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Real(array) => out.extend(array.value(row).to_bits().to_be_bytes()),
            Self::Double(array) => out.extend(array.value(row).to_bits().to_be_bytes()),
            Self::Decimal(array, ..) => out.extend(array.value(row).to_be_bytes()),
            Self::Text(array) => {
                let text = array.value(row);
                out.extend((text.len() as u64).to_be_bytes());
                out.extend(text.as_bytes());
            }
            Self::Date(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Timestamp(array) => out.extend(array.value(row).to_be_bytes()),
            Self::Blob(array) | Self::Position(array) => out.extend(array.value(row)),
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
        Stored::Decimal => {
            let DataType::Decimal128(precision, scale) = array.data_type() else { return None };
            Values::Decimal(array.as_primitive_opt::<Decimal128Type>()?, *precision, *scale)
        }
        Stored::Text => Values::Text(array.as_string_opt::<i32>()?),
        Stored::Date => Values::Date(array.as_primitive_opt::<Date32Type>()?),
        Stored::Timestamp => {
            Values::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?)
        }
        Stored::Blob => Values::Blob(array.as_fixed_size_binary_opt()?),
        Stored::Position => Values::Position(array.as_fixed_size_binary_opt()?),
    })
}

/// A big-endian number of up to 16 bytes.
fn position(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |sum, &byte| (sum << 8) | u128::from(byte))
}

/// `2026-11-23`.
fn date_text(days: i32) -> Option<String> {
    let at = Timestamp::from_second(i64::from(days).checked_mul(86_400)?).ok()?;
    let date = TimeZone::UTC.to_datetime(at).date();
    let year = u16::try_from(date.year()).ok()?;
    Some(format!("{year:04}-{:02}-{:02}", date.month(), date.day()))
}

/// `2026-11-23T23:24:04.123456Z`.
fn timestamp_text(micros: i64) -> Option<String> {
    let at = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(micros).ok()?);
    let year = u16::try_from(at.year()).ok()?;
    Some(format!(
        "{year:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond() / 1_000
    ))
}

#[cfg(test)]
mod tests {
    use super::{date_text, position, timestamp_text};

    #[test]
    fn instants_have_one_spelling() {
        let check = |micros, expect: Option<&str>| {
            assert_eq!(timestamp_text(micros).as_deref(), expect);
        };
        check(0, Some("1970-01-01T00:00:00.000000Z"));
        check(-1, Some("1969-12-31T23:59:59.999999Z"));
        check(1_795_476_244_123_456, Some("2026-11-23T23:24:04.123456Z"));
        check(-62_167_219_200_000_000, Some("0000-01-01T00:00:00.000000Z"));
        check(-62_167_219_200_000_001, None);
        check(i64::MAX, None);
        assert_eq!(date_text(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(date_text(i32::MAX), None);
    }

    #[test]
    fn positions_are_big_endian() {
        assert_eq!(position(&u128::MAX.to_be_bytes()), u128::MAX);
        assert_eq!(position(&7u128.to_be_bytes()), 7);
    }
}
