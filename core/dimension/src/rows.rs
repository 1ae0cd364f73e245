//! The bytes of rows: what a snapshot's id is a hash of, what lies on disk, and what keys are compared by.
//!
//! ```text
//! column    the cells of all rows, one after another; columns in the schema's order
//! cell      0                        null
//!           1 value                  boolean: 1 byte; numbers, dates, timestamps: little-endian, as wide as they are; decimal: 16 bytes;
//!                                    text: length u32 LE, UTF-8
//! ```
//!
//! In: a batch of the types that a contract can name. Out: bytes, and back. Promise: equal rows have equal bytes on every machine
//! and build; different keys have different bytes; bytes that are not what was written end in an error within their own size.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef, TimeUnit};

/// Why rows are no bytes, or bytes no rows.
pub(crate) type Why = String;

/// Writes the cell of a row.
type WriteCell<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

/// All cells of a batch.
pub(crate) fn encode(batch: &RecordBatch) -> Result<Vec<u8>, Why> {
    let mut out = Vec::new();
    for column in batch.columns() {
        let write = writer(column)?;
        (0..batch.num_rows()).for_each(|row| write(row, &mut out));
    }
    Ok(out)
}

/// The key of each row, one after another.
pub(crate) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    pub(crate) fn of(batch: &RecordBatch, columns: &[usize]) -> Result<Self, Why> {
        let columns: Vec<&ArrayRef> = columns.iter().map(|&i| batch.column(i)).collect();
        let writers = columns.iter().map(|column| writer(column)).collect::<Result<Vec<_>, _>>()?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(batch.num_rows()));
        for row in 0..batch.num_rows() {
            writers.iter().for_each(|write| write(row, &mut bytes));
            ends.push(bytes.len());
        }
        Ok(Self { bytes, ends })
    }

    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let from = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let to = self.ends.get(row).copied().unwrap_or_default();
        self.bytes.get(from.unwrap_or(0)..to).unwrap_or_default()
    }
}

fn writer(column: &ArrayRef) -> Result<WriteCell<'_>, Why> {
    macro_rules! fixed {
        ($kind:ty) => {{
            let values = column.as_primitive::<$kind>();
            unless_null(values, move |row, out| {
                out.extend_from_slice(&values.value(row).to_le_bytes())
            })
        }};
    }
    Ok(match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            unless_null(values, move |row, out| out.push(u8::from(values.value(row))))
        }
        DataType::Int16 => fixed!(Int16Type),
        DataType::Int32 => fixed!(Int32Type),
        DataType::Int64 => fixed!(Int64Type),
        DataType::Float32 => fixed!(Float32Type),
        DataType::Float64 => fixed!(Float64Type),
        DataType::Decimal128(_, _) => fixed!(Decimal128Type),
        DataType::Date32 => fixed!(Date32Type),
        DataType::Timestamp(TimeUnit::Microsecond, _) => fixed!(TimestampMicrosecondType),
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            unless_null(values, move |row, out| {
                let text = values.value(row).as_bytes();
                // Arrow addresses a column's text with 31 bits.
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text);
            })
        }
        other => return Err(format!("no contract has columns of {other}")),
    })
}

fn unless_null<'a>(
    array: &'a dyn Array,
    value: impl Fn(usize, &mut Vec<u8>) + 'a,
) -> WriteCell<'a> {
    Box::new(move |row, out| {
        out.push(u8::from(!array.is_null(row)));
        if !array.is_null(row) {
            value(row, out);
        }
    })
}

/// The rows that [`encode`] wrote.
pub(crate) fn decode(schema: &SchemaRef, rows: usize, bytes: &[u8]) -> Result<RecordBatch, Why> {
    // Each cell has a byte at least, so nothing is set aside for rows that are not there.
    if rows > bytes.len() && !schema.fields().is_empty() {
        return Err(format!("{rows} rows do not fit in {} bytes", bytes.len()));
    }
    let mut scan = Scan { rest: bytes };
    let columns = schema.fields().iter().map(|field| scan.column(field.data_type(), rows));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    if !scan.rest.is_empty() {
        return Err(format!("{} bytes stand behind the rows", scan.rest.len()));
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| error.to_string())
}

struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Why> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or("it ends inside of a row")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Why> {
        self.take(N)?.try_into().map_err(|_| "it ends inside of a row".to_owned())
    }

    fn has_value(&mut self) -> Result<bool, Why> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("{other} is neither a value nor null")),
        }
    }

    fn text(&mut self) -> Result<&'a str, Why> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        std::str::from_utf8(self.take(len)?).map_err(|error| error.to_string())
    }

    fn column(&mut self, kind: &DataType, rows: usize) -> Result<ArrayRef, Why> {
        macro_rules! read {
            ($builder:expr, $value:expr) => {{
                let mut builder = $builder;
                for _ in 0..rows {
                    let value = if self.has_value()? { Some($value) } else { None };
                    builder.append_option(value);
                }
                Ok(Arc::new(builder.finish()) as ArrayRef)
            }};
        }
        match kind {
            DataType::Boolean => read!(BooleanBuilder::new(), self.array::<1>()? == [1]),
            DataType::Int16 => read!(Int16Builder::new(), i16::from_le_bytes(self.array()?)),
            DataType::Int32 => read!(Int32Builder::new(), i32::from_le_bytes(self.array()?)),
            DataType::Int64 => read!(Int64Builder::new(), i64::from_le_bytes(self.array()?)),
            DataType::Float32 => read!(Float32Builder::new(), f32::from_le_bytes(self.array()?)),
            DataType::Float64 => read!(Float64Builder::new(), f64::from_le_bytes(self.array()?)),
            DataType::Decimal128(_, _) => read!(
                Decimal128Builder::new().with_data_type(kind.clone()),
                i128::from_le_bytes(self.array()?)
            ),
            DataType::Date32 => read!(Date32Builder::new(), i32::from_le_bytes(self.array()?)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => read!(
                TimestampMicrosecondBuilder::new().with_data_type(kind.clone()),
                i64::from_le_bytes(self.array()?)
            ),
            DataType::Utf8 => read!(StringBuilder::new(), self.text()?),
            other => Err(format!("no contract has columns of {other}")),
        }
    }
}
