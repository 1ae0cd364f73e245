//! `garam resume`: lets a paused or parked pipeline go on, where its cursor does not fit the log by an operator's choice.
//!
//! In: destination, log and metadata as they lie on disk, of a running core or a stopped one; a choice. Out: the plan; with
//! consent a decision in the metadata, which the flow carries out when it starts next, and a running core that is asked to
//! start it now. Promise: a cursor that fits is never moved; a choice that leads nowhere is refused before anything is kept.
//! Not here: where a choice leads and the carrying out (`flow`).

use anyhow::anyhow;
use garam_flow::{Standing, quarantine_stream};
use garam_log::offline;
use garam_meta::Meta;
use garam_proto::{LogOffset, PartitionId, PipelineId};
use garam_stage::{Choice, Cursor, CursorKey, CursorMemory as _, Decision, SlotRange};
use serde_json::{Value, json};

use super::admin_client::Core;
use super::confirm::{Answer, Consent, confirm};
use super::exit::{Coded, Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table};
use super::query::choose;
use crate::config::{PipelinePlan, Plan};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam resume orders-to-db                      after the cause was removed\n  \
garam resume orders-to-db --rewind --dry-run   show where it would begin\n  garam resume orders-to-db --rewind --yes\n\n\
Without a choice the pipeline is started again as it stands. --rewind delivers again whatever the log holds: tables in append\n\
mode drop what they have already. --rebase keeps the offset: everything below it is taken as delivered. --accept-gap goes on\n\
behind what cannot be delivered and counts it. The core may run or not.\n\
Exit codes: 0 ok, 1 failed, 2 consent missing, 3 no such pipeline, 6 the choice does not fit."
)]
#[command(group(clap::ArgGroup::new("choice").args(["rewind", "rebase", "accept_gap"])))]
pub(crate) struct Args {
    /// Which pipeline.
    pipeline: String,
    /// Only this partition; default: all that do not fit.
    #[arg(long, requires = "choice")]
    partition: Option<u32>,
    /// Deliver again from the log's start.
    #[arg(long)]
    rewind: bool,
    /// Go on at the same offset of the log as it is now.
    #[arg(long)]
    rebase: bool,
    /// Go on behind what is lost, and count it.
    #[arg(long)]
    accept_gap: bool,
    /// Also rewind into a table in upsert mode: rows go back in time until the log is caught up, and count as delivered again.
    #[arg(long, requires = "rewind")]
    force: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What is planned for one partition.
struct Step {
    key: CursorKey,
    trouble: String,
    decision: Decision,
    end: LogOffset,
}

pub(crate) fn resume(plan: &Plan, args: &Args, format: Format) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(&args.pipeline))?;
    let Some(choice) = args.choice() else {
        if super::pause::end(plan, &args.pipeline)? {
            let value = json!({"pipeline": args.pipeline, "started": false, "paused": false});
            output::print_text(format, &value, "a running core lets it go on within a second\n")?;
            return Ok(Exit::Ok);
        }
        return start_again(&here(plan), args, format);
    };
    refuse_unguarded(pipeline, choice, args.force)?;
    super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        let known = meta.pipelines().await?;
        let known = known.iter().find(|known| known.name == pipeline.name).ok_or_else(|| {
            let text = format!("pipeline {} has never run", pipeline.name);
            coded(Exit::NotFound, anyhow!(text))
        })?;
        let steps = steps(plan, pipeline, known.id, &meta, choice, args.partition).await?;
        if steps.is_empty() {
            let text =
                format!("every cursor of {} fits its log: nothing is to be decided", pipeline.name);
            return Err(coded(
                Exit::Conflict,
                anyhow!("{text}; `garam resume {}` starts it", pipeline.name),
            ));
        }
        let answer = confirm_quietly(&steps, &args.pipeline, args.consent)?;
        let mut started = false;
        if answer == Answer::Go {
            for step in &steps {
                meta.decide(&step.key, &step.decision).await?;
            }
            started = match start(&here(plan), &args.pipeline).await {
                Ok(started) => started,
                Err(error) if exit_of(&error) == Some(Exit::Unreachable) => {
                    eprintln_quietly("no core runs: it is carried out when the core is started");
                    false
                }
                Err(error) => return Err(error),
            };
        }
        let decided = answer == Answer::Go;
        let rows: Vec<Value> = steps.iter().map(Step::as_json).collect();
        let value = json!({
            "pipeline": args.pipeline, "choice": choice.name(), "decided": decided,
            "started": started, "partitions": rows,
        });
        output::print(format, &value, &table(&steps, decided))?;
        Ok(Exit::Ok)
    })
}

