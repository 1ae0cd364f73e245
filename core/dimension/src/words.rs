//! One value for the operator, as text without anything that steers a terminal.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array as _, ArrayRef};
use arrow_schema::DataType;

/// The most characters of a text that are shown.
const SHOWN: usize = 64;

pub(crate) fn in_words(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(_, _) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            let at = time(days.saturating_mul(86_400_000_000));
            at.split('T').next().unwrap_or_default().to_owned()
        }
        DataType::Timestamp(_, _) => {
            time(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        other => format!("<{other}>"),
    }
}

fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |at| at.to_string())
}

fn text(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("{:?}{cut}", shown)
}
