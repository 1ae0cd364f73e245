//! A logical plan as steps over one batch: filters, projections and joins on a key, evaluated without streams or tasks.
//!
//! In: the plan and the input's schema. Out: [`Steps`], which turn a batch into the result's own columns and the rows they came
//! from. Promise: which input row an output row came from is known exactly, whatever the SQL says.
//!
//! Reading order: [`fold`] (the plan as steps over all columns) with [`look`] (a join) → [`prune`] (only the columns that are needed) → [`run`].
//! Not here: what becomes of a batch that fails ([`crate::refiner`]).

mod fold;
mod look;
mod prune;
mod run;

use std::sync::Arc;

use arrow_schema::{FieldRef, SchemaRef};
use datafusion_common::TableReference;
use datafusion_physical_expr::PhysicalExpr;

pub(crate) use fold::fold;
pub(crate) use prune::prune;
pub(crate) use run::{Cause, Fault};

/// What is done to a batch, in this order.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Columns of the input that are read.
    read: Vec<usize>,
    input: SchemaRef,
    steps: Vec<Step>,
    /// The result's own columns.
    output: SchemaRef,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Leaves rows out.
    Filter { predicate: Arc<dyn PhysicalExpr>, keep: Vec<usize>, after: SchemaRef },
    /// Computes columns.
    Project { columns: Vec<Computed>, after: SchemaRef },
    /// Adds columns of the row that a table has for a key.
    Look(Look),
}

/// A join on a table's unique key.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Which of the plan's tables, in the order of its joins.
    pub(crate) table: usize,
    /// In the order of the table's key.
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Columns that stay.
    pub(crate) keep: Vec<usize>,
    /// Columns of the table that are added behind them.
    pub(crate) take: Vec<usize>,
    /// Rows without a match are left out.
    pub(crate) inner: bool,
    pub(crate) after: SchemaRef,
}

/// A column of a projection.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    pub(crate) name: String,
}

/// A plan folded so far: the steps, and what is known of the columns behind them.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    /// The tables that are joined, as indexes into those that may be.
    pub(crate) joined: Vec<usize>,
    pub(crate) columns: Vec<Known>,
}

/// A column between two steps.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) table: Option<TableReference>,
    pub(crate) field: FieldRef,
    /// The input's column, where it is that one untouched.
    pub(crate) input: Option<usize>,
}

impl Steps {
    /// Whether a row of the input may have none in the result.
    pub(crate) fn leaves_out(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Filter { .. } => true,
            Step::Look(look) => look.inner,
            Step::Project { .. } => false,
        })
    }
}