/// Without a choice, also on another machine.
pub(crate) fn start_again(core: &Core, args: &Args, format: Format) -> anyhow::Result<Exit> {
    if args.choice().is_some() {
        let text = "a choice is made where destination and log lie: on the core's own machine";
        return Err(coded(Exit::Usage, anyhow!(text)));
    }
    let started = super::block_on(start(core, &args.pipeline))?;
    output::print_text(format, &json!({"pipeline": args.pipeline, "started": started}), "")?;
    Ok(Exit::Ok)
}

fn here(plan: &Plan) -> Core {
    Core::Here { socket: plan.admin.socket.clone() }
}

impl Args {
    fn choice(&self) -> Option<Choice> {
        let given = [
            (self.rewind, Choice::Rewind),
            (self.rebase, Choice::Rebase),
            (self.accept_gap, Choice::AcceptGap),
        ];
        given.into_iter().find_map(|(given, choice)| given.then_some(choice))
    }
}

/// Without a guard the last write wins, so going back shows old rows until the log is caught up.
fn refuse_unguarded(pipeline: &PipelinePlan, choice: Choice, force: bool) -> anyhow::Result<()> {
    if choice != Choice::Rewind || force || pipeline.to.survives_rewind() {
        return Ok(());
    }
    let text = format!(
        "pipeline {} writes over rows without a guard: a rewind would put old rows over newer ones until the log is \
         caught up; choose --rebase or --accept-gap, or say --force",
        pipeline.name
    );
    Err(coded(Exit::Conflict, anyhow!(text)))
}

async fn steps(
    plan: &Plan,
    pipeline: &PipelinePlan,
    id: PipelineId,
    meta: &Meta,
    choice: Choice,
    only: Option<u32>,
) -> anyhow::Result<Vec<Step>> {
    let partitions = plan.stream(&pipeline.from).map_or(0, |stream| stream.partitions);
    if let Some(only) = only.filter(|only| *only >= partitions) {
        let text = format!("stream {} has no partition {only}", pipeline.from);
        return Err(coded(Exit::NotFound, anyhow!(text)));
    }
    let key = |index| CursorKey { pipeline: id, partition: index, slots: SlotRange::ALL };
    let keys: Vec<CursorKey> = (0..partitions).map(key).collect();
    let cursors = pipeline.to.read_cursors(&plan.log_dir(), &keys).await?;
    let mut steps = Vec::new();
    for index in (0..partitions).filter(|index| only.is_none_or(|only| only == *index)) {
        let key = key(index);
        let stored = cursors.iter().find(|cursor| cursor.key == key);
        let input = PartitionId { stream: pipeline.from.clone(), index };
        let (standing, trouble) = look(plan, meta, &key, &input, stored).await?;
        let Some(trouble) = trouble else { continue };
        let decision = standing.decide(choice).map_err(|unfit| {
            coded(Exit::Conflict, anyhow!("partition {index}: {trouble}; {unfit}"))
        })?;
        steps.push(Step { key, trouble, decision, end: standing.log.end });
    }
    Ok(steps)
}

