//! SQL text into DataFusion's logical plan: names resolved, types made to fit, constants folded, nothing moved.
//!
//! In: one query that [`crate::statement`] let through, the columns of the rows by the contract. Out: a plan of projections and
//! filters over them. Filters stay where they are written: they guard what is computed after them.
//! Not here: how it runs ([`crate::steps`]).

use std::any::Any;
use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, Optimizer, OptimizerContext};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use garam_stage::dimension::Dimension;

use crate::INPUT;
use crate::error::Unplannable;
use crate::library::Library;
use crate::statement;

/// Plans `sql` over rows of this schema.
pub(crate) fn plan(
    sql: &str,
    schema: &SchemaRef,
    tables: &[Dimension],
) -> Result<LogicalPlan, Unplannable> {
    let library = Library::new();
    let statement = statement::parse(sql, &library)?;
    let options = Arc::new(ConfigOptions::default());
    let world = World { schema, tables, library, options: Arc::clone(&options) };
    let planner = SqlToRel::new_with_options(&world, parser_options());
    let plan = planner.sql_statement_to_plan(statement).map_err(|error| world.told(&error))?;
    let told = |error: DataFusionError| Unplannable::of(&error);
    let analyzer = Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())]);
    let plan = analyzer.execute_and_check(plan, &options, |_, _| {}).map_err(told)?;
    let optimizer = Optimizer::with_rules(vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(CommonSubexprEliminate::new()),
    ]);
    // Without a time of its own: nothing in a plan depends on when it was made.
    let context = OptimizerContext::new_with_config_options(options);
    let context = context.without_query_execution_start_time().with_skip_failing_rules(false);
    optimizer.optimize(plan, &context, |_, _| {}).map_err(told)
}

/// Names count as they are written, `1.5` is a decimal, and text is what rows carry.
fn parser_options() -> ParserOptions {
    ParserOptions {
        parse_float_as_decimal: true,
        enable_ident_normalization: false,
        map_string_types_to_utf8view: false,
        ..ParserOptions::default()
    }
}

/// What the planner may know.
struct World<'a> {
    schema: &'a SchemaRef,
    tables: &'a [Dimension],
    library: Library,
    options: Arc<ConfigOptions>,
}

impl World<'_> {
    fn table(&self, name: &str) -> Option<&Dimension> {
        self.tables.iter().find(|table| table.name == name)
    }

    fn told(&self, error: &DataFusionError) -> Unplannable {
        match error.find_root() {
            DataFusionError::External(source) => match source.downcast_ref::<NoTable>() {
                Some(NoTable(name)) => Unplannable::UnknownTable {
                    name: name.clone(),
                    known: self.tables.iter().map(|table| table.name.clone()).collect(),
                },
                None => Unplannable::of(error),
            },
            _ => Unplannable::of(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no table {0}")]
struct NoTable(String);

/// A table that is only a schema.
struct Named(SchemaRef);

impl TableSource for Named {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }
}

impl ContextProvider for World<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let schema = match &name {
            TableReference::Bare { table } if **table == *INPUT => Some(self.schema),
            TableReference::Bare { table } => self.table(table).map(|table| &table.schema),
            _ => None,
        };
        match schema {
            Some(schema) => Ok(Arc::new(Named(Arc::clone(schema)))),
            None => Err(DataFusionError::External(Box::new(NoTable(name.to_string())))),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.library.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.library.find(name)
    }

    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.library.names().map(str::to_owned).collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
