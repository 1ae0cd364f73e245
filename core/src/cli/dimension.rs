//! `garam dimension`: the tables to join, as the running core has them.

use std::time::Duration;

use garam_proto::shown::escape;
use serde_json::json;

use super::admin_client::Core;
use super::exit::Exit;
use super::output::{self, Format, Table, bytes, seconds};
use crate::admin::answers::{DimensionAnswer, RefreshAnswer};

/// How long a refresh may take: longer than any query that is not given up before.
const REFRESH: Duration = Duration::from_secs(3660);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List dimensions with their age, rows and troubles
    #[command(after_help = "Example: garam dimension ls -o json")]
    Ls,
    /// Show one dimension: columns, key, source, who joins it, what became of the last refresh
    #[command(after_help = "Example: garam dimension show dim_users")]
    Show { name: String },
    /// Read a dimension's source now, and wait for the outcome
    #[command(
        after_help = "Example: garam dimension refresh dim_users\n\nRows that do not fit are named with their values. The last good rows stay in use when it fails.\n\
Exit codes: 0 it was read, 1 it could not be, 3 there is no such dimension."
    )]
    Refresh { name: String },
}

pub(crate) fn dispatch(core: &Core, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        Verb::Ls => ls(core, format),
        Verb::Show { name } => show(core, &name, format),
        Verb::Refresh { name } => refresh(core, &name, format),
    }
}

fn ls(core: &Core, format: Format) -> anyhow::Result<Exit> {
    let all: Vec<DimensionAnswer> = super::block_on(core.get("/v1/dimensions"))?;
    let mut table = Table::new(&["NAME", "STATE", "ROWS", "SIZE", "AGE", "SOURCE", "ERROR"]);
    for dimension in &all {
        table.row([
            dimension.name.clone(),
            dimension.state.clone(),
            dimension.rows.map_or("-".into(), |rows| rows.to_string()),
            dimension.bytes.map_or("-".into(), bytes),
            dimension.age_s.map_or("-".into(), seconds),
            dimension.source.clone(),
            dimension.error.clone().unwrap_or_default(),
        ]);
    }
    output::print(format, &all, &table)?;
    Ok(Exit::Ok)
}

fn show(core: &Core, name: &str, format: Format) -> anyhow::Result<Exit> {
    let found: DimensionAnswer = super::block_on(core.get(&format!("/v1/dimensions/{name}")))?;
    let known = |told: &Option<String>| told.clone().unwrap_or_else(|| "-".into());
    let from_disk = if found.from_disk { ", from disk" } else { "" };
    let lines = [
        ("dimension", found.name.clone()),
        ("source", found.source.clone()),
        ("state", format!("{}{from_disk}", found.state)),
        ("error", known(&found.error)),
        ("rows", found.rows.map_or("-".into(), |rows| rows.to_string())),
        ("size", found.bytes.map_or("-".into(), bytes)),
        ("age", found.age_s.map_or("-".into(), seconds)),
        ("loaded", known(&found.loaded_at)),
        ("at source", known(&found.source_at)),
        ("snapshot", known(&found.snapshot)),
        ("key", found.key.join(", ")),
        ("columns", found.columns.join(", ")),
        ("missing", found.missing.clone()),
        ("pipelines", found.pipelines.join(", ")),
        ("refreshes", format!("{} ok, {} failed", found.refreshed, found.failed)),
    ];
    let line = |(what, told): &(&str, String)| format!("{what:<11}{}\n", escape(told));
    output::print_text(format, &found, &lines.iter().map(line).collect::<String>())?;
    Ok(Exit::Ok)
}

fn refresh(core: &Core, name: &str, format: Format) -> anyhow::Result<Exit> {
    let path = format!("/v1/dimensions/{name}/refresh");
    let answer: RefreshAnswer = super::block_on(core.do_within(REFRESH, &path))?;
    let rows = answer.rows.unwrap_or(0);
    let text = match answer.swapped {
        true => format!("{name} has {rows} rows now\n"),
        false => format!("{name} was read: its {rows} rows are the same as before\n"),
    };
    output::print_text(format, &json!(answer), &text)?;
    Ok(Exit::Ok)
}
