//! A logical plan into steps, from the table up. What is not row-local was refused before; what the planner made of it nevertheless is refused here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, LogicalPlan, Operator};
use datafusion_physical_expr::expressions::{BinaryExpr, Column};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use garam_stage::dimension::Dimension;

use super::{Computed, Draft, Known, Step};
use crate::INPUT;
use crate::error::Unplannable;

/// The plan over an input of this schema.
pub(crate) fn fold(
    plan: &LogicalPlan,
    input: &SchemaRef,
    tables: &[Dimension],
) -> Result<Draft, Unplannable> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() != INPUT => {
            Err(Unplannable::NoInput)
        }
        LogicalPlan::TableScan(scan) => {
            let known = |(i, field): (usize, &FieldRef)| Known {
                table: Some(scan.table_name.clone()),
                field: Arc::clone(field),
                input: Some(i),
            };
            let columns = input.fields().iter().enumerate().map(known).collect();
            Ok(Draft { steps: Vec::new(), joined: Vec::new(), columns })
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let mut draft = fold(&alias.input, input, tables)?;
            for (known, (table, field)) in draft.columns.iter_mut().zip(alias.schema.iter()) {
                known.table = table.cloned();
                known.field = Arc::new(known.field.as_ref().clone().with_name(field.name()));
            }
            Ok(draft)
        }
        LogicalPlan::Filter(filter) => {
            let mut draft = fold(&filter.input, input, tables)?;
            for part in guards(&filter.predicate) {
                draft.filter(&part)?;
            }
            Ok(draft)
        }
        LogicalPlan::Projection(projection) => {
            let mut draft = fold(&projection.input, input, tables)?;
            draft.project(&projection.expr, &projection.schema)?;
            Ok(draft)
        }
        LogicalPlan::EmptyRelation(_) => Err(Unplannable::NoInput),
        LogicalPlan::Join(join) => {
            let mut draft = fold(&join.left, input, tables)?;
            draft.look(join, tables)?;
            Ok(draft)
        }
        other => Err(not_local(other.display().to_string().as_str())),
    }
}

fn not_local(what: &str) -> Unplannable {
    Unplannable::NotRowLocal {
        what: what.to_owned(),
        why: "it is not row-local",
        instead: "write a select with columns and `where` over input",
    }
}

/// A filter's parts in the order in which they guard each other: `b <> 0 and a / b > 1` never divides by zero. Neighbours that
/// cannot fail are one part.
fn guards(predicate: &Expr) -> Vec<Expr> {
    let mut parts: Vec<Expr> = Vec::new();
    for part in split_conjunction(predicate) {
        match parts.pop() {
            Some(last) if cannot_fail(part) && cannot_fail(&last) => {
                parts.push(last.and(part.clone()));
            }
            last => parts.extend(last.into_iter().chain([part.clone()])),
        }
    }
    parts
}

/// Whether an expression gives a value for every row; that others do as well is not known.
fn cannot_fail(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::BinaryExpr(binary) => {
            let compares = compares(binary.op);
            let combines = matches!(binary.op, Operator::And | Operator::Or);
            (compares || combines) && cannot_fail(&binary.left) && cannot_fail(&binary.right)
        }
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner) => cannot_fail(inner),
        Expr::Between(between) => {
            [&between.expr, &between.low, &between.high].into_iter().all(|expr| cannot_fail(expr))
        }
        Expr::InList(list) => cannot_fail(&list.expr) && list.list.iter().all(cannot_fail),
        Expr::Like(like) => cannot_fail(&like.expr) && cannot_fail(&like.pattern),
        _ => false,
    }
}

