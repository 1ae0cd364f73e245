//! One batch through the steps.

use std::sync::Arc;

use arrow_arith::boolean::is_not_null;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal128Type, UInt32Type};
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_empty_array,
};
use arrow_schema::{DataType, SchemaRef};
use arrow_select::filter::{FilterBuilder, prep_null_mask_filter};
use arrow_select::take::take;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use garam_stage::QuarantineReason;

use super::{Computed, Look, Step, Steps};
use crate::dimension::{Lookup, NoPlace};

/// What a batch became.
#[derive(Debug)]
pub(crate) struct Refined {
    /// The result's own columns.
    pub(crate) rows: RecordBatch,
    /// The row of the input behind each; none where all passed.
    pub(crate) passed: Option<Vec<u32>>,
}

/// At least one row of the batch fails. Which one is found by trying fewer.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The column, the filter, or the dimension.
    pub(crate) place: String,
    pub(crate) error: Cause,
}

#[derive(Debug)]
pub(crate) enum Cause {
    Sql(DataFusionError),
    /// A dimension has no row for a record's key, and such records are put aside.
    NoRow,
}

impl Fault {
    pub(crate) fn reason(&self) -> QuarantineReason {
        match self.error {
            Cause::Sql(_) => QuarantineReason::Sql,
            Cause::NoRow => QuarantineReason::Unmatched,
        }
    }

    fn of(place: impl Into<String>, error: DataFusionError) -> Self {
        Self { place: place.into(), error: Cause::Sql(error) }
    }
}

