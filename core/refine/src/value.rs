//! One JSON value by its column's type.
//!
//! In: the raw text of a value, known to be valid JSON. Out: a [`Cell`], or why it does not fit.
//! Promise: nothing is coerced. Integers come from integral number tokens only (`1.0` is no integer), text from strings,
//! booleans from `true` and `false`; decimals from the exact text of a number or string; only `real` and `double` round.
//! A column may ask for more (`cast`): see [`cast`].

use std::borrow::Cow;

use garam_stage::{Cast, Column, ColumnType, QuarantineReason};

use crate::clock::Time;
use crate::decimal::{self, NoDecimal};
use crate::instant::{self, NoInstant};
use crate::members::kind_of;
use crate::reject::{Reject, shown};

/// A parsed value, ready to be appended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Boolean(bool),
    SmallInt(i16),
    Int(i32),
    BigInt(i64),
    Real(f32),
    Double(f64),
    Decimal(i128),
    Text(Cow<'a, str>),
    Date(i32),
    Timestamp(i64),
}

/// Why a value is no cell, before column and value are named.
pub(crate) enum NoCell {
    Type,
    Range(&'static str),
    /// A string whose escapes stand for no text.
    Text(&'static str),
}

/// Parses the value of a column; `raw` is `None` where the member is absent.
pub(crate) fn cell<'a>(
    column: &Column,
    raw: Option<&'a str>,
    time: Time<'_>,
) -> Result<Cell<'a>, Reject> {
    let raw = match raw {
        None | Some("null") if column.nullable => return Ok(Cell::Null),
        None => return Err(missing(column, "no value")),
        Some("null") => return Err(missing(column, "null")),
        Some(raw) => raw,
    };
    let read = match column.rules.cast {
        Cast::Strict => parse(column.kind, raw, time),
        Cast::Lenient => cast(column.kind, raw, time),
        Cast::Json => Ok(Cell::Text(Cow::Borrowed(raw))),
    };
    read.map_err(|why| explain(column, time.is_event, raw, &why))
}

/// Also takes what means the same in another kind: a string is read as the text formats read it, a number or a boolean is
/// text as it was written, a whole number may be written `1.0` or `1e3`. Still exact or refused.
fn cast<'a>(kind: ColumnType, raw: &'a str, time: Time<'_>) -> Result<Cell<'a>, NoCell> {
    let is_text = matches!(kind, ColumnType::Text | ColumnType::Varchar(_));
    match raw.as_bytes().first() {
        Some(b'"') if is_text => parse(kind, raw, time),
        Some(b'"') => crate::text::cast(kind, &string(raw)?, time),
        Some(b'{' | b'[') => Err(NoCell::Type),
        _ if is_text => match kind {
            ColumnType::Varchar(limit) => within(limit, Cow::Borrowed(raw)).map(Cell::Text),
            _ => Ok(Cell::Text(Cow::Borrowed(raw))),
        },
        Some(b't' | b'f') => parse(kind, raw, time),
        _ if kind == ColumnType::Boolean => crate::text::cast(kind, raw, time),
        _ => whole(kind, raw).unwrap_or_else(|| parse(kind, raw, time)),
    }
}

/// A whole number however it is written; `None` for other columns.
pub(crate) fn whole(kind: ColumnType, text: &str) -> Option<Result<Cell<'static>, NoCell>> {
    fn fit<T: TryFrom<i128>>(number: i128) -> Result<T, NoCell> {
        T::try_from(number).map_err(|_| NoCell::Range("it is out of bounds"))
    }
    let number = || match decimal::parse(text, 38, 0) {
        Ok(number) => Ok(number),
        Err(NoDecimal::Syntax) => Err(NoCell::Type),
        Err(NoDecimal::Range) => Err(NoCell::Range("it is no whole number, or out of bounds")),
    };
    Some(match kind {
        ColumnType::SmallInt => number().and_then(fit).map(Cell::SmallInt),
        ColumnType::Int => number().and_then(fit).map(Cell::Int),
        ColumnType::BigInt => number().and_then(fit).map(Cell::BigInt),
        _ => return None,
    })
}

fn parse<'a>(kind: ColumnType, raw: &'a str, time: Time<'_>) -> Result<Cell<'a>, NoCell> {
    match kind {
        ColumnType::Boolean => match raw {
            "true" => Ok(Cell::Boolean(true)),
            "false" => Ok(Cell::Boolean(false)),
            _ => Err(NoCell::Type),
        },
        ColumnType::SmallInt => integer(raw, Cell::SmallInt),
        ColumnType::Int => integer(raw, Cell::Int),
        ColumnType::BigInt => integer(raw, Cell::BigInt),
        ColumnType::Real => float(raw, f32::is_finite).map(Cell::Real),
        ColumnType::Double => float(raw, f64::is_finite).map(Cell::Double),
        ColumnType::Decimal { precision, scale } => decimal(raw, precision, scale),
        ColumnType::Text => string(raw).map(Cell::Text),
        ColumnType::Varchar(limit) => within(limit, string(raw)?).map(Cell::Text),
        ColumnType::Date => {
            let text = string(raw)?;
            instant::date(&text).map(Cell::Date).map_err(NoCell::from)
        }
        ColumnType::Timestamp => timestamp(raw, time).map(Cell::Timestamp),
    }
}