/// Where a cursor and its log stand, and what does not fit.
async fn look(
    plan: &Plan,
    meta: &Meta,
    key: &CursorKey,
    input: &PartitionId,
    stored: Option<&Cursor>,
) -> anyhow::Result<(Standing, Option<String>)> {
    let glance = offline::glance(&plan.log_dir(), input)?;
    let remembered = meta.remembered(key).await?;
    let log = glance.bounds;
    let life = stored.map(|cursor| cursor.incarnation);
    let branch = glance.ancestors.iter().find(|ancestor| Some(ancestor.incarnation) == life);
    let branch = branch.map(|ancestor| ancestor.until);
    let position = stored.map(|cursor| (cursor.incarnation, cursor.next));
    let standing = Standing { stored: position, remembered, log, branch };
    let Some(cursor) = stored else {
        let lost = remembered
            .map(|next| format!("the destination has no cursor, one at {next} is remembered"));
        return Ok((standing, lost));
    };
    let next = cursor.next;
    let trouble = if cursor.incarnation != log.incarnation && branch.is_none() {
        Some(format!("the cursor is of {}, the log of {}", cursor.incarnation, log.incarnation))
    } else if let Some(branch) = branch.filter(|branch| next > *branch) {
        Some(format!("the cursor stands at {next} of an earlier life, which ended at {branch}"))
    } else if next < log.start || next > log.end {
        Some(format!("the cursor stands at {next}, the log holds [{}, {}]", log.start, log.end))
    } else if glance.fingerprint(input, next)?.0 != cursor.fingerprint {
        Some(format!("the entry before {next} is not the one the cursor was written for"))
    } else {
        quarantine_trouble(plan, key, cursor, branch.is_some())?
    };
    Ok((standing, trouble))
}

fn quarantine_trouble(
    plan: &Plan,
    key: &CursorKey,
    cursor: &Cursor,
    is_of_an_earlier_life: bool,
) -> anyhow::Result<Option<String>> {
    let at = PartitionId { stream: quarantine_stream(key.pipeline), index: 0 };
    let glance = offline::glance(&plan.log_dir(), &at)?;
    let branch = glance.ancestors.last().filter(|_| is_of_an_earlier_life);
    let end = branch.map_or(glance.bounds.end, |branch| branch.until);
    let next = cursor.quarantine_next;
    let fits = next == LogOffset::ZERO || (glance.bounds.start <= next && next <= end);
    Ok((!fits)
        .then(|| format!("the cursor needs quarantine entries up to {next}, there are {end}")))
}

/// Shows the plan before it asks.
fn confirm_quietly(steps: &[Step], pipeline: &str, consent: Consent) -> anyhow::Result<Answer> {
    for step in steps {
        eprintln_quietly(&format!("partition {}: {}", step.key.partition, step.trouble));
        eprintln_quietly(&format!("  {}", step.tells()));
    }
    confirm(pipeline, consent)
}

impl Step {
    fn tells(&self) -> String {
        let Decision { choice, to, gap_from, .. } = self.decision;
        let again = self.end.0.saturating_sub(to.0);
        match (choice, gap_from) {
            (Choice::Rewind, _) => format!("delivered again from {to}: {again} entries"),
            (_, Some(from)) => {
                format!(
                    "goes on at {to}; {} entries are counted as a gap",
                    to.0.saturating_sub(from.0)
                )
            }
            _ => format!("goes on at {to}: everything below is taken as delivered"),
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "partition": self.key.partition,
            "why": self.trouble,
            "from": self.decision.stored.map(|(_, next)| next.0),
            "to": self.decision.to.0,
            "end": self.end.0,
            "gap_from": self.decision.gap_from.map(|from| from.0),
        })
    }
}

fn table(steps: &[Step], decided: bool) -> Table {
    let mut table = Table::new(&["PARTITION", "FROM", "TO", "END", "CHOICE", "STATE"]);
    for step in steps {
        let from = step.decision.stored.map_or("none".into(), |(_, next)| next.to_string());
        table.row([
            step.key.partition.to_string(),
            from,
            step.decision.to.to_string(),
            step.end.to_string(),
            step.decision.choice.name().into(),
            if decided { "decided" } else { "not decided: this is the plan" }.into(),
        ]);
    }
    table
}

/// Asks a running core to start the pipeline now. `false`: it runs already, or starts by itself soon.
async fn start(core: &Core, pipeline: &str) -> anyhow::Result<bool> {
    match core.post(&format!("/v1/resume/{pipeline}")).await {
        Ok(()) => Ok(true),
        Err(error) if exit_of(&error) == Some(Exit::Conflict) => {
            eprintln_quietly(&format!("garam: {error:#}"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn exit_of(error: &anyhow::Error) -> Option<Exit> {
    error.downcast_ref::<Coded>().map(|coded| coded.exit)
}
