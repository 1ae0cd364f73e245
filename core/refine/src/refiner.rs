//! The refiner: blocks in, one batch of rows and the records that broke the contract out.
//!
//! A record's cells are all parsed before the first is appended, so a bad record leaves nothing behind. Buffers are
//! reused from record to record; the usual record allocates nothing.
//!
//! Format `line`: the record is the text, without the `\r` of a CRLF ending. Format `json`: the record is one object.
//! Either way a piece of a record that was cut at `max_record` is put aside as `too_long`.

use std::borrow::Cow;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use garam_proto::Record;
use garam_stage::{
    BadRecord, Contract, Failure, FailureKind, Format, QuarantineReason, RawBlock, RecordRef,
    Refined, Refiner,
};

use crate::columns::{Columns, SystemValues};
use crate::members::{Members, Names};
use crate::reject::Reject;
use crate::value::{Cell, cell};

/// Version of how bytes become values: part of every plan. Raised whenever the same record would give another row.
pub const SEMANTICS: u32 = 1;

/// Refines by a contract alone, without SQL.
#[derive(Debug)]
pub struct ContractRefiner {
    contract: Contract,
    names: Names,
    /// Which column is the event time.
    time: Option<usize>,
    schema: SchemaRef,
}

impl ContractRefiner {
    pub fn new(contract: Contract) -> Self {
        let is_time = |name: &String| contract.time.as_ref() == Some(name);
        let time = contract.columns.iter().position(|column| is_time(&column.name));
        let schema = contract.schema();
        Self { names: Names::of(&contract), time, schema, contract }
    }

    /// Parses a record into `row`, which is empty before.
    fn parse<'a>(&self, record: &'a Record, row: &mut Row<'a>) -> Result<(), Reject> {
        if record.partial {
            let detail = format!(
                "piece of {} bytes of a record that was cut at max_record",
                record.bytes.len()
            );
            return Err(Reject::new(QuarantineReason::TooLong, detail));
        }
        let text = std::str::from_utf8(&record.bytes).map_err(|error| {
            let detail = format!("invalid UTF-8 at byte {}", error.valid_up_to());
            Reject::new(QuarantineReason::Syntax, detail)
        })?;
        match self.contract.format {
            Format::Line => parse_line(text, row),
            Format::Json => self.parse_json(text, row),
        }
    }

    fn parse_json<'a>(&self, text: &'a str, row: &mut Row<'a>) -> Result<(), Reject> {
        row.members.split(&self.names, text)?;
        for (i, column) in self.contract.columns.iter().enumerate() {
            let is_time = self.time == Some(i);
            let cell = cell(column, is_time, row.members.value(i))?;
            if let (true, Cell::Timestamp(micros)) = (is_time, &cell) {
                row.event_time = Some(*micros);
            }
            row.cells.push(cell);
        }
        row.rest = row.members.rest();
        Ok(())
    }
}

/// One record's parsed values. Reused.
#[derive(Default)]
struct Row<'a> {
    members: Members<'a>,
    cells: Vec<Cell<'a>>,
    rest: Option<String>,
    event_time: Option<i64>,
}

impl Row<'_> {
    fn clear(&mut self) {
        self.cells.clear();
        self.rest = None;
        self.event_time = None;
    }
}

fn parse_line<'a>(text: &'a str, row: &mut Row<'a>) -> Result<(), Reject> {
    let line = text.strip_suffix('\r').unwrap_or(text);
    // Most databases take no NUL in text, so none is delivered to any.
    if line.as_bytes().contains(&0) {
        return Err(Reject::new(QuarantineReason::Syntax, "NUL byte"));
    }
    row.cells.push(Cell::Text(Cow::Borrowed(line)));
    Ok(())
}

impl Refiner for ContractRefiner {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn refine(&self, blocks: &[RawBlock]) -> Result<Refined, Failure> {
        check_size(blocks)?;
        let records = blocks.iter().map(|block| block.records.len()).sum();
        let mut columns = Columns::new(&self.contract, records);
        let mut sources = Vec::with_capacity(records);
        let mut bad = Vec::new();
        let mut row = Row::default();
        for block in blocks {
            for record in &block.records {
                let at = RecordRef { offset: block.offset, index: record.index };
                row.clear();
                if let Err(Reject { reason, detail }) = self.parse(record, &mut row) {
                    bad.push(BadRecord { at, reason, detail });
                    continue;
                }
                let system = SystemValues {
                    provenance: &block.provenance,
                    position: record.position,
                    event_time: row.event_time,
                    ingest_time: block.header.ingest_time_us,
                };
                let rest = row.rest.take().map(Cow::Owned);
                columns.append(&mut row.cells, rest, system).map_err(broken)?;
                sources.push(at);
            }
        }
        debug_assert_eq!(columns.rows(), sources.len(), "one source per row");
        let rows = RecordBatch::try_new(self.schema.clone(), columns.finish()).map_err(broken)?;
        Ok(Refined { rows, sources, bad, dropped: Vec::new() })
    }
}

/// Arrow addresses the text of a column with 31 bits. A batch is far smaller; a caller that offers more is broken.
fn check_size(blocks: &[RawBlock]) -> Result<(), Failure> {
    const LIMIT: usize = i32::MAX as usize;
    let bytes: usize = blocks
        .iter()
        .map(|block| {
            let provenance = block.provenance.host.len().max(block.provenance.path.len());
            let text: usize = block.records.iter().map(|record| record.bytes.len()).sum();
            text.max(provenance * block.records.len())
        })
        .sum();
    if bytes > LIMIT {
        let what = format!("cannot refine {bytes} bytes at once: a batch has at most {LIMIT}");
        return Err(Failure::new(FailureKind::Internal, what));
    }
    Ok(())
}

fn broken(error: arrow_schema::ArrowError) -> Failure {
    Failure::new(FailureKind::Internal, "cannot build a batch of rows").because(error)
}
