//! Arrow values as PostgreSQL's binary arrays, straight into the message. Pure.
//!
//! In: a batch with the table's columns. Out: one array per column, or why the server cannot hold a value as it is: a text with
//! a zero character, an instant outside its calendar.
//!
//! ```text
//! array     dimensions=1 i32 · has nulls i32 · element type u32 · length i32 · first index=1 i32 · elements
//! element   length i32 (-1: null) · bytes
//! numeric   groups u16 · weight i16 · sign u16 · digits behind the point u16 · groups of four decimal digits, each u16
//! date, timestamptz     days i32, microseconds i64 since 2000-01-01
//! ```

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
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Arguments as _, Encode, Postgres, Type};

use super::error::PostgresError;
use super::table::{Stored, Table};

/// From 1970-01-01 to 2000-01-01.
const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;
/// PostgreSQL's calendar, counted from 1970: it begins on 4714-11-24 BC. Dates end in the year 5874897; instants end later than
/// 64 bits of microseconds do.
const DATES: std::ops::RangeInclusive<i32> = -2_440_588..=2_145_042_905;
const INSTANTS: std::ops::RangeFrom<i64> = -210_866_803_200_000_000..;

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
    Decimal(&'a Decimal128Array, u8),
    Text(&'a StringArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Bytes(&'a FixedSizeBinaryArray),
    Position(&'a FixedSizeBinaryArray),
}

/// Some rows of a column as one parameter.
struct Part<'a> {
    values: &'a Values<'a>,
    rows: &'a [usize],
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(table: &'a Table, rows: &'a RecordBatch) -> Result<Self, PostgresError> {
        if rows.num_columns() != table.columns.len() {
            return Err(PostgresError::Batch { why: "its columns are not those of the table" });
        }
        let columns = table
            .columns
            .iter()
            .zip(rows.columns())
            .map(|(column, array)| {
                let values = values(column.stored, array.as_ref()).ok_or_else(|| {
                    let found = array.data_type().to_string();
                    PostgresError::ColumnType { column: column.name.clone(), found }
                })?;
                Ok((column.name.as_str(), values))
            })
            .collect::<Result<_, PostgresError>>()?;
        Ok(Self { columns })
    }

    /// Rows the server cannot hold, with the reason. Values are not named: rows may be confidential.
    pub(crate) fn unstorable(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (name, values) in &self.columns {
            let (suspicious, why) = values.suspicion();
            if suspicious {
                let rows = (0..values.array().len()).filter(|&row| values.unstorable(row));
                found.extend(rows.map(|row| (row, format!("column {name}: {why}"))));
            }
        }
        found.sort_by_key(|(row, _)| *row);
        found.dedup_by_key(|(row, _)| *row);
        found
    }

    /// The values of these rows in these columns, one array a column.
    pub(crate) fn arguments(
        &self,
        columns: impl IntoIterator<Item = usize>,
        rows: &[usize],
    ) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        for (_, values) in columns.into_iter().filter_map(|column| self.columns.get(column)) {
            arguments.add(Part { values, rows })?;
        }
        Ok(arguments)
    }

    pub(crate) fn all_columns(&self) -> std::ops::Range<usize> {
        0..self.columns.len()
    }

    /// Appends bytes that are equal exactly for keys that are equal to the server. Key columns are never null.
    pub(crate) fn key(&self, columns: &[usize], row: usize, out: &mut Vec<u8>) {
        out.clear();
        for (_, values) in columns.iter().filter_map(|&column| self.columns.get(column)) {
            values.key(row, out);
        }
    }

    /// Which of two rows has the larger value. The column is never null.
    pub(crate) fn compare(&self, column: usize, a: usize, b: usize) -> Ordering {
        match self.columns.get(column) {
            Some((_, values)) => values.compare(a, b),
            None => Ordering::Equal,
        }
    }
}

