//! The refiner: blocks in, one batch of rows and the records that broke the contract out.
//!
//! A record's cells are all parsed before the first is appended, so a bad record leaves nothing behind. Buffers are
//! reused from record to record; the usual record allocates nothing.
//!
//! Format `line`: the record is the text, without the `\r` of a CRLF ending. Format `json`: the record is one object. Other
//! formats have named fields of text ([`crate::fields`]). Format `changes`: the record is an event ([`crate::changes`]) with a row
//! before and a row after; an update that changes the key is two rows, the delete of the old key and the insert of the new one.
//! Whatever the format, a piece of a record that was cut at `max_record` is put aside as `too_long`.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use garam_proto::Record;
use garam_stage::{
    BadRecord, Column, Contract, Failure, FailureKind, Format, Op, QuarantineReason, RawBlock,
    RecordRef, Refined, Refiner,
};

use crate::changes::{self, Change, Told, is_said, shape};
use crate::clock::{Clock, Time};
use crate::columns::{Columns, SystemValues};
use crate::error::Unusable;
use crate::fields::{Fields, Line, Splitter};
use crate::members::Members;
use crate::names::Names;
use crate::reject::Reject;
use crate::rules::{Judged, Rule};
use crate::text;
use crate::value::{Cell, cell};

/// Version of how bytes become values: part of every plan. Raised whenever the same record would give another row.
pub const SEMANTICS: u32 = 2;

/// Refines by a contract alone, without SQL.
#[derive(Debug)]
pub struct ContractRefiner {
    contract: Contract,
    names: Names,
    clock: Clock,
    /// For formats with fields of text.
    splitter: Option<Splitter>,
    /// Which column is the event time.
    time: Option<usize>,
    /// The columns of the key.
    key: Vec<usize>,
    /// By column.
    rules: Vec<Option<Rule>>,
    /// Values that something else stands in for, since the start of this process.
    replaced: AtomicU64,
    schema: SchemaRef,
}

impl ContractRefiner {
    /// Refuses a pattern or a time format that cannot be used, with the reason.
    pub fn new(contract: Contract) -> Result<Self, Unusable> {
        let is_time = |name: &String| contract.time.as_ref() == Some(name);
        let time = contract.columns.iter().position(|column| is_time(&column.name));
        let is_key = |(_, column): &(usize, &Column)| contract.key.contains(&column.name);
        let key = contract.columns.iter().enumerate().filter(is_key).map(|(i, _)| i).collect();
        let clock = Clock::of(&contract)?;
        let names = Names::of(&contract);
        let splitter = Splitter::of(&contract, &names)?;
        let rules = contract.columns.iter().map(|column| Rule::of(&contract, column, &clock));
        let rules = rules.collect::<Result<_, _>>()?;
        let (schema, replaced) = (contract.schema(), AtomicU64::new(0));
        Ok(Self { names, clock, splitter, time, key, rules, replaced, schema, contract })
    }

