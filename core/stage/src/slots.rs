//! Where a row belongs by its key: a hash that is the same for ever, on every machine and for every width of a type.
//!
//! ```text
//! hash      = XXH3-64, seed 0, of "garam.key.1\0" and each key column's canonical bytes, one behind the other
//! slot      = the highest 10 bits: 1 024 slots
//! partition = hash × partitions ÷ 2^64, so that equal shares of the slots lie in each partition
//!
//! value             canonical bytes
//! null              00
//! boolean           01 | 00 or 01
//! smallint … bigint 02 | 64 bits, two's complement, big-endian
//! decimal           03 | 128 bits without trailing zeros | scale, 8 bits, signed          1.50 and 1.5 are one key
//! real, double      04 | IEEE 754 double, big-endian; -0 as 0, every NaN as one
//! text              05 | length in bytes, 32 bits | UTF-8
//! date              06 | days since 1970-01-01, 64 bits
//! timestamp         07 | microseconds since 1970-01-01 UTC, 64 bits
//! bytes             08 | length, 32 bits | bytes
//! ```
//!
//! Promise: [`HASH_VERSION`] names this definition; rows that were placed by it are found by it. It is part of every plan that
//! places rows.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use xxhash_rust::xxh3::xxh3_64;

/// Version of the definition above.
pub const HASH_VERSION: u32 = 1;

const TAG: &[u8] = b"garam.key.1\0";

/// A column of a type that cannot be a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("column {column} of type {found} cannot be part of a key")]
pub struct NoKey {
    pub column: String,
    pub found: String,
}

/// The hash of each row's key; `key` are numbers of columns.
pub fn key_hashes(rows: &RecordBatch, key: &[usize]) -> Result<Vec<u64>, NoKey> {
    let mut bytes = Vec::new();
    let mut hashes = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        bytes.clear();
        bytes.extend_from_slice(TAG);
        for &column in key {
            let value = rows.column(column);
            canonical(value, row, &mut bytes).ok_or_else(|| NoKey {
                column: rows.schema_ref().field(column).name().clone(),
                found: value.data_type().to_string(),
            })?;
        }
        hashes.push(xxh3_64(&bytes));
    }
    Ok(hashes)
}

/// The slot of a hash.
pub fn slot_of(hash: u64) -> u16 {
    (hash >> 54) as u16
}

/// The partition of a hash among so many.
pub fn partition_of_key(hash: u64, partitions: u32) -> u32 {
    ((u128::from(hash) * u128::from(partitions)) >> 64) as u32
}

/// `None`: the type cannot be part of a key.
fn canonical(column: &dyn Array, row: usize, out: &mut Vec<u8>) -> Option<()> {
    if column.is_null(row) {
        out.push(0);
        return Some(());
    }
    let mut fixed = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(bytes);
    };
    let whole = |number: i64| number.to_be_bytes();
    match column.data_type() {
        DataType::Boolean => fixed(1, &[u8::from(column.as_boolean().value(row))]),
        DataType::Int16 => {
            fixed(2, &whole(i64::from(column.as_primitive::<Int16Type>().value(row))))
        }
        DataType::Int32 => {
            fixed(2, &whole(i64::from(column.as_primitive::<Int32Type>().value(row))))
        }
        DataType::Int64 => fixed(2, &whole(column.as_primitive::<Int64Type>().value(row))),
        DataType::Decimal128(_, scale) => {
            let (digits, scale) =
                shortest(column.as_primitive::<Decimal128Type>().value(row), *scale);
            fixed(3, &digits.to_be_bytes());
            out.push(scale.cast_unsigned());
        }
        DataType::Float32 => {
            fixed(4, &double(f64::from(column.as_primitive::<Float32Type>().value(row))))
        }
        DataType::Float64 => fixed(4, &double(column.as_primitive::<Float64Type>().value(row))),
        DataType::Utf8 => sized(5, column.as_string::<i32>().value(row).as_bytes(), out),
        DataType::Date32 => {
            fixed(6, &whole(i64::from(column.as_primitive::<Date32Type>().value(row))))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            fixed(7, &whole(column.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            sized(8, column.as_fixed_size_binary().value(row), out);
        }
        _ => return None,
    }
    Some(())
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Without the zeros at its end.
fn shortest(mut digits: i128, mut scale: i8) -> (i128, i8) {
    if digits == 0 {
        return (0, 0);
    }
    while digits % 10 == 0 {
        digits /= 10;
        scale = scale.saturating_sub(1);
    }
    (digits, scale)
}

fn double(value: f64) -> [u8; 8] {
    let value = if value.is_nan() {
        f64::from_bits(0x7ff8_0000_0000_0000)
    } else if value == 0.0 {
        0.0
    } else {
        value
    };
    value.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, Decimal128Array, Float64Array, Int16Array, Int64Array, StringArray,
    };

    use super::*;

    fn hashes(columns: &[(&str, ArrayRef)]) -> Vec<u64> {
        let rows = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
        let key: Vec<usize> = (0..columns.len()).collect();
        key_hashes(&rows, &key).unwrap()
    }

    #[test]
    fn the_definition_does_not_change() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("garam"), Some(""), None]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![7, -1, 0]));
        let found: Vec<String> = hashes(&[("a", text), ("b", number)])
            .into_iter()
            .map(|hash| format!("{hash:016x} {} {}", slot_of(hash), partition_of_key(hash, 3)))
            .collect();
        expect_test::expect![[r#"
            d1e6b1f4e4133aba 839 2
            5e7feaedb9300cfe 377 1
            79d7c42c33613927 487 1"#]]
        .assert_eq(&found.join("\n"));
    }

    #[test]
    fn equal_values_are_one_key_whatever_their_width() {
        let small: ArrayRef = Arc::new(Int16Array::from(vec![5]));
        let large: ArrayRef = Arc::new(Int64Array::from(vec![5]));
        assert_eq!(hashes(&[("a", small)]), hashes(&[("a", large)]));
        let decimal = |digits: i128, scale| -> ArrayRef {
            let array = Decimal128Array::from(vec![digits]);
            Arc::new(array.with_precision_and_scale(20, scale).unwrap())
        };
        assert_eq!(hashes(&[("a", decimal(15, 1))]), hashes(&[("a", decimal(1500, 3))]));
        assert_ne!(hashes(&[("a", decimal(15, 1))]), hashes(&[("a", decimal(15, 2))]));
        let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0]));
        let found = hashes(&[("a", zeros)]);
        assert_eq!(found.first(), found.last());
    }

    #[test]
    fn where_one_value_ends_and_the_next_begins_counts() {
        let two = |a: &str, b: &str| -> Vec<u64> {
            let column = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
            hashes(&[("a", column(a)), ("b", column(b))])
        };
        assert_ne!(two("ab", "c"), two("a", "bc"));
    }

    #[test]
    fn keys_spread_over_slots_and_partitions() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let mut slots = vec![0_u32; 1024];
        let mut partitions = vec![0_u32; 7];
        for hash in hashes(&[("a", numbers)]) {
            slots[usize::from(slot_of(hash))] += 1;
            partitions[partition_of_key(hash, 7) as usize] += 1;
        }
        assert!(slots.iter().all(|&count| (40..=180).contains(&count)), "{slots:?}");
        assert!(
            partitions.iter().all(|&count| (13_500..=15_100).contains(&count)),
            "{partitions:?}"
        );
    }
}
