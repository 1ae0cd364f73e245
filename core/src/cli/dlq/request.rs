//! `garam dlq requeue`, `purge` and `requests`: what an operator asks of a quarantine.
//!
//! In: which records. Out: the plan; with consent a request in the metadata, which the pipeline's carrier carries out within
//! a second, or when the core is started. Promise: a request is kept before anything is done; asking twice for the same
//! records delivers them once. Not here: carrying it out (`flow`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use garam_flow::{Name, TakenFor, quarantine_stream};
use garam_log::offline;
use garam_meta::{Meta, RequestDone, RequestRecord};
use garam_proto::PartitionId;
use garam_stage::QuarantineReason;
use garam_stage::quarantine::WHOLE_BLOCK;
use serde_json::{Value, json};
use uuid::Uuid;

use super::read::{Aside, pipeline_id, read};
use crate::actors::replay::REPLAY;
use crate::cli::confirm::{Answer, Consent, confirm};
use crate::cli::exit::{Exit, coded, eprintln_quietly};
use crate::cli::output::{self, Format, Table};
use crate::cli::query::choose;
use crate::config::{PipelinePlan, Plan};
use crate::gateway::wall_clock_us;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    pipeline: String,
    /// Only these records, by their id in `dlq ls`.
    ids: Vec<Name>,
    /// Only records put aside for this reason.
    #[arg(long)]
    reason: Option<QuarantineReason>,
    /// All that waits.
    #[arg(long, conflicts_with_all = ["ids", "reason"])]
    all: bool,
    /// Also into a table where an old row can overwrite a newer one.
    #[arg(long)]
    force: bool,
    /// Wait so many seconds for a running core to carry it out; exit 4 when it has not.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn ask(
    plan: &Plan,
    what: TakenFor,
    args: &Args,
    format: Format,
) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(&args.pipeline))?;
    if args.ids.is_empty() && args.reason.is_none() && !args.all {
        return Err(coded(Exit::Usage, anyhow!("which records? Give ids, --reason or --all")));
    }
    if what == TakenFor::Requeue {
        refuse_unguarded(pipeline, args.force)?;
    }
    let chosen = chosen(plan, pipeline, args)?;
    let (fit, unfit): (Vec<_>, Vec<_>) =
        chosen.iter().partition(|aside| what == TakenFor::Purge || is_fit(aside));
    tell(what, &fit, unfit.len());
    if fit.is_empty() {
        let text = format!("nothing in the quarantine of {} fits", pipeline.name);
        return Err(coded(Exit::NotFound, anyhow!(text)));
    }
    let mut kept = None;
    if confirm(&pipeline.name, args.consent)? == Answer::Go {
        kept = Some(keep(plan, pipeline, what, args)?);
    }
    let mut done = None;
    if let (Some(id), Some(seconds)) = (kept, args.wait) {
        done = Some(wait(plan, id, Duration::from_secs(seconds))?);
    }
    let value = json!({
        "pipeline": pipeline.name,
        "what": what.name(),
        "records": fit.len(),
        "unfit": unfit.len(),
        "request": kept.map(|id| id.to_string()),
        "done": done.map(|done| done_json(&done)),
    });
    let text = match kept {
        None => "nothing was asked: this is the plan\n".to_owned(),
        Some(id) if done.is_some() => format!("request {id} is carried out\n"),
        Some(id) => format!(
            "request {id} is kept: a running core carries it out within a second, another one when it starts; \
             see `garam dlq requests`\n"
        ),
    };
    output::print_text(format, &value, &text)?;
    Ok(Exit::Ok)
}

/// Lists requests and what became of them.
pub(crate) fn list(plan: &Plan, pipeline: Option<&str>, format: Format) -> anyhow::Result<Exit> {
    let only = pipeline.map(|name| choose(plan, Some(name))).transpose()?;
    let (requests, names) = crate::cli::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        let pipelines = meta.pipelines().await?.into_iter().map(|known| (known.id, known.name));
        Ok((meta.requests().await?, pipelines.collect::<Vec<_>>()))
    })?;
    let name = |request: &RequestRecord| {
        let known = names.iter().find(|(id, _)| *id == request.pipeline);
        known.map_or_else(|| request.pipeline.to_string(), |(_, name)| name.clone())
    };
    let of_quarantines = requests.iter().filter(|request| request.what != REPLAY);
    let shown = of_quarantines.filter(|r| only.is_none_or(|only| only.name == name(r)));
    let mut table =
        Table::new(&["REQUEST", "PIPELINE", "WHAT", "REASON", "STATE", "TAKEN", "UNFIT"]);
    let mut values = Vec::new();
    for request in shown {
        let state = match request.done {
            None => "open",
            Some(RequestDone { is_void: true, .. }) => "void",
            Some(_) => "done",
        };
        let count = |figure: fn(&RequestDone) -> u64| {
            request.done.as_ref().map_or("-".into(), |done| figure(done).to_string())
        };
        table.row([
            request.id.to_string(),
            name(request),
            request.what.clone(),
            request.reason.clone().unwrap_or_else(|| "-".into()),
            state.into(),
            count(|done| done.taken),
            count(|done| done.unfit),
        ]);
        values.push(json!({
            "request": request.id.to_string(), "pipeline": name(request), "what": request.what,
            "reason": request.reason, "ids": request.names, "asked_us": request.asked_us, "state": state,
            "done": request.done.as_ref().map(done_json),
        }));
    }
    output::print(format, &values, &table)?;
    Ok(Exit::Ok)
}