impl Values<'_> {
    fn array(&self) -> &dyn Array {
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

    /// Element and array type, by the numbers that never change (`pg_type.dat`).
    fn types(&self) -> (u32, u32) {
        match self {
            Self::Boolean(_) => (16, 1000),
            Self::SmallInt(_) => (21, 1005),
            Self::Int(_) => (23, 1007),
            Self::BigInt(_) => (20, 1016),
            Self::Real(_) => (700, 1021),
            Self::Double(_) => (701, 1022),
            Self::Decimal(..) | Self::Position(_) => (1700, 1231),
            Self::Text(_) => (25, 1009),
            Self::Date(_) => (1082, 1182),
            Self::Timestamp(_) => (1184, 1185),
            Self::Bytes(_) => (17, 1001),
        }
    }

    /// A quick look at the whole column: whether each value must be looked at, and what could be wrong with one.
    fn suspicion(&self) -> (bool, &'static str) {
        match self {
            Self::Text(array) => (array.value_data().contains(&0), "it contains a zero character"),
            Self::Date(array) => {
                let out = array.values().iter().any(|days| !DATES.contains(days));
                (out, "it is outside 4714 BC to 5874897")
            }
            Self::Timestamp(array) => {
                let out = array.values().iter().any(|micros| !INSTANTS.contains(micros));
                (out, "it is before 4714 BC")
            }
            _ => (false, ""),
        }
    }

    fn unstorable(&self, row: usize) -> bool {
        if self.array().is_null(row) {
            return false;
        }
        match self {
            Self::Text(array) => array.value(row).as_bytes().contains(&0),
            Self::Date(array) => !DATES.contains(&array.value(row)),
            Self::Timestamp(array) => !INSTANTS.contains(&array.value(row)),
            _ => false,
        }
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), BoxDynError> {
        match self {
            Self::Boolean(array) => element(&[u8::from(array.value(row))], out),
            Self::SmallInt(array) => element(&array.value(row).to_be_bytes(), out),
            Self::Int(array) => element(&array.value(row).to_be_bytes(), out),
            Self::BigInt(array) => element(&array.value(row).to_be_bytes(), out),
            Self::Real(array) => element(&array.value(row).to_be_bytes(), out),
            Self::Double(array) => element(&array.value(row).to_be_bytes(), out),
            Self::Decimal(array, scale) => {
                let value = array.value(row);
                numeric(value < 0, value.unsigned_abs(), *scale, out)
            }
            Self::Text(array) => element(array.value(row).as_bytes(), out),
            Self::Date(array) => {
                let days = array.value(row).checked_sub(DAYS_TO_2000);
                element(&days.ok_or("a date out of bounds")?.to_be_bytes(), out)
            }
            Self::Timestamp(array) => {
                let micros = array.value(row).checked_sub(MICROS_TO_2000);
                element(&micros.ok_or("an instant out of bounds")?.to_be_bytes(), out)
            }
            Self::Bytes(array) => element(array.value(row), out),
            Self::Position(array) => numeric(false, position(array.value(row)), 0, out),
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

impl Type<Postgres> for Part<'_> {
    /// Never asked: [`Encode::produces`] says it.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl<'q> Encode<'q, Postgres> for Part<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let (kind, _) = self.values.types();
        let array = self.values.array();
        let nulls = array.null_count() > 0;
        buffer.extend(1i32.to_be_bytes());
        buffer.extend(i32::from(nulls).to_be_bytes());
        buffer.extend(kind.to_be_bytes());
        buffer.extend(i32::try_from(self.rows.len())?.to_be_bytes());
        buffer.extend(1i32.to_be_bytes());
        for &row in self.rows {
            match nulls && array.is_null(row) {
                true => buffer.extend((-1i32).to_be_bytes()),
                false => self.values.write(row, buffer)?,
            }
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.values.types().1)))
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
        Stored::Bytes => Values::Bytes(array.as_fixed_size_binary_opt()?),
        Stored::Position => Values::Position(array.as_fixed_size_binary_opt()?),
    })
}

fn element(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BoxDynError> {
    out.extend(i32::try_from(bytes.len())?.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

/// `magnitude` divided by ten to the power of `scale`, exactly.
fn numeric(
    negative: bool,
    magnitude: u128,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), BoxDynError> {
    let unit = 10u128.checked_pow(scale.into()).ok_or("more digits than a decimal has")?;
    let (mut whole, mut fraction) = (magnitude / unit, magnitude % unit);
    // Groups from the last to the first; the fraction's last group is filled up with zeros.
    let mut groups: Vec<u16> = Vec::with_capacity(20);
    let partial = u32::from(scale) % 4;
    if partial > 0 {
        let low = fraction % 10u128.pow(partial);
        groups.push(u16::try_from(low * 10u128.pow(4 - partial))?);
        fraction /= 10u128.pow(partial);
    }
    for _ in 0..scale / 4 {
        groups.push(u16::try_from(fraction % 10_000)?);
        fraction /= 10_000;
    }
    let behind = groups.len();
    while whole > 0 {
        groups.push(u16::try_from(whole % 10_000)?);
        whole /= 10_000;
    }
    let weight = i16::try_from(groups.len() - behind)? - 1;
    let sign: u16 = if negative { 0x4000 } else { 0 };
    out.extend(i32::try_from(8 + 2 * groups.len())?.to_be_bytes());
    out.extend(u16::try_from(groups.len())?.to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(u16::from(scale).to_be_bytes());
    out.extend(groups.iter().rev().flat_map(|group| group.to_be_bytes()));
    Ok(())
}

/// A big-endian number of up to 16 bytes.
fn position(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |sum, &byte| (sum << 8) | u128::from(byte))
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

#[cfg(test)]
mod tests {
    use super::{numeric, one_spelling, order};
    use std::cmp::Ordering::{Equal, Greater, Less};

    #[test]
    fn numbers_are_cut_into_groups_of_four_digits() {
        let check = |value: i128, scale, expect: &[u16]| {
            let mut out = Vec::new();
            numeric(value < 0, value.unsigned_abs(), scale, &mut out).unwrap();
            let numbers = out[4..].chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            assert_eq!(numbers.collect::<Vec<_>>(), expect, "{value} e-{scale}");
        };
        // Groups, weight, sign, scale, then the groups.
        check(0, 0, &[0, 0xFFFF, 0, 0]);
        check(12_345, 0, &[2, 1, 0, 0, 1, 2345]);
        check(-105, 2, &[2, 0, 0x4000, 2, 1, 500]);
        check(1, 6, &[2, 0xFFFF, 0, 6, 0, 100]);
        check(1, 38, &[10, 0xFFFF, 0, 38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100]);
    }

    #[test]
    fn floats_are_equal_and_ordered_as_the_server_has_them() {
        assert_eq!(one_spelling(-0.0), one_spelling(0.0));
        assert_eq!(one_spelling(f64::NAN), one_spelling(-f64::NAN));
        assert_eq!(order(f64::NAN, f64::INFINITY), Greater);
        assert_eq!(order(f64::NAN, f64::NAN), Equal);
        assert_eq!(order(-0.0, 0.0), Equal);
        assert_eq!(order(1.0, f64::NAN), Less);
    }
}