    /// Parses a record into `row`, which is empty before.
    fn parse<'a>(
        &'a self,
        record: &'a Record,
        ingest_us: i64,
        row: &mut Row<'a>,
    ) -> Result<Line, Reject> {
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
        match &self.splitter {
            Some(splitter) => self.parse_fields(splitter, text, ingest_us, row),
            None => match self.contract.format {
                Format::Json => self.parse_json(text, ingest_us, row),
                Format::Changes => self.parse_change(text, ingest_us, row),
                _ => parse_line(text, row),
            },
        }
    }

    fn parse_json<'a>(
        &'a self,
        text: &'a str,
        ingest_us: i64,
        row: &mut Row<'a>,
    ) -> Result<Line, Reject> {
        row.members.split(&self.names, text)?;
        self.take_members(ingest_us, row)?;
        Ok(Line::Record)
    }

    /// The members as a row.
    fn take_members<'a>(&'a self, ingest_us: i64, row: &mut Row<'a>) -> Result<(), Reject> {
        for (i, column) in self.contract.columns.iter().enumerate() {
            let time = self.time_of(i, ingest_us);
            let cell = match self.member(i, column, row.members.value(i), time)? {
                Judged::As(cell) => cell,
                Judged::Instead(cell) => {
                    row.members.keep(&self.names, i);
                    row.replaced += 1;
                    cell
                }
            };
            row.push(time, cell);
        }
        row.rest = row.members.rest();
        Ok(())
    }

    /// One member by its column's type and rules.
    fn member<'a>(
        &'a self,
        i: usize,
        column: &Column,
        raw: Option<&'a str>,
        time: Time<'_>,
    ) -> Result<Judged<'a>, Reject> {
        let Some(Some(rule)) = self.rules.get(i) else {
            return cell(column, raw, time).map(Judged::As);
        };
        let is_absent = raw.is_none_or(|raw| raw == "null");
        match rule.stands_in(is_absent, time) {
            Some(cell) => Ok(Judged::As(cell)),
            None => rule.judge(column, cell(column, raw, time), time),
        }
    }

    fn parse_change<'a>(
        &'a self,
        text: &'a str,
        ingest_us: i64,
        row: &mut Row<'a>,
    ) -> Result<Line, Reject> {
        let Change { op, before, after, time_us } = match changes::read(&self.contract, text)? {
            Told::Change(change) => change,
            Told::Nothing(reason) => return Ok(Line::Dropped(reason)),
        };
        row.op = Some(op);
        match op {
            Op::Truncate => row.cells.resize(self.contract.columns.len(), Cell::Null),
            Op::Delete => {
                let before = before.ok_or_else(|| shape("a delete without the row before"))?;
                row.members.split(&self.names, before)?;
                row.cells = self.row_before(&row.members, &[], ingest_us)?;
                row.rest = row.members.rest();
                row.event_time = time_us;
                return Ok(Line::Record);
            }
            Op::Insert | Op::Update => {
                let after =
                    after.ok_or_else(|| shape("a row that is there without the row after"))?;
                row.members.split(&self.names, after)?;
                if op == Op::Update {
                    self.check_whole(&row.members)?;
                }
                self.take_members(ingest_us, row)?;
            }
        }
        if let (Op::Update, Some(before)) = (op, before) {
            row.before.split(&self.names, before)?;
            let gone = self.row_before(&row.before, &row.cells, ingest_us)?;
            if self.key.iter().any(|&i| gone.get(i) != row.cells.get(i)) {
                row.gone = gone;
                row.op = Some(Op::Insert);
            }
        }
        if self.time.is_none() {
            row.event_time = time_us;
        }
        Ok(Line::Record)
    }

    /// A column that an update does not say would become null. Where it keeps its value, only the table knows which.
    fn check_whole(&self, members: &Members<'_>) -> Result<(), Reject> {
        let constant = |i: usize| {
            self.rules.get(i).and_then(Option::as_ref).is_some_and(|rule| rule.constant.is_some())
        };
        let absent = |&i: &usize| !is_said(members.value(i)) && !constant(i);
        let Some(column) = (0..self.contract.columns.len()).find(absent) else { return Ok(()) };
        let name = self.contract.columns.get(column).map_or("", |column| column.name.as_str());
        Err(shape(format!(
            "the update does not say column {name}: have the source send whole rows (binlog_row_image=FULL, \
             REPLICA IDENTITY FULL), or take the column out of the contract"
        )))
    }

    /// The cells of a row that is gone: its key by the contract, of the rest what is known. `after` is the row that took its
    /// place, whose key it has where nothing else is said.
    fn row_before<'a>(
        &'a self,
        members: &Members<'a>,
        after: &[Cell<'a>],
        ingest_us: i64,
    ) -> Result<Vec<Cell<'a>>, Reject> {
        let mut cells = Vec::with_capacity(self.contract.columns.len());
        for (i, column) in self.contract.columns.iter().enumerate() {
            let time = self.time_of(i, ingest_us);
            let raw = members.value(i).filter(|raw| is_said(Some(raw)));
            let is_key = self.key.contains(&i);
            let cell = match (is_key, raw, after.get(i)) {
                (true, None | Some("null"), Some(same)) => same.clone(),
                (true, raw, _) => match self.member(i, column, raw, time)? {
                    Judged::As(cell) | Judged::Instead(cell) => cell,
                },
                (false, None | Some("null"), _) => Cell::Null,
                // A row goes whatever the contract thinks of what it was.
                (false, raw, _) => cell(column, raw, time).unwrap_or(Cell::Null),
            };
            cells.push(cell);
        }
        Ok(cells)
    }

    fn parse_fields<'a>(
        &'a self,
        splitter: &Splitter,
        text: &'a str,
        ingest_us: i64,
        row: &mut Row<'a>,
    ) -> Result<Line, Reject> {
        let text = plain(text)?;
        if let Line::Dropped(reason) = splitter.split(&self.names, text, &mut row.fields)? {
            return Ok(Line::Dropped(reason));
        }
        for (i, column) in self.contract.columns.iter().enumerate() {
            let time = self.time_of(i, ingest_us);
            let text = row.fields.take(i);
            let Some(Some(rule)) = self.rules.get(i) else {
                row.push(time, text::cell(column, text, time)?);
                continue;
            };
            let judged = match rule.stands_in(text::is_absent(column, text.as_deref()), time) {
                Some(cell) => Judged::As(cell),
                None => rule.judge(column, text::cell(column, text.clone(), time), time)?,
            };
            let cell = match judged {
                Judged::As(cell) => cell,
                Judged::Instead(cell) => {
                    row.fields.keep(&self.names, i, text);
                    row.replaced += 1;
                    cell
                }
            };
            row.push(time, cell);
        }
        row.rest = row.fields.rest();
        Ok(Line::Record)
    }

    fn time_of(&self, column: usize, ingest_us: i64) -> Time<'_> {
        Time { clock: &self.clock, is_event: self.time == Some(column), ingest_us }
    }
}

