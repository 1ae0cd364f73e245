//! `garam test`: an operator's own tests of contracts and SQL: given records, expected rows or reasons. Needs no running core.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use garam_refine::sample;
use garam_stage::{Refined, Refiner};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::exit::{Exit, coded};
use super::output::{self, Format, Table};
use super::sql::read_dimensions;
use crate::app::rows::row_as_json;
use crate::config::Plan;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: garam test tests/*.toml\n\nA file names a stream, or a pipeline with its SQL, and holds cases; each has one record and what becomes of it:\n\n  \
stream = \"orders\"                     # or pipeline = \"orders\"\n  # arrives = \"2026-11-23T23:24:04Z\"        when the gateway took it in; default: the time of the test\n  [[case]]\n  \
name = \"money is exact\"\n  record = '{\"id\":1,\"amount\":2.5}'\n  row = { id = 1, amount = \"2.50\" }   # the columns that are compared\n  \
null = [\"note\"]                        # and those that must be null\n  [[case]]\n  record = '{\"id\":0}'\n  dropped = \"filtered\"                # left out by the SQL\n  [[case]]\n  record = '{\"id\":\"x\"}'\n  \
reason = \"type\"                        # why it is put aside\n  detail = \"column id\"                   # a part of what is told about it\n\n\
Decimals are texts, times are like 2026-11-23T23:24:04.000000Z.\nExit codes: 0 all hold, 1 one does not, 78 a file cannot be used."
)]
pub(crate) struct Args {
    /// Files of cases.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// By its contract alone.
    #[serde(default)]
    stream: Option<String>,
    /// By its stream's contract, then its SQL.
    #[serde(default)]
    pipeline: Option<String>,
    #[serde(default)]
    arrives: Option<String>,
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    name: Option<String>,
    record: String,
    #[serde(default)]
    row: Option<Map<String, Value>>,
    #[serde(default)]
    null: Vec<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    /// Left out on purpose, for this reason.
    #[serde(default)]
    dropped: Option<String>,
}

pub(crate) fn test(plan: &Plan, args: &Args, format: Format) -> anyhow::Result<Exit> {
    let mut table = Table::new(&["FILE", "CASE", "RESULT"]);
    let (mut values, mut failed) = (Vec::new(), 0_u64);
    for path in &args.files {
        let file = read(path)?;
        let refiner = refiner(plan, &file)
            .map_err(|why| coded(Exit::Config, anyhow!("{}: {why}", path.display())))?;
        let arrives = arrives(path, file.arrives.as_deref())?;
        for (number, case) in file.case.iter().enumerate() {
            let name = case.name.clone().unwrap_or_else(|| format!("case {}", number + 1));
            let wrong = judge(refiner.as_ref(), case, arrives)?;
            failed += u64::from(wrong.is_some());
            let result = wrong.clone().unwrap_or_else(|| "ok".into());
            table.row([path.display().to_string(), name.clone(), result]);
            values.push(json!({
                "file": path, "case": name, "ok": wrong.is_none(), "why": wrong,
            }));
        }
    }
    output::print(format, &values, &table)?;
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// What the cases go through.
fn refiner(plan: &Plan, file: &File) -> Result<Arc<dyn Refiner>, String> {
    match (&file.stream, &file.pipeline) {
        (Some(name), None) => {
            let found = plan.streams.iter().find(|known| known.name.as_str() == name);
            let found = found.ok_or_else(|| format!("stream {name} is not configured"))?;
            Ok(Arc::clone(&found.refiner) as _)
        }
        (None, Some(name)) => {
            let found = plan.pipelines.iter().find(|known| known.name == *name);
            let found = found.ok_or_else(|| format!("pipeline {name} is not configured"))?;
            read_dimensions(plan, &found.refining).map_err(|error| format!("{error:#}"))?;
            Ok(found.refining.refiner())
        }
        _ => Err("a file of cases says one of stream, pipeline".into()),
    }
}

/// Microseconds since the epoch.
fn arrives(path: &Path, text: Option<&str>) -> anyhow::Result<i64> {
    let Some(text) = text else { return Ok(jiff::Timestamp::now().as_microsecond()) };
    let at: Result<jiff::Timestamp, _> = text.parse();
    let at = at.with_context(|| format!("{}: arrives = {text:?}", path.display()));
    Ok(at.map_err(|error| coded(Exit::Config, error))?.as_microsecond())
}

fn read(path: &Path) -> anyhow::Result<File> {
    let unusable = |error| coded(Exit::Config, error);
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let text = text.map_err(unusable)?;
    let file: File =
        toml::from_str(&text).with_context(|| path.display().to_string()).map_err(unusable)?;
    for case in &file.case {
        let said = [
            case.row.is_some() || !case.null.is_empty(),
            case.reason.is_some(),
            case.dropped.is_some(),
        ];
        if said.iter().filter(|said| **said).count() != 1 {
            let text =
                format!("{}: a case says one of row (with null), reason, dropped", path.display());
            return Err(unusable(anyhow!(text)));
        }
    }
    Ok(file)
}

/// What is wrong, if anything is.
fn judge(refiner: &dyn Refiner, case: &Case, arrives: i64) -> anyhow::Result<Option<String>> {
    let refined = refiner.refine(&[sample(&[&case.record], arrives)])?;
    let Refined { rows, bad, dropped, .. } = refined;
    if let Some(bad) = bad.first() {
        let found = format!("{}: {}", bad.reason.name(), bad.detail);
        let is_wanted = case.reason.as_deref() == Some(bad.reason.name())
            && case.detail.as_ref().is_none_or(|part| bad.detail.contains(part.as_str()));
        return Ok((!is_wanted).then(|| format!("put aside as {found}")));
    }
    if let Some((_, reason)) = dropped.first() {
        let is_wanted = case.dropped.as_deref() == Some(reason.name());
        return Ok((!is_wanted).then(|| format!("dropped as {}", reason.name())));
    }
    let row = row_as_json(&rows, 0);
    if let Some(reason) = case.reason.as_ref().or(case.dropped.as_ref()) {
        return Ok(Some(format!("expected {reason}, found the row {row}")));
    }
    let wanted = case.row.iter().flatten().map(|(name, value)| (name, value.clone()));
    let wanted = wanted.chain(case.null.iter().map(|name| (name, Value::Null)));
    for (name, value) in wanted {
        match row.get(name) {
            None => return Ok(Some(format!("there is no column {name}"))),
            Some(found) if *found != value => {
                return Ok(Some(format!("column {name}: expected {value}, found {found}")));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}
