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

use arrow_array::RecordBatch;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Arguments as _, Encode, Postgres, Type};

use super::error::PostgresError;
use super::table::Table;
use crate::columns::{Columns, Values, position};

/// From 1970-01-01 to 2000-01-01.
const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;
/// PostgreSQL's calendar, counted from 1970: it begins on 4714-11-24 BC. Dates end in the year 5874897; instants end later than
/// 64 bits of microseconds do.
const DATES: std::ops::RangeInclusive<i32> = -2_440_588..=2_145_042_905;
const INSTANTS: std::ops::RangeFrom<i64> = -210_866_803_200_000_000..;

/// The length that says null.
const NULL: [u8; 4] = (-1i32).to_be_bytes();

/// A batch, ready to be bound.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    pub(crate) columns: Columns<'a>,
}

/// Some rows of a column as one parameter.
struct Part<'a> {
    values: &'a Values<'a>,
    rows: &'a [usize],
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(table: &'a Table, rows: &'a RecordBatch) -> Result<Self, PostgresError> {
        if rows.num_columns() != table.columns.len() + usize::from(table.obeys.is_some()) {
            return Err(PostgresError::Batch { why: "its columns are not those of the table" });
        }
        Ok(Self { columns: Columns::new(&table.columns, rows)? })
    }

    /// Rows the server cannot hold, with the reason.
    pub(crate) fn unstorable(&self) -> Vec<(usize, String)> {
        self.columns.unstorable(suspicion, unstorable)
    }

    /// The values of these rows in these columns, one array a column.
    pub(crate) fn arguments(
        &self,
        columns: impl IntoIterator<Item = usize>,
        rows: &[usize],
    ) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        for values in columns.into_iter().filter_map(|column| self.columns.get(column)) {
            arguments.add(Part { values, rows })?;
        }
        Ok(arguments)
    }
}

impl Encoder<'_> {
    /// A row as COPY takes it.
    pub(crate) fn tuple(&self, row: usize, out: &mut Vec<u8>) -> Result<(), BoxDynError> {
        out.extend(i16::try_from(self.columns.all().len())?.to_be_bytes());
        for values in self.columns.all().filter_map(|column| self.columns.get(column)) {
            match values.array().is_null(row) {
                true => out.extend(NULL),
                false => write(values, row, out)?,
            }
        }
        Ok(())
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
        let (kind, _) = types(self.values);
        let array = self.values.array();
        let nulls = array.null_count() > 0;
        buffer.extend(1i32.to_be_bytes());
        buffer.extend(i32::from(nulls).to_be_bytes());
        buffer.extend(kind.to_be_bytes());
        buffer.extend(i32::try_from(self.rows.len())?.to_be_bytes());
        buffer.extend(1i32.to_be_bytes());
        for &row in self.rows {
            match nulls && array.is_null(row) {
                true => buffer.extend(NULL),
                false => write(self.values, row, buffer)?,
            }
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(types(self.values).1)))
    }
}

/// Element and array type, by the numbers that never change (`pg_type.dat`).
fn types(values: &Values<'_>) -> (u32, u32) {
    match values {
        Values::Boolean(_) => (16, 1000),
        Values::SmallInt(_) => (21, 1005),
        Values::Int(_) => (23, 1007),
        Values::BigInt(_) => (20, 1016),
        Values::Real(_) => (700, 1021),
        Values::Double(_) => (701, 1022),
        Values::Decimal(..) | Values::Position(_) => (1700, 1231),
        Values::Text(_) => (25, 1009),
        Values::Date(_) => (1082, 1182),
        Values::Timestamp(_) => (1184, 1185),
        Values::Bytes(_) => (17, 1001),
    }
}

/// A quick look at the whole column: whether each value must be looked at, and what could be wrong with one.
fn suspicion(values: &Values<'_>) -> Option<&'static str> {
    let (suspicious, why) = match values {
        Values::Text(array) => (array.value_data().contains(&0), "it contains a zero character"),
        Values::Date(array) => {
            let out = array.values().iter().any(|days| !DATES.contains(days));
            (out, "it is outside 4714 BC to 5874897")
        }
        Values::Timestamp(array) => {
            let out = array.values().iter().any(|micros| !INSTANTS.contains(micros));
            (out, "it is before 4714 BC")
        }
        _ => return None,
    };
    suspicious.then_some(why)
}

fn unstorable(values: &Values<'_>, row: usize) -> bool {
    match values {
        Values::Text(array) => array.value(row).as_bytes().contains(&0),
        Values::Date(array) => !DATES.contains(&array.value(row)),
        Values::Timestamp(array) => !INSTANTS.contains(&array.value(row)),
        _ => false,
    }
}

fn write(values: &Values<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), BoxDynError> {
    match values {
        Values::Boolean(array) => element(&[u8::from(array.value(row))], out),
        Values::SmallInt(array) => element(&array.value(row).to_be_bytes(), out),
        Values::Int(array) => element(&array.value(row).to_be_bytes(), out),
        Values::BigInt(array) => element(&array.value(row).to_be_bytes(), out),
        Values::Real(array) => element(&array.value(row).to_be_bytes(), out),
        Values::Double(array) => element(&array.value(row).to_be_bytes(), out),
        Values::Decimal(array, scale) => {
            let value = array.value(row);
            numeric(value < 0, value.unsigned_abs(), *scale, out)
        }
        Values::Text(array) => element(array.value(row).as_bytes(), out),
        Values::Date(array) => {
            let days = array.value(row).checked_sub(DAYS_TO_2000);
            element(&days.ok_or("a date out of bounds")?.to_be_bytes(), out)
        }
        Values::Timestamp(array) => {
            let micros = array.value(row).checked_sub(MICROS_TO_2000);
            element(&micros.ok_or("an instant out of bounds")?.to_be_bytes(), out)
        }
        Values::Bytes(array) => element(array.value(row), out),
        Values::Position(array) => numeric(false, position(array.value(row)), 0, out),
    }
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

#[cfg(test)]
mod tests {
    use super::numeric;

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
}
