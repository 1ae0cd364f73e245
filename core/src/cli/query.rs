//! `garam query`: read-only SQL on what a pipeline has delivered.

use anyhow::anyhow;
use garam_sink::SinkConfig;
use garam_sink::sqlite::{QueryLimits, read_only_query};
use serde_json::json;

use super::exit::{Exit, coded};
use super::output::{self, Format, Table};
use crate::config::{PipelinePlan, Plan, Target};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  garam query \"select count(*) from lines\"\n  \
garam query --pipeline orders-to-db \"select * from orders limit 5\" -o json\n\nThe database is opened read-only.")]
pub(crate) struct Args {
    /// One SELECT statement.
    sql: String,
    /// Whose destination; needed when there are several.
    #[arg(long)]
    pipeline: Option<String>,
    /// At most this many rows are printed.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

pub(crate) fn query(plan: &Plan, args: &Args, format: Format) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, args.pipeline.as_deref())?;
    let Target::Sink(SinkConfig::Sqlite(sqlite)) = &pipeline.to else {
        let (name, label) = (&pipeline.name, pipeline.to.label());
        let text = match &pipeline.to {
            Target::Sink(_) => {
                format!("pipeline {name} writes {label}: ask its server, as with psql or mysql")
            }
            Target::Stream(_) => format!(
                "pipeline {name} writes {label}: ask for what a pipeline that reads it has delivered, or `garam tap {name}`"
            ),
        };
        return Err(coded(Exit::Usage, anyhow!(text)));
    };
    let answer = super::block_on(async {
        let limits = QueryLimits { rows: args.limit, ..QueryLimits::default() };
        Ok(read_only_query(&sqlite.path, &args.sql, limits).await?)
    })?;
    let mut table = Table::with_columns(&answer.columns);
    let mut values = Vec::new();
    for row in &answer.rows {
        table.row(row.iter().map(ToString::to_string));
        let members = answer.columns.iter().cloned().zip(row.iter().map(|value| json!(value)));
        values.push(serde_json::Value::Object(members.collect()));
    }
    output::print(format, &values, &table)?;
    if answer.truncated {
        super::exit::eprintln_quietly(&format!(
            "only the first {} rows are shown; see --limit",
            args.limit
        ));
    }
    Ok(Exit::Ok)
}

/// The pipeline that is named, or the only one there is.
pub(crate) fn choose<'a>(plan: &'a Plan, name: Option<&str>) -> anyhow::Result<&'a PipelinePlan> {
    let names = || plan.pipelines.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, plan.pipelines.as_slice()) {
        (Some(name), pipelines) => pipelines.iter().find(|p| p.name == name).ok_or_else(|| {
            coded(
                Exit::NotFound,
                anyhow!("pipeline {name} is not configured; there is {}", names()),
            )
        }),
        (None, [only]) => Ok(only),
        (None, []) => Err(coded(Exit::NotFound, anyhow!("no pipeline is configured"))),
        (None, _) => Err(coded(
            Exit::Config,
            anyhow!("which pipeline? Say --pipeline; there is {}", names()),
        )),
    }
}
