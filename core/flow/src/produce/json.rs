//! A row as a JSON object, the way a contract of format `json` reads it back: every column by its name.
//!
//! ```text
//! boolean, integers        JSON booleans and numbers          decimal     a number with all its digits
//! real, double             shortest number that reads back; NaN and infinities as text
//! text                     string                             date        "2026-11-27"
//! timestamp                "2026-11-27T20:15:00.000000Z"       bytes       hexadecimal string
//! null                     the member is left out
//! _rest                    what it holds: an object
//! ```
//!
//! Of Garam's own columns `_host`, `_path`, `_event_time` and `_ingest_time` go along, for a contract to take them over
//! (`from = "_host"`); origin, position, ordinal and version are those of the new record.

use std::io::Write as _;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use garam_stage::{Failure, FailureKind, system};

/// The column that holds members no column was made of, as the text of an object.
const REST: &str = "_rest";
/// Those of the new record take their place.
const REPLACED: [&str; 4] = [system::ORIGIN, system::POSITION, system::ORDINAL, system::VERSION];

/// Which columns are written, under which names.
#[derive(Debug)]
pub(super) struct Writer {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    column: usize,
    /// `"name":`
    name: Vec<u8>,
    is_object: bool,
}

/// The records of a batch, one behind the other.
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn row(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(row).copied().unwrap_or(0);
        self.bytes.get(start.unwrap_or(0)..end).unwrap_or_default()
    }
}

impl Writer {
    pub(super) fn of(schema: &SchemaRef) -> Result<Self, Failure> {
        let mut members = Vec::new();
        for (column, field) in schema.fields().iter().enumerate() {
            let (name, data_type) = (field.name().as_str(), field.data_type());
            if REPLACED.contains(&name) {
                continue;
            }
            if !is_written(data_type) {
                let text = format!(
                    "column {name} of type {data_type} cannot be written into a stream: cast it"
                );
                return Err(Failure::new(FailureKind::Schema, text));
            }
            let mut quoted = Vec::new();
            string(name, &mut quoted);
            quoted.push(b':');
            members.push(Member { column, name: quoted, is_object: name == REST });
        }
        Ok(Self { members })
    }

    pub(super) fn texts(&self, rows: &RecordBatch) -> Texts {
        let mut texts = Texts { bytes: Vec::new(), ends: Vec::with_capacity(rows.num_rows()) };
        for row in 0..rows.num_rows() {
            texts.bytes.push(b'{');
            let mut is_first = true;
            for member in &self.members {
                let column = rows.column(member.column);
                if column.is_null(row) {
                    continue;
                }
                if !std::mem::take(&mut is_first) {
                    texts.bytes.push(b',');
                }
                texts.bytes.extend_from_slice(&member.name);
                match member.is_object {
                    true => texts
                        .bytes
                        .extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
                    false => value(column, row, &mut texts.bytes),
                }
            }
            texts.bytes.push(b'}');
            texts.ends.push(texts.bytes.len());
        }
        texts
    }
}

fn is_written(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Utf8
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::FixedSizeBinary(_)
    )
}

fn value(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Boolean => shown(out, column.as_boolean().value(row)),
        DataType::Int16 => shown(out, column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => shown(out, column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => shown(out, column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(..) => {
            shown(out, column.as_primitive::<Decimal128Type>().value_as_string(row));
        }
        DataType::Utf8 => string(column.as_string::<i32>().value(row), out),
        DataType::Date32 => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            let text = instant(days.saturating_mul(86_400_000_000));
            string(text.get(..10).unwrap_or(&text), out);
        }
        DataType::Timestamp(..) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            string(&instant(micros), out);
        }
        DataType::FixedSizeBinary(_) => {
            out.push(b'"');
            column.as_fixed_size_binary().value(row).iter().for_each(|byte| {
                shown(out, format_args!("{byte:02x}"));
            });
            out.push(b'"');
        }
        _ => out.extend_from_slice(b"null"),
    }
}

/// The debug form is the shortest that reads back, with an exponent where that is shorter.
fn float(value: impl Into<f64> + std::fmt::Debug + Copy, out: &mut Vec<u8>) {
    match value.into().is_finite() {
        true => shown(out, format_args!("{value:?}")),
        false => string(&format!("{value:?}"), out),
    }
}

/// Microseconds since 1970 as text.
fn instant(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(at) => format!("{at:.6}"),
        Err(_beyond_the_calendar) => micros.to_string(),
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(plain..at).unwrap_or_default());
        match escape {
            b"" => shown(out, format_args!("\\u{byte:04x}")),
            escape => out.extend_from_slice(escape),
        }
        plain = at + 1;
    }
    out.extend_from_slice(text.as_bytes().get(plain..).unwrap_or_default());
    out.push(b'"');
}

fn shown(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a vector takes every byte");
}
