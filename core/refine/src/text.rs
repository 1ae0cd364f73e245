//! One text value by its column's type, for formats in which everything is text.
//!
//! In: the text of a field, or nothing. Out: a [`Cell`], or why it does not fit. Promise: as for JSON, nothing is rounded,
//! guessed or cut; booleans are `true`, `false`, `1` and `0`; times may also be epoch numbers, with a fraction of a second.
//! An empty text is null, except in a column of text. A column may ask for more ([`cast`]).

use std::borrow::Cow;

use garam_stage::{Cast, Column, ColumnType};

use crate::clock::Time;
use crate::instant::{self, MICROS};
use crate::reject::Reject;
use crate::value::{
    Cell, NoCell, exact, explain, float, integer, is_integral, missing, whole, within,
};

/// Parses the value of a column; `None` where the record has no such field, or says that it has no value.
pub(crate) fn cell<'a>(
    column: &Column,
    text: Option<Cow<'a, str>>,
    time: Time<'_>,
) -> Result<Cell<'a>, Reject> {
    let is_absent = is_absent(column, text.as_deref());
    let text = match text {
        Some(text) if !is_absent => text,
        _ if column.nullable => return Ok(Cell::Null),
        Some(_) => return Err(missing(column, "an empty value")),
        None => return Err(missing(column, "no value")),
    };
    match column.kind {
        ColumnType::Text => Ok(Cell::Text(text)),
        ColumnType::Varchar(limit) if text.len() <= limit as usize => Ok(Cell::Text(text)),
        kind if column.rules.cast == Cast::Lenient => {
            cast(kind, &text, time).map_err(|why| explain(column, time.is_event, &text, &why))
        }
        kind => parse(kind, &text, time).map_err(|why| explain(column, time.is_event, &text, &why)),
    }
}

/// Whether the record has no value for the column.
pub(crate) fn is_absent(column: &Column, text: Option<&str>) -> bool {
    let is_text = matches!(column.kind, ColumnType::Text | ColumnType::Varchar(_));
    text.is_none_or(|text| text.is_empty() && !is_text)
}

/// Also takes blanks around, `+`, whole numbers written `1.0`, and `yes no on off t f y n` in any case.
pub(crate) fn cast(kind: ColumnType, text: &str, time: Time<'_>) -> Result<Cell<'static>, NoCell> {
    let trimmed = text.trim_ascii();
    if kind == ColumnType::Boolean {
        let is = |words: &[&str]| words.iter().any(|word| trimmed.eq_ignore_ascii_case(word));
        return match () {
            () if is(&["true", "t", "yes", "y", "on", "1"]) => Ok(Cell::Boolean(true)),
            () if is(&["false", "f", "no", "n", "off", "0"]) => Ok(Cell::Boolean(false)),
            () => Err(NoCell::Type),
        };
    }
    let unsigned = trimmed.strip_prefix('+').filter(|rest| !rest.starts_with('-'));
    let number = unsigned.unwrap_or(trimmed);
    if let Some(read) = whole(kind, number) {
        return read;
    }
    match kind {
        ColumnType::Real | ColumnType::Double | ColumnType::Decimal { .. } => {
            parse(kind, number, time)
        }
        kind => parse(kind, trimmed, time),
    }
}

fn parse(kind: ColumnType, text: &str, time: Time<'_>) -> Result<Cell<'static>, NoCell> {
    match kind {
        ColumnType::Boolean => match text {
            "true" | "1" => Ok(Cell::Boolean(true)),
            "false" | "0" => Ok(Cell::Boolean(false)),
            _ => Err(NoCell::Type),
        },
        ColumnType::SmallInt => integer(text, Cell::SmallInt),
        ColumnType::Int => integer(text, Cell::Int),
        ColumnType::BigInt => integer(text, Cell::BigInt),
        ColumnType::Real => float(text, f32::is_finite).map(Cell::Real),
        ColumnType::Double => float(text, f64::is_finite).map(Cell::Double),
        ColumnType::Decimal { precision, scale } => exact(text, precision, scale),
        ColumnType::Text => Ok(Cell::Text(Cow::Owned(text.to_owned()))),
        ColumnType::Varchar(limit) => {
            within(limit, Cow::Borrowed(text)).map(|text| Cell::Text(Cow::Owned(text.into_owned())))
        }
        ColumnType::Date => Ok(Cell::Date(instant::date(text)?)),
        ColumnType::Timestamp => timestamp(text, time).map(Cell::Timestamp),
    }
}

fn timestamp(text: &str, time: Time<'_>) -> Result<i64, NoCell> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    if time.clock.has_own_notation(time.is_event) || !is_integral(whole) || !is_fraction {
        return Ok(time.read(text)?);
    }
    let number: i64 = whole.parse().map_err(|_| NoCell::Range("it is out of bounds"))?;
    if fraction.is_empty() {
        // "123." is no number.
        return if whole.len() == text.len() {
            Ok(instant::epoch(number)?)
        } else {
            Err(NoCell::Type)
        };
    }
    let padded: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros: i64 = padded.parse().map_err(|_| NoCell::Type)?;
    let signed = if whole.starts_with('-') { -micros } else { micros };
    number
        .checked_mul(MICROS)
        .and_then(|whole| whole.checked_add(signed))
        .ok_or(NoCell::Range("it is out of bounds"))
}
