//! Every type of a contract goes into the table and comes back as it was, at the ends of its range and as null.

use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::SchemaRef;
use expect_test::expect;
use garam_sink::mysql::Mode::Append;
use garam_stage::{
    ContractConfig, Cursor, Format, Outcome, RecordRef, StagedBatch, UnknownColumns,
};

use super::server::Base;
use crate::fixture::first_cursor;

fn schema() -> SchemaRef {
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

const DECIMAL: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

#[tokio::test]
async fn every_type_comes_back_at_the_ends_of_its_range() {
    for base in Base::each().await {
        let mut destination = base.config(Append).build(&schema()).unwrap();
        destination.prepare().await.unwrap();
        let start = first_cursor();
        destination.begin(&start).await.unwrap();

        let decimals = Decimal128Array::from(vec![Some(-DECIMAL), Some(DECIMAL), Some(1), None]);
        let whole =
            Decimal128Array::from(vec![Some(-999_999_999), Some(999_999_999), Some(0), None]);
        let instants =
            vec![Some(-30_610_224_000_000_000), Some(253_402_300_799_999_999), Some(-1), None];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(false), Some(true), Some(true), None])),
            Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), Some(0), None])),
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), Some(0), None])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), Some(0), None])),
            Arc::new(Float32Array::from(vec![Some(f32::MIN), Some(f32::MAX), Some(0.1), None])),
            Arc::new(Float64Array::from(vec![Some(f64::MIN), Some(f64::MAX), Some(0.25), None])),
            Arc::new(decimals.with_precision_and_scale(38, 19).unwrap()),
            Arc::new(whole.with_precision_and_scale(9, 0).unwrap()),
            Arc::new(StringArray::from(vec![Some(""), Some("\t\\N {\"가\"}"), Some("NULL"), None])),
            Arc::new(StringArray::from(vec![Some("ten letter"), Some("가람"), Some(" "), None])),
            Arc::new(Date32Array::from(vec![Some(-354_285), Some(2_932_896), Some(-1), None])),
            Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC")),
        ];
        let outcome = destination.write(&offered(&start, rows(columns))).await.unwrap();
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
        let contract = "select b, s, i, l, r = -3.4028234663852886e38 or r = 3.4028234663852886e38 or r = cast(0.1 as float), d, n, w, t, v, day, at from orders order by _position";
        expect![[r#"
            0 | -32768 | -2147483648 | -9223372036854775808 | 1 | -1.7976931348623157e308 | -9999999999999999999.9999999999999999999 | -999999999 |  | ten letter | 1000-01-01 | 1000-01-01 00:00:00.000000
            1 | 32767 | 2147483647 | 9223372036854775807 | 1 | 1.7976931348623157e308 | 9999999999999999999.9999999999999999999 | 999999999 | 	\N {"가"} | 가람 | 9999-12-31 | 9999-12-31 23:59:59.999999
            1 | 0 | 0 | 0 | 1 | 0.25 | 0.0000000000000000001 | 0 | NULL |   | 1969-12-31 | 1969-12-31 23:59:59.999999
            NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL"#]]
        .assert_eq(&base.lines(contract).await);
    }
}

#[tokio::test]
async fn the_table_is_made_from_the_contract() {
    for base in Base::each().await {
        base.config(Append).build(&schema()).unwrap().prepare().await.unwrap();
        expect![[r#"
            b | tinyint(1) | YES
            s | smallint | YES
            i | int | YES
            l | bigint | YES
            r | float | YES
            d | double | YES
            n | decimal(38,19) | YES
            w | decimal(9,0) | YES
            t | longtext | YES
            v | longtext | YES
            day | date | YES
            at | datetime(6) | YES
            _host | longtext | NO
            _path | longtext | NO
            _origin | binary(32) | NO
            _position | decimal(39,0) | NO
            _ordinal | int | NO
            _version | binary(20) | NO
            _event_time | datetime(6) | YES
            _ingest_time | datetime(6) | NO"#]]
        .assert_eq(
            &base
                .lines(
                    "select column_name, if(data_type in ('smallint', 'int', 'bigint'), data_type, column_type), is_nullable from information_schema.columns \
                     where table_schema = database() and table_name = 'orders' order by ordinal_position",
                )
                .await,
        );
    }
}

#[tokio::test]
async fn what_the_calendar_of_the_server_does_not_have_is_refused() {
    for base in Base::each().await {
        let mut destination = base.config(Append).build(&schema()).unwrap();
        destination.prepare().await.unwrap();
        let start = first_cursor();
        destination.begin(&start).await.unwrap();
        let nothing = |kind| arrow_array::new_null_array(kind, 3);
        let mut columns: Vec<ArrayRef> =
            schema().fields().iter().take(12).map(|field| nothing(field.data_type())).collect();
        columns[10] = Arc::new(Date32Array::from(vec![Some(i32::MAX), None, Some(0)]));
        let instants = TimestampMicrosecondArray::from(vec![Some(i64::MIN), Some(i64::MIN), None]);
        columns[11] = Arc::new(instants.with_timezone("UTC"));
        let outcome = destination.write(&offered(&start, rows(columns))).await.unwrap();
        let Outcome::Refused { rows } = outcome else { panic!("{outcome:?}") };
        let found: Vec<_> =
            rows.iter().map(|refusal| (refusal.row, refusal.detail.as_str())).collect();
        assert_eq!(
            found,
            [
                (0, "column day: it is outside the years 1000 to 9999"),
                (1, "column at: it is outside the years 1000 to 9999")
            ]
        );
    }
}
