//! The refiner: the contract's rows through the SQL, and what fails put aside.
//!
//! A batch that fails is halved until the records are found that fail alone. So the result is that of one record at a time,
//! at the price of a batch in the usual case.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::{FilterBuilder, filter_record_batch};
use garam_stage::{
    BadRecord, Dimension, DropReason, Failure, FailureKind, Missing, QuarantineReason, RawBlock,
    RecordRef, Refined, Refiner, system,
};

use crate::dimension::{Dimensions, Joined, Lookup};
use crate::error::{self, Unplannable};
use crate::steps::{self, Cause, Fault, Steps};
use crate::{logical, output};

/// Version of what SQL means here: part of every plan that has some. Raised whenever the same SQL would give other rows.
pub const SEMANTICS: &str = "1, datafusion 53.1";

/// Longest text of an error that a quarantined record keeps.
const DETAIL: usize = 300;

/// Refines by a contract, then by SQL over its rows.
pub struct SqlRefiner {
    contract: Arc<dyn Refiner>,
    steps: Steps,
    joined: Joined,
    /// The system's columns of the contract's rows.
    system: Vec<usize>,
    keeps_every_row: bool,
    schema: SchemaRef,
}

impl SqlRefiner {
    /// Plans `sql` over the rows of `contract`, or says why that cannot be.
    pub fn new(contract: Arc<dyn Refiner>, sql: &str) -> Result<Self, Unplannable> {
        Self::joining(contract, sql, &Dimensions::default())
    }

