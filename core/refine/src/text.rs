//! One text value by its column's type, for formats in which everything is text.
//!
//! In: the text of a field, or nothing. Out: a [`Cell`], or why it does not fit. Promise: as for JSON, nothing is rounded,
//! guessed or cut; booleans are `true`, `false`, `1` and `0`; times may also be epoch numbers, with a fraction of a second.
//! An empty text is null, except in a column of text.

use std::borrow::Cow;

use garam_stage::{Column, ColumnType};

use crate::clock::Time;
use crate::instant::{self, MICROS};
use crate::reject::Reject;
use crate::value::{Cell, NoCell, exact, explain, float, integer, is_integral, missing, within};

/// Parses the value of a column; `None` where the record has no such field, or says that it has no value.
pub(crate) fn cell<'a>(
    column: &Column,
    text: Option<Cow<'a, str>>,
    time: Time<'_>,
) -> Result<Cell<'a>, Reject> {
    let is_text = matches!(column.kind, ColumnType::Text | ColumnType::Varchar(_));
    let text = match text {
        Some(text) if is_text || !text.is_empty() => text,
        _ if column.nullable => return Ok(Cell::Null),
        Some(_) => return Err(missing(column, "an empty value")),
        None => return Err(missing(column, "no value")),
    };
    match column.kind {
        ColumnType::Text => Ok(Cell::Text(text)),
        ColumnType::Varchar(limit) if text.len() <= limit as usize => Ok(Cell::Text(text)),
        kind => parse(kind, &text, time).map_err(|why| explain(column, time.is_event, &text, &why)),
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