impl Steps {
    pub(crate) fn output(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    /// Rows in, rows out, in order.
    pub(crate) fn run(
        &self,
        input: &RecordBatch,
        tables: &[Arc<Lookup>],
    ) -> Result<Refined, Fault> {
        let columns = self.read.iter().map(|&index| Arc::clone(input.column(index))).collect();
        let mut batch = batch(&self.input, columns, input.num_rows())?;
        let mut passed: Option<Vec<u32>> = None;
        for step in &self.steps {
            if batch.num_rows() == 0 {
                break;
            }
            batch = match step {
                Step::Project { columns, after } => project(&batch, columns, after)?,
                Step::Look(step) => look(&batch, step, tables, &mut passed)?,
                Step::Filter { predicate, keep, after } => {
                    let mask = mask(&batch, predicate)?;
                    let rows = mask.true_count();
                    if rows < mask.len() {
                        passed = Some(through(passed, &mask));
                    }
                    filter(&batch, &mask, keep, after)?
                }
            };
        }
        if batch.num_rows() == 0 {
            let empty = self.output.fields().iter().map(|field| new_empty_array(field.data_type()));
            let rows = self::batch(&self.output, empty.collect(), 0)?;
            return Ok(Refined { rows, passed: Some(Vec::new()) });
        }
        Ok(Refined { rows: batch, passed })
    }

    /// Evaluates all that is written over no rows: what fails here fails whatever the record.
    pub(crate) fn rehearse(&self) -> Result<(), Fault> {
        let mut schema = Arc::clone(&self.input);
        for step in &self.steps {
            let none = RecordBatch::new_empty(Arc::clone(&schema));
            match step {
                Step::Project { columns, after } => drop(project(&none, columns, after)?),
                Step::Filter { predicate, .. } => drop(mask(&none, predicate)?),
                Step::Look(Look { keys, .. }) => drop(values(&none, keys)?),
            }
            schema = step.after();
        }
        Ok(())
    }
}

fn project(
    before: &RecordBatch,
    columns: &[Computed],
    after: &SchemaRef,
) -> Result<RecordBatch, Fault> {
    let rows = before.num_rows();
    let compute = |column: &Computed| {
        let fault = |error| Fault::of(format!("column {}", column.name), error);
        let value = column
            .expr
            .evaluate(before)
            .and_then(|value| value.into_array_of_size(rows))
            .map_err(fault)?;
        check_digits(&value).map_err(fault)?;
        Ok(value)
    };
    let values = columns.iter().map(compute).collect::<Result<Vec<ArrayRef>, Fault>>()?;
    batch(after, values, rows)
}

/// The batch beside the rows that the table has for its keys.
fn look(
    before: &RecordBatch,
    step: &Look,
    tables: &[Arc<Lookup>],
    passed: &mut Option<Vec<u32>>,
) -> Result<RecordBatch, Fault> {
    let Some(table) = tables.get(step.table) else {
        let error = DataFusionError::Internal(format!("table {} is not there", step.table));
        return Err(broken(error));
    };
    let places = table.places(&values(before, &step.keys)?);
    let mut places = places.map_err(|none| match none {
        NoPlace::Arrow(error) => broken(error.into()),
        NoPlace::NoRow(place) => Fault { place, error: Cause::NoRow },
    })?;
    let kept = step.keep.iter().map(|&index| before.column(index));
    let mut columns: Vec<ArrayRef> = kept.cloned().collect();
    if step.inner && places.null_count() > 0 {
        let mask = is_not_null(&places).map_err(|error| broken(error.into()))?;
        *passed = Some(through(passed.take(), &mask));
        let by = FilterBuilder::new(&mask).optimize().build();
        let filter = |column: &ArrayRef| by.filter(column);
        columns = columns
            .iter()
            .map(filter)
            .collect::<Result<_, _>>()
            .map_err(|error| broken(error.into()))?;
        let found = by.filter(&places).map_err(|error| broken(error.into()))?;
        places = found.as_primitive::<UInt32Type>().clone();
    }
    let taken = step.take.iter().map(|&index| take(table.rows.column(index), &places, None));
    for column in taken {
        columns.push(column.map_err(|error| broken(error.into()))?);
    }
    batch(&step.after, columns, places.len())
}

/// Each expression's value for each row.
fn values(batch: &RecordBatch, exprs: &[Arc<dyn PhysicalExpr>]) -> Result<Vec<ArrayRef>, Fault> {
    let fault = |error| Fault::of("join", error);
    let rows = batch.num_rows();
    let value = |expr: &Arc<dyn PhysicalExpr>| {
        expr.evaluate(batch).and_then(|value| value.into_array_of_size(rows))
    };
    exprs.iter().map(|expr| value(expr).map_err(fault)).collect()
}

/// Arithmetic checks that a decimal fits 128 bits, not that it fits its type.
fn check_digits(values: &ArrayRef) -> Result<(), DataFusionError> {
    if let DataType::Decimal128(precision, _) = values.data_type() {
        values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?;
    }
    Ok(())
}

fn mask(batch: &RecordBatch, predicate: &Arc<dyn PhysicalExpr>) -> Result<BooleanArray, Fault> {
    let fault = |error| Fault::of("where", error);
    let value =
        predicate.evaluate(batch).and_then(|value| value.into_array_of_size(batch.num_rows()));
    let value = value.map_err(fault)?;
    let Some(mask) = value.as_boolean_opt() else {
        let error = DataFusionError::Internal(format!("a filter gave {}", value.data_type()));
        return Err(fault(error));
    };
    Ok(if mask.null_count() == 0 { mask.clone() } else { prep_null_mask_filter(mask) })
}

fn filter(
    before: &RecordBatch,
    mask: &BooleanArray,
    keep: &[usize],
    after: &SchemaRef,
) -> Result<RecordBatch, Fault> {
    let columns = keep.iter().map(|&index| before.column(index));
    let rows = mask.true_count();
    if rows == mask.len() {
        return batch(after, columns.cloned().collect(), rows);
    }
    let mut builder = FilterBuilder::new(mask);
    if keep.len() > 1 {
        builder = builder.optimize();
    }
    let by = builder.build();
    let columns = columns.map(|column| by.filter(column));
    let columns = columns.collect::<Result<_, _>>().map_err(|error| broken(error.into()))?;
    batch(after, columns, rows)
}

/// The input rows of those that pass this mask too.
fn through(passed: Option<Vec<u32>>, mask: &BooleanArray) -> Vec<u32> {
    let set = mask.values().set_indices();
    match passed {
        Some(before) => set.filter_map(|index| before.get(index).copied()).collect(),
        None => set.filter_map(|index| u32::try_from(index).ok()).collect(),
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, Fault> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let made = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options);
    made.map_err(|error| broken(error.into()))
}

fn broken(error: DataFusionError) -> Fault {
    Fault::of("the result", error)
}