fn done_json(done: &RequestDone) -> Value {
    json!({ "at_us": done.at_us, "taken": done.taken, "unfit": done.unfit, "void": done.is_void })
}

/// Without a guard the last write wins, so an old record would stand over newer ones.
fn refuse_unguarded(pipeline: &PipelinePlan, force: bool) -> anyhow::Result<()> {
    if force || pipeline.to.survives_rewind() {
        return Ok(());
    }
    let text = format!(
        "pipeline {} writes over rows without a guard: a requeued record would put an old row over a newer one; \
         configure a version column, or say --force",
        pipeline.name
    );
    Err(coded(Exit::Conflict, anyhow!(text)))
}

/// What waits and is asked for.
fn chosen(plan: &Plan, pipeline: &PipelinePlan, args: &Args) -> anyhow::Result<Vec<Aside>> {
    let mut waiting = read(plan, pipeline)?;
    for id in &args.ids {
        let found = waiting.iter().find(|aside| aside.name == *id);
        let why = match found.map(Aside::state) {
            Some("waiting") => continue,
            Some(state) => format!("record {id} is {state} already"),
            None => format!("pipeline {} has no quarantined record {id}", pipeline.name),
        };
        return Err(coded(Exit::NotFound, anyhow!(why)));
    }
    waiting.retain(|aside| {
        aside.taken.is_none()
            && args.reason.is_none_or(|reason| aside.record.reason == reason)
            && (args.ids.is_empty() || args.ids.contains(&aside.name))
    });
    Ok(waiting)
}

fn is_fit(aside: &Aside) -> bool {
    aside.record.index != WHOLE_BLOCK && aside.record.reason != QuarantineReason::TooLong
}

/// Shows the plan before it asks.
fn tell(what: TakenFor, fit: &[&Aside], unfit: usize) {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for aside in fit {
        *reasons.entry(aside.record.reason.name()).or_default() += u64::from(aside.record.records);
    }
    let doing = match what {
        TakenFor::Requeue => "to be delivered again",
        TakenFor::Purge => "to be given up for good",
    };
    for (reason, count) in reasons {
        eprintln_quietly(&format!("{count} records put aside as {reason}: {doing}"));
    }
    if unfit > 0 {
        eprintln_quietly(&format!(
            "{unfit} entries cannot be delivered again (whole blocks, pieces of long records): export or purge them"
        ));
    }
}

fn keep(plan: &Plan, pipeline: &PipelinePlan, what: TakenFor, args: &Args) -> anyhow::Result<Uuid> {
    let Some(id) = pipeline_id(plan, &pipeline.name)? else {
        return Err(coded(Exit::NotFound, anyhow!("pipeline {} has never run", pipeline.name)));
    };
    let at = PartitionId { stream: quarantine_stream(id), index: 0 };
    let bounds = offline::glance(&plan.log_dir(), &at)?.bounds;
    let request = RequestRecord {
        id: Uuid::new_v4(),
        pipeline: id,
        what: what.name().into(),
        reason: args.reason.map(|reason| reason.name().into()),
        names: args.ids.iter().map(ToString::to_string).collect(),
        until: bounds.end,
        incarnation: bounds.incarnation,
        asked_us: wall_clock_us(),
        done: None,
    };
    crate::cli::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        Ok(meta.ask(&request).await?)
    })?;
    Ok(request.id)
}

/// Looks until a running core has carried the request out.
pub(crate) fn wait(plan: &Plan, id: Uuid, within: Duration) -> anyhow::Result<RequestDone> {
    let deadline = Instant::now() + within;
    crate::cli::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        loop {
            let requests = meta.requests().await?;
            let found = requests.iter().find(|request| request.id == id);
            if let Some(done) = found.and_then(|request| request.done) {
                return Ok(done);
            }
            if Instant::now() >= deadline {
                let text =
                    format!("request {id} is kept, but not carried out yet: does a core run?");
                return Err(coded(Exit::Unreachable, anyhow!(text)));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}
