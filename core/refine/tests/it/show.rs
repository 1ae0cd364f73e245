//! Blocks made of literals, and batches as text.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Generation, LogOffset, OriginId, Record, SessionId,
};
use garam_refine::ContractRefiner;
use garam_stage::records::Provenance;
use garam_stage::{Contract, ContractConfig, Format, RawBlock, Refined, Refiner, UnknownColumns};

pub(crate) const ORIGIN: OriginId =
    OriginId { agent: AgentId([0xA1; 16]), generation: Generation([0xB2; 16]) };
pub(crate) const INGEST_US: i64 = 1_795_476_244_000_000;

/// A json contract; a column called `ts` is the event time.
pub(crate) fn contract(columns: &[(&str, &str)], unknown: UnknownColumns) -> Contract {
    let time = columns.iter().any(|(name, _)| *name == "ts").then(|| "ts".to_owned());
    let columns = columns.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    ContractConfig { time, unknown, ..ContractConfig::new(Format::Json, columns) }.check().unwrap()
}

/// A block of these records, each one byte longer apart than its text, as if newlines stood between.
pub(crate) fn block(offset: u64, records: &[&[u8]]) -> RawBlock {
    let mut position = 1_000 * u128::from(offset);
    let mut made = Vec::new();
    for (index, bytes) in records.iter().enumerate() {
        let bytes = Bytes::copy_from_slice(bytes);
        let next = position + bytes.len() as u128 + 1;
        made.push(Record { index: u32::try_from(index).unwrap(), position, bytes, partial: false });
        position = next;
    }
    RawBlock {
        offset: LogOffset(offset),
        provenance: Arc::new(Provenance {
            origin: ORIGIN,
            host: "web-1".into(),
            path: "/var/log/app.log".into(),
            source_epoch: 7,
        }),
        header: BlockHeader {
            origin: ORIGIN,
            session: SessionId(1),
            from: 1_000 * u128::from(offset),
            to: position,
            records: u32::try_from(records.len()).unwrap(),
            kind: BlockKind::Lines,
            flags: 0,
            codec: Codec::None,
            raw_len: 0,
            payload_len: 0,
            payload_crc: 0,
            ingest_time_us: INGEST_US,
            tail_hash: 0,
            resume: None,
        },
        records: made,
    }
}

pub(crate) fn refine(contract: Contract, blocks: &[RawBlock]) -> Refined {
    ContractRefiner::new(contract).unwrap().refine(blocks).unwrap()
}

/// One record: its contract columns (and `_rest`, `_event_time`) as text, or its reason and detail.
pub(crate) fn outcome(contract: &Contract, record: &[u8]) -> String {
    let refined = refine(contract.clone(), &[block(0, &[record])]);
    match (refined.bad.as_slice(), refined.sources.len()) {
        ([bad], 0) => format!("{}: {}", bad.reason.name(), bad.detail),
        ([], 0) => format!("dropped: {}", refined.dropped[0].1.name()),
        ([], 1) => {
            let shown = contract.columns.len() + usize::from(contract.keeps_rest());
            let mut cells: Vec<String> =
                (0..shown).map(|column| text(&refined.rows, column, 0)).collect();
            if contract.time.is_some() {
                let time = refined.rows.schema().index_of("_event_time").unwrap();
                cells.push(format!("event={}", text(&refined.rows, time, 0)));
            }
            cells.join(" | ")
        }
        other => panic!("one record is one row or one bad record, not {other:?}"),
    }
}

/// One value of a batch as text.
pub(crate) fn text(rows: &RecordBatch, column: usize, row: usize) -> String {
    let array = rows.column(column);
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).to_string()
        }
        DataType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary().value(row);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        other => panic!("no column has type {other}"),
    }
}
