//! Records into columns, a chunk at a time, within bounds.
//!
//! In: the text of each record. Out: one batch in the declared schema. Promise: the first record that does not fit ends it, with
//! its number; it never holds more than the bounds and a chunk.

use arrow_array::{Array as _, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use garam_refine::{ContractRefiner, sample};
use garam_stage::Refiner as _;

use crate::error::DimensionError;

/// How much a dimension may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) rows: u64,
    /// Of its columns in memory.
    pub(crate) bytes: u64,
}

/// What a record is called by whoever looks for it: `line` 7, `row` 7.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) what: &'static str,
    /// The number of the first record.
    pub(crate) first: u64,
}

/// A chunk is refined when it has so many records, or bytes.
const CHUNK_RECORDS: usize = 8_192;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// No record is longer.
pub(crate) const MAX_RECORD: usize = 16 * 1024 * 1024;

pub(crate) struct Gatherer<'a> {
    place: &'a str,
    refiner: ContractRefiner,
    schema: SchemaRef,
    limits: Limits,
    counted: Counted,
    /// The chunk: all texts, and where each ends.
    text: String,
    ends: Vec<usize>,
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
}

impl<'a> Gatherer<'a> {
    pub(crate) fn new(
        place: &'a str,
        refiner: ContractRefiner,
        schema: SchemaRef,
        limits: Limits,
        counted: Counted,
    ) -> Self {
        Self {
            place,
            refiner,
            schema,
            limits,
            counted,
            text: String::new(),
            ends: Vec::new(),
            batches: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Takes the next record. Bytes that are no text do not fit.
    pub(crate) fn push_bytes(&mut self, record: &[u8]) -> Result<(), DimensionError> {
        match std::str::from_utf8(record) {
            Ok(text) => self.push(text),
            Err(error) => {
                let detail = format!("invalid UTF-8 at byte {}", error.valid_up_to());
                Err(self.refuse("syntax", detail))
            }
        }
    }

    pub(crate) fn push(&mut self, record: &str) -> Result<(), DimensionError> {
        if self.rows + self.ends.len() as u64 >= self.limits.rows {
            self.refine()?;
            let (place, limit) = (self.place.to_owned(), self.limits.rows);
            return Err(DimensionError::Rows { place, limit });
        }
        if record.len() > MAX_RECORD {
            return Err(self.refuse("too_long", format!("{} bytes", record.len())));
        }
        self.text.push_str(record);
        self.ends.push(self.text.len());
        if self.ends.len() >= CHUNK_RECORDS || self.text.len() >= CHUNK_BYTES {
            self.refine()?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<RecordBatch, DimensionError> {
        self.refine()?;
        concat_batches(&self.schema, &self.batches).map_err(|error| self.broken(&error.to_string()))
    }

    fn refine(&mut self) -> Result<(), DimensionError> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let records: Vec<&str> = starts
            .zip(&self.ends)
            .map(|(from, &to)| self.text.get(from..to).unwrap_or_default())
            .collect();
        let refined = self.refiner.refine(&[sample(&records, 0)]);
        let refined = refined.map_err(|failure| self.broken(&failure.to_string()))?;
        if let Some(bad) = refined.bad.into_iter().next() {
            return Err(self.unfit(u64::from(bad.at.index), bad.reason.name(), bad.detail));
        }
        let declared: Vec<usize> = (0..self.schema.fields().len()).collect();
        let batch = refined.rows.project(&declared).map_err(|e| self.broken(&e.to_string()))?;
        self.rows += batch.num_rows() as u64;
        self.bytes += size(&batch);
        if self.bytes > self.limits.bytes {
            let (place, limit) = (self.place.to_owned(), self.limits.bytes);
            return Err(DimensionError::Bytes { place, limit });
        }
        self.batches.push(batch);
        self.text.clear();
        self.ends.clear();
        Ok(())
    }

    /// Why the next record does not fit, unless one before it does not either.
    pub(crate) fn refuse(&mut self, reason: &'static str, detail: String) -> DimensionError {
        match self.refine() {
            Ok(()) => self.unfit(0, reason, detail),
            Err(earlier) => earlier,
        }
    }

    /// Of a record in the chunk.
    fn unfit(&self, index: u64, reason: &'static str, detail: String) -> DimensionError {
        DimensionError::Row {
            place: self.place.to_owned(),
            what: self.counted.what,
            number: self.counted.first + self.rows + index,
            reason,
            detail,
        }
    }

    fn broken(&self, why: &str) -> DimensionError {
        DimensionError::Internal { place: self.place.to_owned(), why: why.to_owned() }
    }
}

/// What a batch takes, without the room that its buffers have to spare.
pub(crate) fn size(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum()
}
