//! Rows as JSON objects, for `tap` and `test`: what a person or a program sees of an Arrow batch.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Value, json};

/// Row `row` as an object in the order of the columns. Decimals are texts, so that no digit is lost; bytes are hexadecimal.
pub(crate) fn row_as_json(rows: &RecordBatch, row: usize) -> Value {
    let members = rows
        .schema_ref()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| (field.name().clone(), cell(column, row)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn cell(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int16 => json!(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => json!(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, _) => {
            json!(column.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Date32 => {
            let days = i64::from(column.as_primitive::<Date32Type>().value(row));
            timestamp(days.saturating_mul(86_400_000_000))
                .map_or(Value::Null, |text| json!(text[..10]))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            json!(timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            let bytes = column.as_fixed_size_binary().value(row);
            json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        other => json!(format!("<{other}>")),
    }
}

fn timestamp(us: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(us).ok().map(|at| format!("{at:.6}"))
}
