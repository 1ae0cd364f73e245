//! A join on a dimension's unique key as a step; every other join is refused with what is missing.
//!
//! In: the planner's join, left of it all that was folded before. Promise: a row of the left side has at most one match.

use std::sync::Arc;

use arrow_schema::Schema;
use datafusion_common::TableReference;
use datafusion_expr::logical_plan::Join;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, JoinType, LogicalPlan, Operator};
use garam_stage::dimension::{Dimension, Missing};

use super::fold::physical;
use super::{Draft, Known, Look, Step};
use crate::INPUT;
use crate::error::Unplannable;

impl Draft {
    pub(super) fn look(&mut self, join: &Join, tables: &[Dimension]) -> Result<(), Unplannable> {
        let (name, alias) = scanned(&join.right)?;
        let found = tables.iter().enumerate().find(|(_, table)| table.name == name);
        let Some((index, table)) = found else {
            let (why, instead) = if name == INPUT {
                ("it looks at other records", "let the destination do it, in a view")
            } else {
                ("it is no dimension", "join a dimension on its key")
            };
            return Err(refused(&name, why, instead));
        };
        let inner = match join.join_type {
            JoinType::Inner => true,
            JoinType::Left => false,
            _ => {
                return Err(refused(
                    &name,
                    "only `join` and `left join` are known",
                    "write one of them",
                ));
            }
        };
        let keys = self.keys(join, table, &alias)?;
        let keep = (0..self.columns.len()).collect();
        let take = (0..table.schema.fields().len()).collect();
        for field in table.schema.fields() {
            // The row that stands in for a missing one may be null anywhere.
            let stands_in = table.missing == Missing::Default;
            let nullable = field.is_nullable() || !inner || stands_in;
            let field = Arc::new(field.as_ref().clone().with_nullable(nullable));
            self.columns.push(Known { table: Some(alias.clone()), field, input: None });
        }
        let (table, after) = (self.joined.len(), self.schema());
        self.joined.push(index);
        self.steps.push(Step::Look(Look { table, keys, keep, take, inner, after }));
        Ok(())
    }

    /// What each column of the table's key is compared with.
    fn keys(
        &self,
        join: &Join,
        table: &Dimension,
        alias: &TableReference,
    ) -> Result<Vec<Arc<dyn datafusion_physical_expr::PhysicalExpr>>, Unplannable> {
        let wanted = format!("using ({})", table.key.join(", "));
        let instead =
            format!("write `{wanted}`, or `on` with each of these columns = a value of the record");
        let no = |why: &str| refused(&table.name, why, &instead);
        let filters = join.filter.iter().flat_map(split_conjunction);
        let mut pairs: Vec<(&Expr, &Expr)> =
            join.on.iter().map(|(left, right)| (left, right)).collect();
        for part in filters {
            match part {
                Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
                    pairs.push((&binary.left, &binary.right))
                }
                _ => return Err(no("it compares otherwise than by =")),
            }
        }
        let (names, before): (_, Arc<Schema>) = (self.names()?, self.schema());
        let mut keys = vec![None; table.key.len()];
        for (left, right) in pairs {
            let (value, column) = if is_of(right, alias) { (left, right) } else { (right, left) };
            let column = match column {
                Expr::Column(column) if column.relation.as_ref() == Some(alias) => &column.name,
                Expr::Cast(_) | Expr::TryCast(_) => {
                    return Err(no("the types differ: cast the record's value to the key's type"));
                }
                _ => return Err(no("one side of = must be a column of its key")),
            };
            let Some(place) = table.key.iter().position(|key| key == column) else {
                return Err(no(&format!("{column} is not part of its unique key")));
            };
            let value = physical(value, &names)?;
            let kind = value.data_type(&before).map_err(|error| Unplannable::of(&error))?;
            let wanted =
                table.schema.field_with_name(column).map(|field| field.data_type().clone());
            if wanted.ok() != Some(kind) {
                return Err(no("the types differ: cast the record's value to the key's type"));
            }
            if let Some(key) = keys.get_mut(place) {
                *key = Some(value);
            }
        }
        keys.into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| no("a part of its unique key is missing"))
    }
}

fn is_of(expr: &Expr, alias: &TableReference) -> bool {
    match expr {
        Expr::Column(column) => column.relation.as_ref() == Some(alias),
        Expr::Cast(cast) => is_of(&cast.expr, alias),
        _ => false,
    }
}

/// The table that is scanned, and the name it goes by.
fn scanned(plan: &LogicalPlan) -> Result<(String, TableReference), Unplannable> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            Ok((scan.table_name.table().to_owned(), scan.table_name.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (name, _) = scanned(&alias.input)?;
            Ok((name, alias.alias.clone()))
        }
        _ => Err(refused(
            "a subquery",
            "its rows are not unique by a key",
            "join a dimension itself",
        )),
    }
}

fn refused(table: &str, why: &str, instead: &str) -> Unplannable {
    Unplannable::Join { table: table.into(), why: why.into(), instead: instead.into() }
}
