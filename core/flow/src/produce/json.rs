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
use arrow_schema::{DataType, SchemaRef};
use garam_stage::records::is_row_type;
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
            if !is_row_type(data_type) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
        Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };

    use super::*;

    fn texts(columns: Vec<(&str, ArrayRef)>) -> Vec<String> {
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let texts = Writer::of(&rows.schema()).unwrap().texts(&rows);
        let text = |row| String::from_utf8(texts.row(row).to_vec()).unwrap();
        let all: Vec<String> = (0..rows.num_rows()).map(text).collect();
        for text in &all {
            serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
        }
        all
    }

    #[test]
    fn every_type_is_written_with_all_that_it_holds() {
        let digits = Decimal128Array::from(vec![Some(-1_234_567_890_123_456_789_012), None]);
        let digits = digits.with_precision_and_scale(38, 4).unwrap();
        let id = FixedSizeBinaryArray::try_from_iter([[0xab_u8, 1], [0, 2]].iter()).unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("n", Arc::new(Int64Array::from(vec![i64::MIN, 7]))),
            ("money", Arc::new(digits)),
            ("r", Arc::new(Float32Array::from(vec![0.1, f32::NAN]))),
            ("d", Arc::new(Float64Array::from(vec![1e300, -0.5]))),
            ("day", Arc::new(Date32Array::from(vec![Some(20_784), Some(-1)]))),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![Some(1_795_476_244_123_456), None])),
            ),
            ("id", Arc::new(id)),
            ("text", Arc::new(StringArray::from(vec![Some("a\"\\\n\u{1}é"), None]))),
        ];
        let expected = [
            "{\"yes\":true,\"n\":-9223372036854775808,\"money\":-123456789012345678.9012,\"r\":0.1,\"d\":1e300,\
             \"day\":\"2026-11-27\",\"at\":\"2026-11-23T23:24:04.123456Z\",\"id\":\"ab01\",\"text\":\"a\\\"\\\\\\n\\u0001é\"}",
            "{\"n\":7,\"r\":\"NaN\",\"d\":-0.5,\"day\":\"1969-12-31\",\"id\":\"0002\"}",
        ];
        assert_eq!(texts(columns), expected);
    }

    #[test]
    fn what_the_new_record_replaces_stays_behind_and_the_rest_is_an_object() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int64Array::from(vec![1]))),
            (REST, Arc::new(StringArray::from(vec!["{\"b\":2}"]))),
            (system::HOST, Arc::new(StringArray::from(vec!["web-1"]))),
            (system::ORDINAL, Arc::new(Int64Array::from(vec![0]))),
            (system::VERSION, Arc::new(Int64Array::from(vec![9]))),
        ];
        let expected = ["{\"a\":1,\"_rest\":{\"b\":2},\"_host\":\"web-1\"}"];
        assert_eq!(texts(columns), expected);
    }
}