pub(crate) fn integer<'a, T: std::str::FromStr + TryFrom<i64>>(
    raw: &str,
    cell: impl Fn(T) -> Cell<'a>,
) -> Result<Cell<'a>, NoCell> {
    if let Some(number) = short(raw) {
        return T::try_from(number).map(cell).map_err(|_| NoCell::Range("it is out of bounds"));
    }
    if !is_integral(raw) {
        return Err(NoCell::Type);
    }
    raw.parse().map(cell).map_err(|_| NoCell::Range("it is out of bounds"))
}

/// An integral number of so few digits that it is in bounds whatever they are.
fn short(raw: &str) -> Option<i64> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut number = 0;
    for byte in digits.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if digits.len() < raw.len() { -number } else { number })
}

pub(crate) fn float<T: std::str::FromStr + Copy>(
    raw: &str,
    is_finite: impl Fn(T) -> bool,
) -> Result<T, NoCell> {
    if !is_number(raw) {
        return Err(NoCell::Type);
    }
    let value: T = raw.parse().map_err(|_| NoCell::Type)?;
    if !is_finite(value) {
        return Err(NoCell::Range("it is out of bounds"));
    }
    Ok(value)
}

/// A text that has at most this many characters.
pub(crate) fn within(limit: u32, text: Cow<'_, str>) -> Result<Cow<'_, str>, NoCell> {
    let limit = limit as usize;
    // A character has at least one byte, so most texts need no counting.
    if text.len() > limit && text.chars().count() > limit {
        return Err(NoCell::Range("it is too long"));
    }
    Ok(text)
}

fn decimal(raw: &str, precision: u8, scale: i8) -> Result<Cell<'_>, NoCell> {
    let text = if is_number(raw) { Cow::Borrowed(raw) } else { string(raw)? };
    exact(&text, precision, scale)
}

pub(crate) fn exact<'a>(text: &str, precision: u8, scale: i8) -> Result<Cell<'a>, NoCell> {
    match decimal::parse(text, precision, scale) {
        Ok(value) => Ok(Cell::Decimal(value)),
        Err(NoDecimal::Syntax) => Err(NoCell::Type),
        Err(NoDecimal::Range) => Err(NoCell::Range("it has too many digits")),
    }
}

fn timestamp(raw: &str, time: Time<'_>) -> Result<i64, NoCell> {
    if is_number(raw) {
        if let Some(number) = short(raw) {
            return Ok(instant::epoch(number)?);
        }
        if !is_integral(raw) {
            return Err(NoCell::Type);
        }
        let number: i64 = raw.parse().map_err(|_| NoCell::Range("it is out of bounds"))?;
        return Ok(instant::epoch(number)?);
    }
    Ok(time.read(&string(raw)?)?)
}

/// The text of a JSON string. Without escapes it is borrowed.
fn string(raw: &str) -> Result<Cow<'_, str>, NoCell> {
    let inner =
        raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(NoCell::Type)?;
    if !inner.as_bytes().contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let text: String = serde_json::from_str(raw)
        .map_err(|_| NoCell::Text("it has an escape that stands for no character"))?;
    // Most databases take no NUL in text, so none is delivered to any.
    if text.as_bytes().contains(&0) {
        return Err(NoCell::Text("NUL byte"));
    }
    Ok(Cow::Owned(text))
}

fn is_number(raw: &str) -> bool {
    raw.as_bytes().first().is_some_and(|b| b.is_ascii_digit() || *b == b'-')
}

pub(crate) fn is_integral(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

impl From<NoInstant> for NoCell {
    fn from(why: NoInstant) -> Self {
        match why {
            NoInstant::Syntax => Self::Type,
            NoInstant::Range => Self::Range("there is no such time"),
        }
    }
}

pub(crate) fn missing(column: &Column, found: &str) -> Reject {
    let detail =
        format!("column {}: expected {} not null, found {found}", column.name, column.kind);
    Reject::new(QuarantineReason::MissingValue, detail)
}

pub(crate) fn explain(column: &Column, is_time: bool, raw: &str, why: &NoCell) -> Reject {
    let (reason, note) = match why {
        NoCell::Type => (QuarantineReason::Type, ""),
        NoCell::Range(note) => (QuarantineReason::Range, *note),
        NoCell::Text(note) => (QuarantineReason::Syntax, *note),
    };
    // Whatever is wrong with the event time, the operator looks for it under one name.
    let reason = if is_time { QuarantineReason::EventTime } else { reason };
    let found = match raw.as_bytes().first() {
        Some(b'{' | b'[') => kind_of(raw).to_owned(),
        _ => shown(raw),
    };
    let separator = if note.is_empty() { "" } else { ": " };
    let expected = column.kind;
    let detail =
        format!("column {}: expected {expected}, found {found}{separator}{note}", column.name);
    Reject::new(reason, detail)
}
