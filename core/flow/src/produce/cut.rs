//! From rows to blocks: which partition a row goes to, and how many make a block.
//!
//! Promise: the same rows give the same records in the same partitions at the same positions; a row below its partition's
//! mark is there already and is left out; a record that no reader would take is refused by its row, and then nothing is cut.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_schema::{DataType, SchemaRef};
use garam_proto::{Codec, Compressor, RecordsBuilder};
use garam_stage::records::is_row_type;
use garam_stage::slots::{key_hashes, partition_of_key};
use garam_stage::{Failure, FailureKind, RecordRef, Refusal, system};

use super::json::Writer;
use super::places::position;
use crate::producer::Packed;

/// Raw bytes after which a block is cut.
const BLOCK_BYTES: usize = 1024 * 1024;
/// The longest record in bytes: what agents may send at most.
const MAX_RECORD: usize = 16 * 1024 * 1024;
/// Blocks are packed with this: the core's processors have more to do than to pack.
const CODEC: Codec = Codec::Lz4;

/// How far each partition's origin has come.
#[derive(Debug)]
pub(super) struct Marks(pub(super) Vec<u128>);

/// How rows of one schema become records.
#[derive(Debug)]
pub(super) struct Layout {
    /// Numbers of the columns that place a row.
    key: Vec<usize>,
    ordinal: Option<usize>,
    writer: Writer,
}

/// Blocks with the number of their partition, in order; or the rows that stand in the way.
type Cut = Result<Vec<(usize, Packed)>, Vec<Refusal>>;

impl Layout {
    pub(super) fn of(schema: &SchemaRef, key: &[String]) -> Result<Self, Failure> {
        let unfit = |text: String| Failure::new(FailureKind::Schema, text);
        let by_origin = [system::ORIGIN.to_owned()];
        let names = if key.is_empty() { &by_origin } else { key };
        let known = |name: &String| {
            let number = schema.index_of(name).ok();
            let number = number.ok_or_else(|| {
                unfit(format!("key column {name} is not among the rows' columns"))
            })?;
            let data_type = schema.field(number).data_type();
            if !is_row_type(data_type) {
                return Err(unfit(format!(
                    "key column {name} of type {data_type} cannot be a key"
                )));
            }
            Ok(number)
        };
        let key = names.iter().map(known).collect::<Result<_, _>>()?;
        let ordinal = schema.index_of(system::ORDINAL).ok();
        let ordinal =
            ordinal.filter(|&number| *schema.field(number).data_type() == DataType::Int32);
        Ok(Self { key, ordinal, writer: Writer::of(schema)? })
    }

    /// Rows come in the order of their records.
    pub(super) fn cut(
        &self,
        rows: &RecordBatch,
        sources: &[RecordRef],
        marks: &Marks,
    ) -> Result<Cut, Failure> {
        let hashes = key_hashes(rows, &self.key)
            .map_err(|error| Failure::new(FailureKind::Schema, error.to_string()))?;
        let partitions = u32::try_from(marks.0.len()).unwrap_or(u32::MAX);
        let texts = self.writer.texts(rows);
        let mut growing: BTreeMap<usize, Growing> = BTreeMap::new();
        let (mut blocks, mut refused) = (Vec::new(), Vec::new());
        for (row, (&at, hash)) in sources.iter().zip(hashes).enumerate() {
            let to = partition_of_key(hash, partitions) as usize;
            let position = position(at, self.ordinal_of(rows, row));
            let Some(&mark) = marks.0.get(to).filter(|mark| position >= **mark) else { continue };
            let text = texts.row(row);
            if text.len() > MAX_RECORD {
                let detail = format!(
                    "the record is {} bytes long, at most {MAX_RECORD} fit into a stream",
                    text.len()
                );
                refused.push(Refusal { row, detail });
                continue;
            }
            let growing = growing.entry(to).or_insert_with(|| Growing::from(mark));
            if let Some(full) = growing.add(position, text) {
                blocks.push((to, full.packed()?));
            }
        }
        if !refused.is_empty() {
            return Ok(Err(refused));
        }
        for (to, rest) in growing {
            blocks.push((to, rest.packed()?));
        }
        Ok(Ok(blocks))
    }

    fn ordinal_of(&self, rows: &RecordBatch, row: usize) -> u32 {
        let number = self.ordinal.map(|column| rows.column(column));
        let number = number.map_or(0, |column| column.as_primitive::<Int32Type>().value(row));
        u32::try_from(number).unwrap_or(0)
    }
}

/// The block of one partition that is being filled.
struct Growing {
    builder: RecordsBuilder,
    /// Behind the last record.
    to: u128,
}

impl Growing {
    fn from(mark: u128) -> Self {
        Self { builder: RecordsBuilder::new(mark), to: mark }
    }

    /// Adds a record; gives back the block before it when that is full.
    fn add(&mut self, position: u128, text: &[u8]) -> Option<Self> {
        let is_full = !self.builder.is_empty() && self.builder.len() + text.len() > BLOCK_BYTES;
        let full = is_full.then(|| std::mem::replace(self, Self::from(self.to)));
        self.builder.push(position, text);
        self.to = position + 1;
        full
    }

    fn packed(self) -> Result<Packed, Failure> {
        let (raw, records) = self.builder.finish();
        let mut payload = Vec::new();
        let packed = Compressor::new(CODEC, 0).and_then(|mut c| c.compress(&raw, &mut payload));
        let codec = packed.map_err(|error| {
            Failure::new(FailureKind::Internal, "cannot pack a block").because(error)
        })?;
        Ok(Packed { to: self.to, records, codec, raw_len: raw.len(), payload: payload.into() })
    }
}
