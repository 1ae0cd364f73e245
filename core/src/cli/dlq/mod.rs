//! `garam dlq`: what was put aside, why, and what becomes of it. Reads the log's files, of a live core or a stopped one.
//!
//! Reading order: here (list, show) → [`read`] → [`export`] → [`request`] (requeue, purge).

mod export;
mod read;
mod request;

use anyhow::anyhow;
use garam_flow::{Name, TakenFor};
use garam_stage::quarantine::WHOLE_BLOCK;

use super::exit::{Exit, coded};
use super::output::{self, Format, Table};
use super::query::choose;
use crate::config::Plan;
use read::read;
pub(crate) use request::wait;

/// How much of a record a list shows.
const GLIMPSE: usize = 60;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List quarantined records
    #[command(
        after_help = "Examples:\n  garam dlq ls\n  garam dlq ls orders-to-db --reason type -o json"
    )]
    Ls {
        /// Which pipeline; default: all.
        pipeline: Option<String>,
        /// Only records put aside for this reason.
        #[arg(long)]
        reason: Option<String>,
        /// Also what was requeued or purged, as long as it is held.
        #[arg(long)]
        all: bool,
        /// At most this many, the newest; 0 means all.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one quarantined record whole
    #[command(after_help = "Example: garam dlq show orders-to-db 17.0")]
    Show {
        pipeline: String,
        /// Its id in `dlq ls`.
        id: Name,
    },
    /// Deliver quarantined records again, once, after what was wrong is mended
    #[command(
        after_help = "Examples:\n  garam dlq requeue orders-to-db --reason type --dry-run\n  garam dlq requeue orders-to-db --all --yes --wait 60\n  \
garam dlq requeue orders-to-db 17.0 17.1 --yes\n\nRecords go through the contract as it is now; what still breaks it is put aside again. Rows have the origin, position and\n\
version they would have had. A request is kept first: a crash at any moment delivers each record once.\n\
Exit codes: 0 ok, 2 usage, 3 nothing fits, 4 not carried out within --wait, 6 the table has no guard."
    )]
    Requeue(request::Args),
    /// Write quarantined records to stdout or a file
    Export(export::Args),
    /// Give quarantined records up for good
    #[command(
        after_help = "Examples:\n  garam dlq purge orders-to-db --reason too_long --dry-run\n  garam dlq purge orders-to-db --all --yes\n\n\
Export first what you may want to see again. Room on disk comes back segment by segment, once the input cannot be read again."
    )]
    Purge(request::Args),
    /// List requeues and purges, and what became of them
    #[command(after_help = "Example: garam dlq requests orders-to-db -o json")]
    Requests {
        /// Which pipeline; default: all.
        pipeline: Option<String>,
    },
}

pub(crate) fn dispatch(plan: &Plan, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        Verb::Ls { pipeline, reason, all, limit } => {
            let filter = Filter { reason: reason.as_deref(), all, limit };
            list(plan, pipeline.as_deref(), filter, format)
        }
        Verb::Show { pipeline, id } => show(plan, &pipeline, id, format),
        Verb::Requeue(args) => request::ask(plan, TakenFor::Requeue, &args, format),
        Verb::Export(args) => export::export(plan, &args),
        Verb::Purge(args) => request::ask(plan, TakenFor::Purge, &args, format),
        Verb::Requests { pipeline } => request::list(plan, pipeline.as_deref(), format),
    }
}

struct Filter<'a> {
    reason: Option<&'a str>,
    all: bool,
    limit: usize,
}

fn list(
    plan: &Plan,
    pipeline: Option<&str>,
    filter: Filter<'_>,
    format: Format,
) -> anyhow::Result<Exit> {
    let Filter { reason, all, limit } = filter;
    let pipelines = match pipeline {
        Some(name) => vec![choose(plan, Some(name))?],
        None => plan.pipelines.iter().collect(),
    };
    let mut found = Vec::new();
    for pipeline in pipelines {
        found.extend(read(plan, pipeline)?);
    }
    found.retain(|aside| all || aside.taken.is_none());
    found.retain(|aside| reason.is_none_or(|reason| aside.record.reason.name() == reason));
    let skip = if limit == 0 { 0 } else { found.len().saturating_sub(limit) };
    let shown = found.split_off(skip);
    let mut table = Table::new(&[
        "ID", "PIPELINE", "STATE", "REASON", "DETAIL", "HOST", "PATH", "POSITION", "RECORD",
    ]);
    for aside in &shown {
        let text = String::from_utf8_lossy(&aside.bytes);
        let mut glimpse: String = text.chars().take(GLIMPSE).collect();
        if glimpse.len() < text.len() {
            glimpse.push('…');
        }
        table.row([
            aside.name.to_string(),
            aside.pipeline.clone(),
            aside.state().into(),
            aside.record.reason.name().into(),
            aside.record.detail.clone(),
            aside.record.host.clone(),
            aside.record.path.clone(),
            aside.record.position.to_string(),
            glimpse,
        ]);
    }
    let values: Vec<_> = shown.iter().map(read::Aside::as_json).collect();
    output::print(format, &values, &table)?;
    Ok(Exit::Ok)
}

fn show(plan: &Plan, pipeline: &str, id: Name, format: Format) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(pipeline))?;
    let found = read(plan, pipeline)?.into_iter().find(|aside| aside.name == id);
    let Some(aside) = found else {
        return Err(coded(
            Exit::NotFound,
            anyhow!("pipeline {} has no quarantined record {id}", pipeline.name),
        ));
    };
    let record = &aside.record;
    let at = jiff::Timestamp::from_microsecond(record.time_us)
        .map(|at| at.to_string())
        .unwrap_or_default();
    let mut text = format!(
        "id        {}\nstate     {}\nreason    {}: {}\nwhen      {at}\nhost      {}\npath      {}\nposition  {}\noffset    {}/{} entry {} record {}\n\n",
        aside.name,
        aside.state(),
        record.reason.name(),
        output::escape(&record.detail),
        output::escape(&record.host),
        output::escape(&record.path),
        record.position,
        record.stream,
        record.partition,
        record.offset,
        if record.index == WHOLE_BLOCK { "all".into() } else { record.index.to_string() },
    );
    for line in String::from_utf8_lossy(&aside.bytes).lines() {
        text.push_str(&output::escape(line));
        text.push('\n');
    }
    output::print_text(format, &aside.as_json(), &text)?;
    Ok(Exit::Ok)
}
