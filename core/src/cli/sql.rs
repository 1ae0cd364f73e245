//! `garam sql`: tries a refinement on a file of records, without a core, an agent or a destination.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use garam_dimension::DimensionPlan;
use garam_refine::{ContractRefiner, sample};
use garam_stage::{ContractConfig, DropReason, Refined, system};
use serde::Deserialize;
use serde_json::{Value, json};

use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table};
use crate::app::rows::row_as_json;
use crate::config::{Plan, Refining};

/// Most bytes of the sample: a batch, not a disk.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam sql --input sample.json --pipeline orders\n  garam sql --input sample.json -f refine.toml -o json\n\n\
refine.toml says the SQL, and the contract or the configured stream that the records are of:\n\n  \
sql = \"select id, lower(name) as name from input where id > 0\"\n  stream = \"orders\"          # or:\n  \
[contract]\n  format = \"json\"\n  [contract.columns]\n  id = \"bigint not null\"\n  name = \"text\"\n\n\
Prints the rows without Garam's own columns; what is put aside and left out is told behind them.\n\
Exit codes: 0 ok, 1 the sample cannot be read, 3 no such pipeline, 78 the SQL or the file cannot be used."
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["pipeline", "file"]))]
pub(crate) struct Args {
    /// File of records, one a line, or - for stdin.
    #[arg(long)]
    input: PathBuf,
    /// A configured pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    /// A file that says the SQL.
    #[arg(long, short)]
    file: Option<PathBuf>,
}

/// What `-f` names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refinement {
    sql: String,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    contract: Option<ContractConfig>,
}

pub(crate) fn sql(
    args: &Args,
    load: impl Fn() -> anyhow::Result<Plan>,
    format: Format,
) -> anyhow::Result<Exit> {
    let refining = match (&args.pipeline, &args.file) {
        (Some(name), _) => of_pipeline(&load()?, name)?,
        (None, Some(path)) => of_file(path, load)?,
        (None, None) => return Err(coded(Exit::Usage, anyhow!("give --pipeline or --file"))),
    };
    let text = read_sample(&args.input)?;
    let records: Vec<&str> = text.lines().collect();
    let now = jiff::Timestamp::now().as_microsecond();
    let refined = refining.refiner().refine(&[sample(&records, now)])?;
    show(&refined, format)
}

fn show(refined: &Refined, format: Format) -> anyhow::Result<Exit> {
    let Refined { rows, bad, dropped, .. } = refined;
    let own: Vec<usize> = rows
        .schema_ref()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| !system::ALL.contains(&field.name().as_str()))
        .map(|(index, _)| index)
        .collect();
    let rows = rows.project(&own)?;
    let values: Vec<Value> = (0..rows.num_rows()).map(|row| row_as_json(&rows, row)).collect();
    let names: Vec<String> = rows.schema_ref().fields().iter().map(|f| f.name().clone()).collect();
    let mut table = Table::with_columns(&names);
    for value in &values {
        table.row(names.iter().map(|name| match value.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }));
    }
    let count = |wanted: DropReason| dropped.iter().filter(|(_, why)| *why == wanted).count();
    let (filtered, headers) = (count(DropReason::Filtered), count(DropReason::Header));
    let aside: Vec<Value> = bad
        .iter()
        .map(|bad| json!({ "line": bad.at.index + 1, "reason": bad.reason.name(), "detail": bad.detail }))
        .collect();
    let value =
        json!({ "rows": values, "quarantined": aside, "filtered": filtered, "headers": headers });
    output::print(format, &value, &table)?;
    if format == Format::Table {
        for bad in bad {
            let (line, reason) = (bad.at.index + 1, bad.reason.name());
            eprintln_quietly(&format!("line {line} is put aside as {reason}: {}", bad.detail));
        }
        eprintln_quietly(&format!(
            "{} rows, {} put aside, {filtered} filtered",
            values.len(),
            bad.len()
        ));
    }
    Ok(Exit::Ok)
}

fn of_pipeline(plan: &Plan, name: &str) -> anyhow::Result<Refining> {
    let found = plan.pipelines.iter().find(|pipeline| pipeline.name == name);
    let known = || plan.pipelines.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    let refining = found.map(|pipeline| pipeline.refining.clone()).ok_or_else(|| {
        let text = format!("pipeline {name} is not configured; there is {}", known());
        coded(Exit::NotFound, anyhow!(text))
    })?;
    read_dimensions(plan, &refining)?;
    Ok(refining)
}

/// Reads once what a refinement joins.
pub(super) fn read_dimensions(plan: &Plan, refining: &Refining) -> anyhow::Result<()> {
    let joined =
        |dimension: &&DimensionPlan| refining.joins().iter().any(|name| name == dimension.name());
    for dimension in plan.dimensions.iter().filter(joined) {
        let read = super::block_on(async { Ok(dimension.read_once().await?) });
        let read = read.with_context(|| format!("dimension {}", dimension.name()))?;
        plan.snapshots.put(dimension.name(), Arc::new(read.snapshot));
    }
    Ok(())
}

fn of_file(path: &Path, load: impl Fn() -> anyhow::Result<Plan>) -> anyhow::Result<Refining> {
    let unusable = |error: anyhow::Error| coded(Exit::Config, error);
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"));
    let file: Refinement = toml::from_str(&text.map_err(unusable)?)
        .with_context(|| shown.to_string())
        .map_err(unusable)?;
    let mut plan = None;
    let (contract, refiner) = match (file.contract, file.stream) {
        (Some(contract), None) => {
            let contract = contract.check().with_context(|| shown.to_string()).map_err(unusable)?;
            let refiner = ContractRefiner::new(contract.clone()).with_context(|| shown.to_string());
            (contract, Arc::new(refiner.map_err(unusable)?))
        }
        (None, Some(name)) => {
            let plan = plan.insert(load()?);
            let stream = plan.streams.iter().find(|stream| stream.name.as_str() == name);
            let stream = stream
                .ok_or_else(|| unusable(anyhow!("{shown}: stream {name} is not configured")))?;
            (stream.contract.clone(), Arc::clone(&stream.refiner))
        }
        _ => return Err(unusable(anyhow!("{shown}: says one of stream, [contract]"))),
    };
    let tables = plan.iter().flat_map(|plan| &plan.dimensions);
    let tables = tables.map(|dimension| dimension.shape.dimension().clone()).collect();
    let snapshots = plan.as_ref().map(|plan| plan.snapshots.clone()).unwrap_or_default();
    let refining = Refining::new(&contract, refiner, Some(file.sql), tables, &snapshots);
    let refining = refining.map_err(|why| unusable(anyhow!("{shown}: sql: {why}")))?;
    if let Some(plan) = &plan {
        read_dimensions(plan, &refining)?;
    }
    Ok(refining)
}

fn read_sample(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut input: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(cannot)?)
    };
    let mut bytes = Vec::new();
    input.as_mut().take(MOST_BYTES).read_to_end(&mut bytes).with_context(cannot)?;
    // Bytes that are no text are shown as such: the contract would put them aside.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
