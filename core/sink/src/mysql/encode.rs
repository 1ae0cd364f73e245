//! Arrow values as parameters of a prepared statement. Pure.
//!
//! In: a batch with the table's columns. Out: parameters row by row, or why the servers cannot hold a value as it is: a number
//! that is none, a day outside their calendar, a text longer than a key's column, a row longer than a statement may be.
//!
//! Integers and floats travel as they are. Decimals, dates and instants travel as text, which the server reads exactly.

use std::fmt::Write as _;

use arrow_array::{Array, RecordBatch};
use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::mysql::MySqlArguments;

use super::error::MySqlError;
use super::table::Table;
use crate::columns::{Columns, Values, position};

/// 1000-01-01 to 9999-12-31 in days since 1970-01-01: what both manuals promise.
const DATES: std::ops::RangeInclusive<i32> = -354_285..=2_932_896;
/// The same in microseconds.
const INSTANTS: std::ops::RangeInclusive<i64> = -30_610_224_000_000_000..=253_402_300_799_999_999;
const DAY: i64 = 86_400_000_000;
/// What a parameter other than a text takes at most: type, length, 39 digits.
const PARAMETER: usize = 48;

/// A batch, ready to be bound.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    pub(crate) columns: Columns<'a>,
    /// About the bytes of a row without its texts.
    fixed: usize,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(table: &'a Table, rows: &'a RecordBatch) -> Result<Self, MySqlError> {
        if rows.num_columns() != table.columns.len() + usize::from(table.obeys.is_some()) {
            return Err(MySqlError::Batch { why: "its columns are not those of the table" });
        }
        let fixed = table.columns.len() * PARAMETER;
        Ok(Self { columns: Columns::new(&table.columns, rows)?, fixed })
    }

    /// Rows the server cannot hold, with the reason.
    pub(crate) fn unstorable(&self) -> Vec<(usize, String)> {
        self.columns.unstorable(suspicion, unstorable)
    }

    /// About the bytes of a row on its way, rather more than less.
    pub(crate) fn bytes(&self, row: usize) -> usize {
        let texts = self.columns.all().filter_map(|column| match self.columns.get(column) {
            Some(Values::Text(array)) if !array.is_null(row) => Some(array.value(row).len()),
            _ => None,
        });
        self.fixed + texts.sum::<usize>()
    }

    /// The values of these rows in these columns, row by row.
    pub(crate) fn arguments(
        &self,
        columns: &[usize],
        rows: &[usize],
    ) -> Result<MySqlArguments, BoxDynError> {
        let mut arguments = MySqlArguments::default();
        arguments
            .reserve(columns.len() * rows.len(), rows.iter().map(|&row| self.bytes(row)).sum());
        let mut text = String::new();
        for &row in rows {
            for values in columns.iter().filter_map(|&column| self.columns.get(column)) {
                add(values, row, &mut arguments, &mut text)?;
            }
        }
        Ok(arguments)
    }
}