    /// The same, where the SQL may join these tables.
    pub fn joining(
        contract: Arc<dyn Refiner>,
        sql: &str,
        dimensions: &Dimensions,
    ) -> Result<Self, Unplannable> {
        let input = contract.schema();
        let plan = logical::plan(sql, &input, &dimensions.tables)?;
        let draft = output::finish(steps::fold(&plan, &input, &dimensions.tables)?, &input)?;
        let tables = draft.joined.iter().filter_map(|&index| dimensions.tables.get(index));
        let matched = |table: &Dimension| table.missing != Missing::Quarantine;
        let all_matched = tables.clone().all(matched);
        let joined = Joined::new(tables.cloned().collect(), dimensions.snapshots.clone());
        let steps = steps::prune(draft, &input)?;
        let keeps_every_row = all_matched && !steps.leaves_out();
        steps.rehearse().map_err(|fault| Unplannable::Fails { why: told(&fault) })?;
        let is_systems = |(_, field): &(usize, &arrow_schema::FieldRef)| system::has(field.name());
        let carried: Vec<_> = input.fields().iter().enumerate().filter(is_systems).collect();
        let system = carried.iter().map(|(index, _)| *index).collect();
        let own = steps.output();
        let fields = own.fields().iter().chain(carried.iter().map(|(_, field)| *field)).cloned();
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { contract, steps, joined, system, keeps_every_row, schema })
    }

    /// The tables that the SQL joins.
    pub fn dimensions(&self) -> &[String] {
        self.joined.names()
    }

    /// Whether every row of the contract has one in the result: nothing filters, and no join leaves out or puts aside.
    pub fn keeps_every_row(&self) -> bool {
        self.keeps_every_row
    }

    /// Refines rows `from..` of `rows`, whatever happens to some of them.
    fn isolate(&self, rows: &RecordBatch, tables: &[Arc<Lookup>], from: usize, found: &mut Found) {
        match self.steps.run(rows, tables) {
            Ok(refined) => {
                let all = 0..u32::try_from(rows.num_rows()).unwrap_or(u32::MAX);
                let from = u32::try_from(from).unwrap_or(u32::MAX);
                match refined.passed {
                    Some(passed) => found.passed.extend(passed.iter().map(|row| row + from)),
                    None => found.passed.extend(all.map(|row| row + from)),
                }
                found.parts.push(refined.rows);
            }
            Err(fault) if rows.num_rows() <= 1 => {
                found.bad.push((from, fault.reason(), told(&fault)));
            }
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.isolate(&rows.slice(0, half), tables, from, found);
                self.isolate(&rows.slice(half, rows.num_rows() - half), tables, from + half, found);
            }
        }
    }

    /// The result's own columns beside those of the system.
    fn assemble(&self, rows: &RecordBatch, found: &Found) -> Result<RecordBatch, ArrowError> {
        let own = match found.parts.as_slice() {
            [one] => one.clone(),
            parts => concat_batches(&self.steps.output(), parts)?,
        };
        let carried = self.system.iter().map(|&index| Arc::clone(rows.column(index)));
        let carried: Vec<ArrayRef> = if found.passed.len() == rows.num_rows() {
            carried.collect()
        } else {
            // Runs of rows that passed are copied as such.
            let mask = mask(&found.passed, rows.num_rows());
            let by = FilterBuilder::new(&mask).optimize().build();
            carried.map(|column| by.filter(&column)).collect::<Result<_, _>>()?
        };
        let columns = own.columns().iter().cloned().chain(carried).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl std::fmt::Debug for SqlRefiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlRefiner").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// What became of the rows of a batch.
#[derive(Default)]
struct Found {
    parts: Vec<RecordBatch>,
    /// The row behind each row of `parts`, in order.
    passed: Vec<u32>,
    /// Rows that fail alone, and why, in order.
    bad: Vec<(usize, QuarantineReason, String)>,
}

impl Refiner for SqlRefiner {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn replaced(&self) -> u64 {
        self.contract.replaced()
    }

    fn refine(&self, blocks: &[RawBlock]) -> Result<Refined, Failure> {
        let Refined { rows, sources, mut bad, mut dropped } = self.contract.refine(blocks)?;
        // One state of all tables for the whole batch.
        let tables = self.joined.now()?;
        let mut found = Found::default();
        self.isolate(&rows, &tables, 0, &mut found);
        let refined = self.assemble(&rows, &found).map_err(broken)?;
        let mut kept: Vec<RecordRef> = Vec::with_capacity(found.passed.len());
        // A record has one fate: put aside with one of its rows, else delivered with one of them.
        let mut keep: Vec<bool> = Vec::with_capacity(found.passed.len());
        let mut passed = found.passed.into_iter().peekable();
        let mut failed = found.bad.into_iter().peekable();
        let fates = (0_u32..).zip(sources).map(|(row, at)| {
            let bad = failed.next_if(|bad| bad.0 == row as usize);
            let fate = match (passed.next_if_eq(&row), bad) {
                (Some(_), _) => Fate::Passed,
                (None, Some((_, reason, detail))) => Fate::Bad(reason, detail),
                (None, None) => Fate::Filtered,
            };
            (at, fate)
        });
        let mut rest = fates.peekable();
        while let Some((at, mut fate)) = rest.next() {
            let mut passed = usize::from(matches!(fate, Fate::Passed));
            while let Some((_, other)) = rest.next_if(|(next, _)| *next == at) {
                passed += usize::from(matches!(other, Fate::Passed));
                fate = fate.and(other);
            }
            let delivers = matches!(fate, Fate::Passed);
            keep.extend(std::iter::repeat_n(delivers, passed));
            match fate {
                Fate::Passed => kept.extend(std::iter::repeat_n(at, passed)),
                Fate::Filtered => dropped.push((at, DropReason::Filtered)),
                Fate::Bad(reason, detail) => bad.push(BadRecord { at, reason, detail }),
            }
        }
        let refined = match keep.iter().all(|keep| *keep) {
            true => refined,
            false => filter_record_batch(&refined, &BooleanArray::from(keep)).map_err(broken)?,
        };
        bad.sort_by_key(|bad| bad.at);
        dropped.sort_by_key(|(at, _)| *at);
        debug_assert_eq!(refined.num_rows(), kept.len(), "one source per row");
        Ok(Refined { rows: refined, sources: kept, bad, dropped })
    }
}

/// What became of one row.
#[derive(Debug, Clone)]
enum Fate {
    Passed,
    Filtered,
    Bad(QuarantineReason, String),
}

impl Fate {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Bad(reason, detail), _) | (_, Self::Bad(reason, detail)) => {
                Self::Bad(reason, detail)
            }
            (Self::Passed, _) | (_, Self::Passed) => Self::Passed,
            _ => Self::Filtered,
        }
    }
}

fn broken(error: ArrowError) -> Failure {
    Failure::new(FailureKind::Internal, "cannot build a batch of refined rows").because(error)
}

/// Which of so many rows passed.
fn mask(passed: &[u32], rows: usize) -> BooleanArray {
    let mut mask = BooleanBufferBuilder::new(rows);
    mask.append_n(rows, false);
    for &row in passed {
        mask.set_bit(row as usize, true);
    }
    BooleanArray::new(mask.finish(), None)
}

/// The error as an operator reads it, never longer than a record should keep.
fn told(fault: &Fault) -> String {
    let mut text = match &fault.error {
        Cause::NoRow => format!("dimension {} has no row for the record's key", fault.place),
        Cause::Sql(error) => format!("{}: {}", fault.place, error::plain(error)),
    };
    if let Some((end, _)) = text.char_indices().nth(DETAIL) {
        text.truncate(end);
        text.push('…');
    }
    text
}