/// One record's parsed values. Reused.
#[derive(Default)]
struct Row<'a> {
    members: Members<'a>,
    /// Of the row that an update replaced.
    before: Members<'a>,
    fields: Fields<'a>,
    cells: Vec<Cell<'a>>,
    /// The row of another key that this one takes the place of; empty: none.
    gone: Vec<Cell<'a>>,
    op: Option<Op>,
    rest: Option<String>,
    event_time: Option<i64>,
    /// Values of this record that something else stands in for.
    replaced: u64,
}

impl<'a> Row<'a> {
    fn push(&mut self, time: Time<'_>, cell: Cell<'a>) {
        if let (true, Cell::Timestamp(micros)) = (time.is_event, &cell) {
            self.event_time = Some(*micros);
        }
        self.cells.push(cell);
    }

    fn clear(&mut self) {
        self.cells.clear();
        self.gone.clear();
        self.op = None;
        self.rest = None;
        self.event_time = None;
        self.replaced = 0;
    }
}

fn parse_line<'a>(text: &'a str, row: &mut Row<'a>) -> Result<Line, Reject> {
    row.cells.push(Cell::Text(Cow::Borrowed(plain(text)?)));
    Ok(Line::Record)
}

/// A line without the `\r` of a CRLF ending.
fn plain(text: &str) -> Result<&str, Reject> {
    // Most databases take no NUL in text, so none is delivered to any.
    if text.as_bytes().contains(&0) {
        return Err(Reject::new(QuarantineReason::Syntax, "NUL byte"));
    }
    Ok(text.strip_suffix('\r').unwrap_or(text))
}

impl Refiner for ContractRefiner {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    fn refine(&self, blocks: &[RawBlock]) -> Result<Refined, Failure> {
        check_size(blocks)?;
        let records = blocks.iter().map(|block| block.records.len()).sum();
        let mut columns = Columns::new(&self.contract, records);
        let mut sources = Vec::with_capacity(records);
        let (mut bad, mut dropped) = (Vec::new(), Vec::new());
        let (mut row, mut replaced) = (Row::default(), 0);
        for block in blocks {
            for record in &block.records {
                let at = RecordRef { offset: block.offset, index: record.index };
                row.clear();
                match self.parse(record, block.header.ingest_time_us, &mut row) {
                    Ok(Line::Record) => {}
                    Ok(Line::Dropped(reason)) => {
                        dropped.push((at, reason));
                        continue;
                    }
                    Err(Reject { reason, detail }) => {
                        bad.push(BadRecord { at, reason, detail });
                        continue;
                    }
                }
                let system = SystemValues {
                    provenance: &block.provenance,
                    position: record.position,
                    event_time: row.event_time,
                    ingest_time: block.header.ingest_time_us,
                    ordinal: 0,
                    op: row.op,
                };
                let ordinal = i32::from(!row.gone.is_empty());
                if ordinal > 0 {
                    let gone = SystemValues { op: Some(Op::Delete), ..system };
                    columns.append(&mut row.gone, None, gone);
                    sources.push(at);
                }
                let system = SystemValues { ordinal, ..system };
                let rest = row.rest.take().map(Cow::Owned);
                columns.append(&mut row.cells, rest, system);
                sources.push(at);
                replaced += row.replaced;
            }
        }
        self.replaced.fetch_add(replaced, Ordering::Relaxed);
        debug_assert_eq!(columns.rows(), sources.len(), "one source per row");
        let columns = columns.finish().map_err(broken)?;
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(broken)?;
        Ok(Refined { rows, sources, bad, dropped })
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