/// A quick look at a whole column: what could be wrong with one of its values.
fn suspicion(values: &Values<'_>) -> Option<&'static str> {
    let (suspicious, why) = match values {
        Values::Real(array) => {
            (array.values().iter().any(|x| !x.is_finite()), "it is no finite number")
        }
        Values::Double(array) => {
            (array.values().iter().any(|x| !x.is_finite()), "it is no finite number")
        }
        Values::Date(array) => {
            let out = array.values().iter().any(|days| !DATES.contains(days));
            (out, "it is outside the years 1000 to 9999")
        }
        Values::Timestamp(array) => {
            let out = array.values().iter().any(|micros| !INSTANTS.contains(micros));
            (out, "it is outside the years 1000 to 9999")
        }
        _ => return None,
    };
    suspicious.then_some(why)
}

fn unstorable(values: &Values<'_>, row: usize) -> bool {
    match values {
        Values::Real(array) => !array.value(row).is_finite(),
        Values::Double(array) => !array.value(row).is_finite(),
        Values::Date(array) => !DATES.contains(&array.value(row)),
        Values::Timestamp(array) => !INSTANTS.contains(&array.value(row)),
        _ => false,
    }
}

/// Adds one value; `text` is room to write it in.
fn add(
    values: &Values<'_>,
    row: usize,
    out: &mut MySqlArguments,
    text: &mut String,
) -> Result<(), BoxDynError> {
    text.clear();
    let null = values.array().is_null(row);
    match values {
        Values::Boolean(array) => out.add((!null).then(|| i8::from(array.value(row)))),
        Values::SmallInt(array) => out.add((!null).then(|| array.value(row))),
        Values::Int(array) => out.add((!null).then(|| array.value(row))),
        Values::BigInt(array) => out.add((!null).then(|| array.value(row))),
        Values::Real(array) => out.add((!null).then(|| array.value(row))),
        Values::Double(array) => out.add((!null).then(|| array.value(row))),
        Values::Text(array) => out.add((!null).then(|| array.value(row))),
        Values::Bytes(array) => out.add((!null).then(|| array.value(row))),
        _ if null => out.add(None::<&str>),
        Values::Decimal(array, scale) => {
            decimal(array.value(row), *scale, text)?;
            out.add(text.as_str())
        }
        Values::Position(array) => {
            write!(text, "{}", position(array.value(row)))?;
            out.add(text.as_str())
        }
        Values::Date(array) => {
            date(array.value(row).into(), text)?;
            out.add(text.as_str())
        }
        Values::Timestamp(array) => {
            instant(array.value(row), text)?;
            out.add(text.as_str())
        }
    }
}

/// `value` divided by ten to the power of `scale`, exactly.
fn decimal(value: i128, scale: u8, out: &mut String) -> std::fmt::Result {
    let sign = if value < 0 { "-" } else { "" };
    let digits = usize::from(scale);
    let magnitude = format!("{:0width$}", value.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = magnitude.split_at(magnitude.len() - digits);
    let point = if digits > 0 { "." } else { "" };
    write!(out, "{sign}{whole}{point}{fraction}")
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar, counted in eras of 400 years that begin in March.
fn date(days: i64, out: &mut String) -> std::fmt::Result {
    let from_era = days + 719_468;
    let (era, day) = (from_era.div_euclid(146_097), from_era.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * march + 2) / 5 + 1, (march + 2) % 12 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    write!(out, "{year:04}-{month:02}-{day:02}")
}

/// Microseconds since 1970-01-01 as a date and a time of day.
fn instant(micros: i64, out: &mut String) -> std::fmt::Result {
    date(micros.div_euclid(DAY), out)?;
    let of_day = micros.rem_euclid(DAY);
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use super::{DATES, INSTANTS, date, decimal, instant};

    #[test]
    fn numbers_and_times_are_written_exactly() {
        let check = |value, scale, expect: &str| {
            let mut text = String::new();
            decimal(value, scale, &mut text).unwrap();
            assert_eq!(text, expect);
        };
        check(0, 0, "0");
        check(-105, 2, "-1.05");
        check(1, 6, "0.000001");
        check(-7, 1, "-0.7");
        check(i128::MIN, 0, "-170141183460469231731687303715884105728");
        let day = |days: i32| {
            let mut text = String::new();
            date(days.into(), &mut text).unwrap();
            text
        };
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(*DATES.start()), "1000-01-01");
        assert_eq!(day(*DATES.end()), "9999-12-31");
        let at = |micros| {
            let mut text = String::new();
            instant(micros, &mut text).unwrap();
            text
        };
        assert_eq!(at(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(at(*INSTANTS.start()), "1000-01-01 00:00:00.000000");
        assert_eq!(at(*INSTANTS.end()), "9999-12-31 23:59:59.999999");
    }

    #[test]
    fn every_day_of_the_calendar_is_that_of_jiff() {
        let mut expect = jiff::civil::date(1000, 1, 1);
        let mut text = String::new();
        for days in (*DATES.start()..=*DATES.end()).step_by(97) {
            text.clear();
            date(days.into(), &mut text).unwrap();
            assert_eq!(text, expect.to_string());
            expect = expect.checked_add(jiff::Span::new().days(97)).unwrap_or(expect);
        }
    }
}