impl Draft {
    /// The columns as the planner names them.
    pub(super) fn names(&self) -> Result<DFSchema, Unplannable> {
        let fields =
            self.columns.iter().map(|known| (known.table.clone(), Arc::clone(&known.field)));
        let names = DFSchema::new_with_metadata(fields.collect(), HashMap::new());
        names.map_err(|error| Unplannable::of(&error))
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|known| Arc::clone(&known.field));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn filter(&mut self, predicate: &Expr) -> Result<(), Unplannable> {
        let names = self.names()?;
        let predicate_here = physical(predicate, &names)?;
        // Where a row passed, these have a value.
        for column in with_value(predicate) {
            let Ok(index) = names.index_of_column(column) else { continue };
            let Some(known) = self.columns.get_mut(index) else { continue };
            known.field = Arc::new(known.field.as_ref().clone().with_nullable(false));
        }
        let keep = (0..self.columns.len()).collect();
        self.steps.push(Step::Filter { predicate: predicate_here, keep, after: self.schema() });
        Ok(())
    }

    fn project(&mut self, exprs: &[Expr], schema: &DFSchema) -> Result<(), Unplannable> {
        let (names, before) = (self.names()?, self.schema());
        let mut columns = Vec::with_capacity(exprs.len());
        let mut after = Vec::with_capacity(exprs.len());
        for (expr, (table, field)) in exprs.iter().zip(schema.iter()) {
            let expr = physical(expr, &names)?;
            let found = expr.return_field(&before).map_err(|error| Unplannable::of(&error))?;
            let untouched = expr.as_any().downcast_ref::<Column>();
            let untouched = untouched.and_then(|column| self.columns.get(column.index()));
            let input = untouched.and_then(|known| known.input);
            let (kind, nullable) = (found.data_type().clone(), found.is_nullable());
            let mut field = Field::new(field.name(), kind, nullable);
            // What is known beyond the type, as the length of a varchar, holds for the same values.
            if let Some(known) = untouched {
                field.set_metadata(known.field.metadata().clone());
            }
            let name = field.name().clone();
            after.push(Known { table: table.cloned(), field: Arc::new(field), input });
            columns.push(Computed { expr, name });
        }
        self.columns = after;
        self.steps.push(Step::Project { columns, after: self.schema() });
        Ok(())
    }

    /// One more projection, of expressions over the columns by their place.
    pub(crate) fn finish(&mut self, columns: Vec<Computed>, after: Vec<Known>) {
        self.columns = after;
        self.steps.push(Step::Project { columns, after: self.schema() });
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Columns that a row which passes has a value in.
fn with_value(predicate: &Expr) -> Vec<&datafusion_common::Column> {
    match predicate {
        Expr::BinaryExpr(binary) if binary.op == Operator::And => {
            let sides = [&binary.left, &binary.right];
            sides.into_iter().flat_map(|side| with_value(side)).collect()
        }
        Expr::IsNotNull(inner) => inner.try_as_col().into_iter().collect(),
        Expr::BinaryExpr(binary) if compares(binary.op) => {
            [&binary.left, &binary.right].into_iter().filter_map(|side| side.try_as_col()).collect()
        }
        _ => Vec::new(),
    }
}

/// What runs: whole numbers that leave their type's range are errors instead of other numbers.
pub(super) fn physical(
    expr: &Expr,
    names: &DFSchema,
) -> Result<Arc<dyn PhysicalExpr>, Unplannable> {
    let strict = |expr: Arc<dyn PhysicalExpr>| {
        let Some(binary) = expr.as_any().downcast_ref::<BinaryExpr>() else {
            return Ok::<_, DataFusionError>(Transformed::no(expr));
        };
        let (left, right) = (Arc::clone(binary.left()), Arc::clone(binary.right()));
        let strict = BinaryExpr::new(left, *binary.op(), right).with_fail_on_overflow(true);
        Ok(Transformed::yes(Arc::new(strict) as _))
    };
    let made = create_physical_expr(expr, names, &ExecutionProps::new());
    let made = made.and_then(|made| made.transform_up(strict).data());
    made.map_err(|error| Unplannable::of(&error))
}
