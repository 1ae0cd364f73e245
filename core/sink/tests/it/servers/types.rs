//! Every type of a contract: rows at the ends of its range and null, and what no server's calendar holds.

use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::SchemaRef;
use garam_sink::mysql::Mode::Append;
use garam_stage::{
    ContractConfig, Cursor, Format, Outcome, RecordRef, StagedBatch, UnknownColumns,
};

use super::Base;

at_every_server!(what_the_calendar_of_the_server_does_not_have_is_refused);

pub(crate) fn schema() -> SchemaRef {
    let columns = [
        ("b", "boolean"),
        ("s", "smallint"),
        ("i", "int"),
        ("l", "bigint"),
        ("r", "real"),
        ("d", "double"),
        ("n", "decimal(38,19)"),
        ("w", "decimal(9)"),
        ("t", "text"),
        ("v", "varchar(10)"),
        ("day", "date"),
        ("at", "timestamp"),
    ];
    let columns = columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec();
    let unknown = UnknownColumns::Drop;
    let config = ContractConfig { unknown, ..ContractConfig::new(Format::Json, columns) };
    config.check().unwrap().schema()
}

/// The columns of the contract, then the same system columns for all.
fn rows(columns: Vec<ArrayRef>) -> RecordBatch {
    let count = columns[0].len();
    let text = || Arc::new(StringArray::from(vec![""; count])) as ArrayRef;
    let bytes = |width: i32| {
        let mut builder = FixedSizeBinaryBuilder::new(width);
        for row in 0..count {
            let mut value = vec![0; usize::try_from(width).unwrap()];
            *value.last_mut().unwrap() = u8::try_from(row).unwrap();
            builder.append_value(value).unwrap();
        }
        Arc::new(builder.finish()) as ArrayRef
    };
    let at = |value: Option<i64>| {
        let array = TimestampMicrosecondArray::from(vec![value; count]).with_timezone("UTC");
        Arc::new(array) as ArrayRef
    };
    let ordinals = Arc::new(Int32Array::from(vec![0; count]));
    let mut all = columns;
    all.extend([text(), text(), bytes(32), bytes(16), ordinals, bytes(20), at(None), at(Some(0))]);
    RecordBatch::try_new(schema(), all).unwrap()
}

fn offered(from: &Cursor, rows: RecordBatch) -> StagedBatch {
    let count = u32::try_from(rows.num_rows()).unwrap();
    let sources = (0..count).map(|index| RecordRef { offset: from.next, index }).collect();
    let mut to = from.clone();
    to.next = from.next.next();
    to.counters.records_in += u64::from(count);
    to.counters.delivered += u64::from(count);
    StagedBatch { rows, sources, from: from.clone(), to }
}

/// What servers differ in: the ends of these types, as far as a server holds them, then null.
pub(crate) struct Ends {
    pub(crate) real: [f32; 3],
    pub(crate) double: [f64; 3],
    /// Days since 1970.
    pub(crate) date: [i32; 3],
    /// Microseconds since 1970.
    pub(crate) timestamp: [i64; 3],
}

const DECIMAL: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// Writes a row with the least value of each type, one with the greatest, one in between and one of nulls.
pub(crate) async fn write_ends(base: &impl Base, ends: Ends) {
    let (mut destination, start) = base.ready_for(&base.config(Append), schema()).await;
    let decimals = Decimal128Array::from(vec![Some(-DECIMAL), Some(DECIMAL), Some(1), None]);
    let whole = Decimal128Array::from(vec![Some(-999_999_999), Some(999_999_999), Some(0), None]);
    let instants = TimestampMicrosecondArray::from(and_null(ends.timestamp));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(false), Some(true), Some(true), None])),
        Arc::new(Int16Array::from(and_null([i16::MIN, i16::MAX, 0]))),
        Arc::new(Int32Array::from(and_null([i32::MIN, i32::MAX, 0]))),
        Arc::new(Int64Array::from(and_null([i64::MIN, i64::MAX, 0]))),
        Arc::new(Float32Array::from(and_null(ends.real))),
        Arc::new(Float64Array::from(and_null(ends.double))),
        Arc::new(decimals.with_precision_and_scale(38, 19).unwrap()),
        Arc::new(whole.with_precision_and_scale(9, 0).unwrap()),
        Arc::new(StringArray::from(and_null(["", "\t\\N {\"가\"}", "NULL"]))),
        Arc::new(StringArray::from(and_null(["ten letter", "가람", " "]))),
        Arc::new(Date32Array::from(and_null(ends.date))),
        Arc::new(instants.with_timezone("UTC")),
    ];
    let outcome = destination.write(&offered(&start, rows(columns))).await.unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
}

fn and_null<T>(values: [T; 3]) -> Vec<Option<T>> {
    values.into_iter().map(Some).chain([None]).collect()
}

async fn what_the_calendar_of_the_server_does_not_have_is_refused<B: Base>(base: B) {
    let (mut destination, start) = base.ready_for(&base.config(Append), schema()).await;
    let nothing = |kind| arrow_array::new_null_array(kind, 3);
    let mut columns: Vec<ArrayRef> =
        schema().fields().iter().take(12).map(|field| nothing(field.data_type())).collect();
    columns[10] = Arc::new(Date32Array::from(vec![Some(i32::MAX), None, Some(0)]));
    let instants = TimestampMicrosecondArray::from(vec![Some(i64::MIN), Some(i64::MIN), None]);
    columns[11] = Arc::new(instants.with_timezone("UTC"));
    let outcome = destination.write(&offered(&start, rows(columns))).await.unwrap();
    let Outcome::Refused { rows } = outcome else { panic!("{outcome:?}") };
    let found: Vec<_> = rows.iter().map(|refusal| (refusal.row, refusal.detail.as_str())).collect();
    assert_eq!(found, [(0, B::NO_SUCH_DATE), (1, B::NO_SUCH_TIMESTAMP)]);
}
