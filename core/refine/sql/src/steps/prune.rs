//! Steps over the needed columns alone: what nobody reads is neither read, filtered nor computed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use datafusion_common::DataFusionError;
use datafusion_common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::utils::collect_columns;

use super::{Computed, Draft, Look, Step, Steps};
use crate::error::Unplannable;

/// The draft's steps, all of whose last columns are wanted.
pub(crate) fn prune(draft: Draft, input: &SchemaRef) -> Result<Steps, Unplannable> {
    let mut needed: BTreeSet<usize> = (0..draft.columns.len()).collect();
    // From the last step to the first: what each has to give.
    let mut gives = Vec::with_capacity(draft.steps.len());
    for step in draft.steps.iter().rev() {
        gives.push(needed.clone());
        needed = step.takes(&needed);
    }
    gives.reverse();
    let read: Vec<usize> = needed.iter().copied().collect();
    let read_schema = narrowed(input, &needed);
    let mut before = needed;
    let mut steps = Vec::with_capacity(draft.steps.len());
    for (step, gives) in draft.steps.into_iter().zip(gives) {
        steps.push(step.narrowed(&before, &gives)?);
        before = gives;
    }
    let output = steps.last().map_or_else(|| Arc::clone(&read_schema), Step::after);
    Ok(Steps { read, input: read_schema, steps, output })
}

impl Step {
    pub(super) fn after(&self) -> SchemaRef {
        match self {
            Self::Filter { after, .. }
            | Self::Project { after, .. }
            | Self::Look(Look { after, .. }) => Arc::clone(after),
        }
    }

    /// The columns it needs to give these.
    fn takes(&self, gives: &BTreeSet<usize>) -> BTreeSet<usize> {
        match self {
            Self::Filter { predicate, .. } => {
                gives.iter().copied().chain(columns_of(predicate)).collect()
            }
            Self::Look(look) => {
                let kept = gives.iter().copied().filter(|index| *index < look.keep.len());
                kept.chain(look.keys.iter().flat_map(columns_of)).collect()
            }
            Self::Project { columns, .. } => {
                let given = columns.iter().enumerate().filter(|(i, _)| gives.contains(i));
                given.flat_map(|(_, column)| columns_of(&column.expr)).collect()
            }
        }
    }

    /// The same over a batch that has only the columns `before`, giving only `gives`.
    fn narrowed(
        self,
        before: &BTreeSet<usize>,
        gives: &BTreeSet<usize>,
    ) -> Result<Self, Unplannable> {
        match self {
            Self::Filter { predicate, after, .. } => {
                let predicate = moved(predicate, before)?;
                let place =
                    |(place, index): (usize, &usize)| gives.contains(index).then_some(place);
                let keep = before.iter().enumerate().filter_map(place).collect();
                Ok(Self::Filter { predicate, keep, after: narrowed(&after, gives) })
            }
            Self::Look(Look { table, keys, keep, take, inner, after }) => {
                let keys =
                    keys.into_iter().map(|key| moved(key, before)).collect::<Result<_, _>>()?;
                let width = keep.len();
                let place =
                    |(place, index): (usize, &usize)| gives.contains(index).then_some(place);
                let keep = before.iter().enumerate().filter_map(place).collect();
                let is_taken = |(place, _): &(usize, usize)| gives.contains(&(width + place));
                let take = take
                    .into_iter()
                    .enumerate()
                    .filter(is_taken)
                    .map(|(_, column)| column)
                    .collect();
                let after = narrowed(&after, gives);
                Ok(Self::Look(Look { table, keys, keep, take, inner, after }))
            }
            Self::Project { columns, after } => {
                let given = columns.into_iter().enumerate().filter(|(i, _)| gives.contains(i));
                let given = given.map(|(_, Computed { expr, name })| {
                    Ok(Computed { expr: moved(expr, before)?, name })
                });
                let columns = given.collect::<Result<_, Unplannable>>()?;
                Ok(Self::Project { columns, after: narrowed(&after, gives) })
            }
        }
    }
}

fn columns_of(expr: &Arc<dyn PhysicalExpr>) -> impl Iterator<Item = usize> + use<> {
    collect_columns(expr).into_iter().map(|column| column.index())
}

fn narrowed(schema: &SchemaRef, columns: &BTreeSet<usize>) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().filter(|(i, _)| columns.contains(i));
    Arc::new(Schema::new(fields.map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>()))
}

/// An expression whose columns stand among these alone.
fn moved(
    expr: Arc<dyn PhysicalExpr>,
    among: &BTreeSet<usize>,
) -> Result<Arc<dyn PhysicalExpr>, Unplannable> {
    let place = |expr: Arc<dyn PhysicalExpr>| {
        let Some(column) = expr.as_any().downcast_ref::<Column>() else {
            return Ok::<_, DataFusionError>(Transformed::no(expr));
        };
        let place = among.range(..column.index()).count();
        Ok(Transformed::yes(Arc::new(Column::new(column.name(), place)) as _))
    };
    expr.transform_up(place).data().map_err(|error| Unplannable::of(&error))
}
