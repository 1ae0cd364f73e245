//! `garam log`: what lies in the log's files, of a live core or a stopped one.

mod repair;
mod verify;

use std::path::Path;

use anyhow::anyhow;
use garam_log::inspect::{self, PartitionReport, ProblemKind};
use garam_proto::PartitionId;
use serde_json::{Value, json};

use super::exit::{Exit, coded};
use super::output::{self, Format, Table, bytes};
use crate::config::Plan;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Read and check every entry, and report streams, partitions, segments, origins and problems
    #[command(
        after_help = "Examples:\n  garam log inspect\n  garam log inspect --stream orders --origins\n\n\
Nothing is written. Of a running core the newest entries may show before they are durable. Exit code 7 when something is damaged."
    )]
    Inspect(Inspect),
    /// Read every byte and check every checksum, number, fingerprint and rule, and say what is damaged and where
    #[command(
        after_help = "Examples:\n  garam log verify\n  garam log verify --stream orders -o json\n\n\
Nothing is written; the core may run. Exit code 1 when something is damaged."
    )]
    Verify(verify::Verify),
    /// Give up what cannot be read of a partition, as counted gaps under a new incarnation, so that the rest goes on
    #[command(
        after_help = "Examples:\n  garam log repair orders/0 --dry-run\n  garam log repair orders/0 --yes\n\n\
The core must be stopped. Sound entries keep their place; the damaged files are kept aside. Asks for the partition's name."
    )]
    Repair(repair::Repair),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// Only this stream.
    #[arg(long)]
    stream: Option<String>,
    /// Also list every origin with its mark.
    #[arg(long)]
    origins: bool,
}

pub(crate) fn dispatch(plan: &Plan, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    let dir = plan.log_dir();
    match verb {
        Verb::Inspect(args) => inspect(&dir, &args, format),
        Verb::Verify(args) => verify::verify(&dir, &args, format),
        Verb::Repair(args) => repair::repair(&dir, &args, format),
    }
}

/// The partitions on disk, of all streams or of one.
fn partitions(dir: &Path, stream: Option<&str>) -> anyhow::Result<Vec<PartitionId>> {
    if !dir.try_exists()? {
        return Err(no_log(dir));
    }
    let mut found = inspect::partitions_in(dir)?;
    found.retain(|partition| stream.is_none_or(|name| partition.stream.as_str() == name));
    if found.is_empty() {
        return Err(coded(Exit::NotFound, anyhow!("no such stream in {}", dir.display())));
    }
    Ok(found)
}

fn no_log(dir: &Path) -> anyhow::Error {
    let text = format!("no log in {}: has the core run with this configuration?", dir.display());
    coded(Exit::NotFound, anyhow!(text))
}

fn inspect(dir: &Path, args: &Inspect, format: Format) -> anyhow::Result<Exit> {
    if !dir.try_exists()? {
        return Err(no_log(dir));
    }
    let mut reports = inspect::inspect(dir)?;
    reports.retain(|report| {
        args.stream.as_deref().is_none_or(|name| report.partition.stream.as_str() == name)
    });
    if reports.is_empty() {
        return Err(coded(Exit::NotFound, anyhow!("no such stream in {}", dir.display())));
    }
    let values: Vec<_> = reports.iter().map(|report| as_json(report, args.origins)).collect();
    output::print(format, &values, &table(&reports, args.origins))?;
    let damaged = reports.iter().flat_map(|r| &r.problems).any(|p| p.kind != ProblemKind::TornTail);
    Ok(if damaged { Exit::Degraded } else { Exit::Ok })
}

fn table(reports: &[PartitionReport], with_origins: bool) -> Table {
    let mut table =
        Table::new(&["PARTITION", "START", "END", "SEGMENTS", "BYTES", "ORIGINS", "STATE"]);
    for report in reports {
        let state = match report.problems.first() {
            None => "ok".to_owned(),
            Some(problem) => {
                format!(
                    "{} at {} byte {}: {}",
                    name(problem.kind),
                    problem.file.display(),
                    problem.at,
                    problem.why
                )
            }
        };
        table.row([
            report.partition.to_string(),
            report.start.to_string(),
            report.end.to_string(),
            report.segments.len().to_string(),
            bytes(report.bytes),
            report.origins.len().to_string(),
            state,
        ]);
        for origin in report.origins.iter().filter(|_| with_origins) {
            let retired = if origin.retired { "retired" } else { "live" };
            table.row([
                format!("  {}", origin.descriptor.label()),
                String::new(),
                origin.mark.to_string(),
                String::new(),
                String::new(),
                origin.host.clone(),
                format!("{retired}, generation {}", origin.origin.generation),
            ]);
        }
    }
    table
}

fn as_json(report: &PartitionReport, with_origins: bool) -> Value {
    let mut value = json!({
        "stream": report.partition.stream.as_str(),
        "partition": report.partition.index,
        "incarnation": report.incarnation.to_string(),
        "ancestors": report.ancestors.iter().map(|ancestor| json!({
            "incarnation": ancestor.incarnation.to_string(),
            "until": ancestor.until.0,
        })).collect::<Vec<_>>(),
        "start": report.start.0,
        "end": report.end.0,
        "bytes": report.bytes,
        "origins": report.origins.len(),
        "segments": report.segments.iter().map(|segment| json!({
            "file": segment.file,
            "base": segment.base.0,
            "end": segment.end.0,
            "entries": segment.entries,
            "bytes": segment.bytes,
        })).collect::<Vec<_>>(),
        "problems": report.problems.iter().map(|problem| json!({
            "kind": name(problem.kind),
            "file": problem.file,
            "byte": problem.at,
            "offset": problem.offset.0,
            "why": problem.why,
        })).collect::<Vec<_>>(),
    });
    if with_origins {
        let origins = report.origins.iter().map(|origin| {
            json!({
                "agent": origin.origin.agent.to_string(),
                "generation": origin.origin.generation.to_string(),
                "host": origin.host,
                "source": origin.source.as_str(),
                "path": origin.descriptor.label(),
                "mark": origin.mark.to_string(),
                "retired": origin.retired,
            })
        });
        value["origin_list"] = origins.collect();
    }
    value
}

fn name(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::TornTail => "torn_tail",
        ProblemKind::Damage => "damage",
        ProblemKind::NewerFormat => "newer_format",
    }
}
