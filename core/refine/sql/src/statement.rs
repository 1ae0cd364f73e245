//! What may be written: one row-local `select`.
//!
//! In: the SQL text. Out: one query whose every part looks at one record alone, or what is refused, why, and what to do instead.
//! Not here: names of columns and types ([`crate::logical`]).

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArguments, GroupByExpr, JoinOperator, Query, Select, SetExpr,
    Statement, TableFactor, Visit, Visitor,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::Parser;

use crate::error::Unplannable;
use crate::library::{self, Library};

/// The one query of `sql`.
pub(crate) fn parse(sql: &str, library: &Library) -> Result<Statement, Unplannable> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql);
    let statements = statements.map_err(|error| Unplannable::Syntax {
        why: error.to_string().trim_start_matches("sql parser error: ").to_owned(),
    })?;
    let found = statements.len();
    let mut statements = statements.into_iter();
    let (Some(statement), None) = (statements.next(), statements.next()) else {
        return Err(Unplannable::Statements { found });
    };
    if !matches!(statement, Statement::Query(_)) {
        let found = statement.to_string();
        let found = found.split_whitespace().next().unwrap_or_default().to_lowercase();
        return Err(Unplannable::NotAQuery { found });
    }
    match statement.visit(&mut Judge { library }) {
        ControlFlow::Continue(()) => Ok(statement),
        ControlFlow::Break(refused) => Err(refused),
    }
}

/// Looks at every part of the query and stops at the first that is refused.
struct Judge<'a> {
    library: &'a Library,
}

impl Visitor for Judge<'_> {
    type Break = Unplannable;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Unplannable> {
        if let Some((what, why, instead)) = query_parts(query) {
            return refuse(what.into(), why, instead);
        }
        match query.body.as_ref() {
            SetExpr::Select(select) => check_select(select),
            SetExpr::Query(_) => ControlFlow::Continue(()),
            SetExpr::SetOperation { op, .. } => refuse(
                op.to_string().to_lowercase(),
                "a record would have several rows or none",
                "make a pipeline for each part",
            ),
            SetExpr::Values(_) | SetExpr::Table(_) => ControlFlow::Break(Unplannable::NoInput),
            other => {
                let found = other.to_string();
                let found = found.split_whitespace().next().unwrap_or_default().to_lowercase();
                ControlFlow::Break(Unplannable::NotAQuery { found })
            }
        }
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Unplannable> {
        match table {
            TableFactor::Table { args: None, sample: None, version: None, .. }
            | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            TableFactor::Derived { lateral: false, sample: None, .. } => ControlFlow::Continue(()),
            other => refuse(
                other.to_string(),
                "it is no plain table",
                "read `from input` and name its columns",
            ),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Unplannable> {
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => refuse(
                "a subquery in an expression".into(),
                "it looks at other records",
                "write it as a list of values, or join a dimension on its key",
            ),
            Expr::Function(function) => check_function(function, self.library),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_function(function: &Function, library: &Library) -> ControlFlow<Unplannable> {
    let name = function.name.to_string().to_lowercase();
    let is_distinct = matches!(&function.args,
        FunctionArguments::List(list) if list.duplicate_treatment.is_some());
    if function.over.is_some() {
        return refuse(
            format!("the window {name}() over (…)"),
            "it looks at other records",
            "let the destination compute it, in a view",
        );
    }
    if library::is_aggregate(&name) || is_distinct || function.filter.is_some() {
        return refuse(
            format!("the aggregate {name}()"),
            "it needs more than one record, and what comes in one batch is chance",
            "let the destination compute it, in a view",
        );
    }
    if library.is_unrepeatable(&name) {
        let instead = library::instead_of(&name);
        return ControlFlow::Break(Unplannable::NotReplayable { name, instead });
    }
    if !library.knows(&name) {
        let near = library.nearest(&name);
        return ControlFlow::Break(Unplannable::UnknownFunction { name, near });
    }
    ControlFlow::Continue(())
}

fn check_select(select: &Select) -> ControlFlow<Unplannable> {
    const OTHERS: &str = "it looks at other records";
    const VIEW: &str = "let the destination compute it, in a view";
    let is_grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
    };
    let sorts = [&select.cluster_by, &select.distribute_by].iter().any(|by| !by.is_empty());
    let refused = [
        (
            matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))),
            "distinct",
            "use mode = \"upsert\" with a key in the destination",
        ),
        (is_grouped, "group by", VIEW),
        (select.having.is_some(), "having", VIEW),
        (select.qualify.is_some() || !select.named_window.is_empty(), "a window", VIEW),
        (select.top.is_some(), "top", "filter by a column's value with `where`"),
        (sorts || !select.sort_by.is_empty(), "sorting", "order the rows where they are read"),
        (!select.connect_by.is_empty(), "connect by", VIEW),
    ];
    if let Some((_, what, instead)) = refused.into_iter().find(|(is_there, ..)| *is_there) {
        return refuse(what.into(), OTHERS, instead);
    }
    let more_rows = !select.lateral_views.is_empty() || select.from.len() > 1;
    if more_rows {
        return refuse(
            "more than one table in `from`".into(),
            "a record would have any number of rows",
            "read `from input` alone, or join a dimension on its key",
        );
    }
    if select.into.is_some() {
        return refuse("into".into(), "the pipeline says where rows go", "leave it out");
    }
    match select.from.as_slice() {
        [] => ControlFlow::Break(Unplannable::NoInput),
        [from] => from.joins.iter().try_for_each(|join| check_join(&join.join_operator)),
        _ => ControlFlow::Continue(()),
    }
}

fn check_join(join: &JoinOperator) -> ControlFlow<Unplannable> {
    match join {
        JoinOperator::Join(_)
        | JoinOperator::Inner(_)
        | JoinOperator::Left(_)
        | JoinOperator::LeftOuter(_) => ControlFlow::Continue(()),
        _ => refuse(
            "this kind of join".into(),
            "a record would have any number of rows",
            "write `join` or `left join` with a dimension's key",
        ),
    }
}

/// What a query has besides its body, and why it is refused.
fn query_parts(query: &Query) -> Option<(&'static str, &'static str, &'static str)> {
    let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
    let parts = [
        (
            query.order_by.is_some(),
            "order by",
            "it looks at other records",
            "order the rows where they are read",
        ),
        (
            query.limit_clause.is_some(),
            "limit",
            "which records it would take is chance",
            "filter by a column's value with `where`",
        ),
        (
            query.fetch.is_some(),
            "fetch",
            "which records it would take is chance",
            "filter by a column's value with `where`",
        ),
        (recursive, "with recursive", "a record would have any number of rows", "write it without"),
        (!query.locks.is_empty(), "for update", "nothing is locked here", "leave it out"),
        (
            !query.pipe_operators.is_empty(),
            "|>",
            "its parts cannot be checked",
            "write it as one select",
        ),
        (
            query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some(),
            "this clause",
            "it means nothing here",
            "leave it out",
        ),
    ];
    parts
        .into_iter()
        .find(|(is_there, ..)| *is_there)
        .map(|(_, what, why, instead)| (what, why, instead))
}

fn refuse(what: String, why: &'static str, instead: &'static str) -> ControlFlow<Unplannable> {
    ControlFlow::Break(Unplannable::NotRowLocal { what, why, instead })
}
