//! `garam replay`: has a pipeline deliver again what its log still holds, from a time or a place on.
//!
//! In: destination, log and metadata, of a running core or a stopped one. Out: the plan, by partition; with consent a request in
//! the metadata, which the pipeline's carrier carries out within a second, or when the core is started. Promise: what would not
//! be exact is refused, or said when it is forced; a request of one id is carried out once. Not here: carrying it out (`actors::replay`).

use anyhow::anyhow;
use garam_log::inspect::entries;
use garam_log::{Bounds, EntryBody, offline};
use garam_meta::{Meta, RequestRecord};
use garam_proto::{LogOffset, PartitionId, PipelineId};
use garam_stage::{Cursor, CursorKey, SlotRange};
use serde_json::{Value, json};
use uuid::Uuid;

use super::confirm::{Answer, Consent, confirm};
use super::dlq::wait;
use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table, bytes};
use super::query::choose;
use crate::actors::replay::{REPLAY, Target};
use crate::config::{PipelinePlan, Plan, Target as To};
use crate::enrol::{Audit, Event, Outcome};
use crate::gateway::wall_clock_us;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam replay orders-to-db --from 2h --dry-run\n  garam replay orders-to-db --from 2026-11-27T09:00:00Z --yes --wait 60\n  \
garam replay orders-to-db --partition 3 --from 17000 --yes\n\nThe pipeline ends behind the batch in its hands, its cursors are moved back in the destination, and it goes on from there. Tables in append or\n\
ignore mode, or with a guard (version = \"COLUMN\"), are as before where rows are there already; others are refused. What is in the quarantine stays\n\
there. The core may run or not.\n\
Exit codes: 0 ok, 2 usage or consent missing, 3 nothing to replay, 4 not carried out within --wait, 6 the table has no guard, or the log does not reach so far back."
)]
pub(crate) struct Args {
    /// Which pipeline.
    pipeline: String,
    /// A time, by arrival at the gateway (2026-11-27T09:00:00Z); a span back from now (2h); or an offset of the log.
    #[arg(long)]
    from: Place,
    /// Only this partition; needed with an offset where there are several.
    #[arg(long)]
    partition: Option<u32>,
    /// Also into a table where that is not exact.
    #[arg(long)]
    force: bool,
    /// An id of one's own: asked for again with the same one, nothing more happens.
    #[arg(long, value_name = "UUID")]
    request: Option<Uuid>,
    /// Wait so many seconds for a running core to move the cursors; exit 4 when it has not.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Microseconds since the epoch.
    Time(i64),
    Offset(LogOffset),
}

/// What is planned for one partition.
struct Step {
    target: Target,
    cursor: LogOffset,
    records: u64,
    /// As they were read.
    bytes: u64,
}

pub(crate) fn replay(plan: &Plan, args: &Args, format: Format) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(&args.pipeline))?;
    refuse_inexact(pipeline, args.force)?;
    let id = super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        known(&meta, pipeline, args.request).await
    })?;
    let id = match id {
        Asked::Before(request) => return tell_again(pipeline, &request, format),
        Asked::Never(id) => id,
    };
    let steps = steps(plan, pipeline, id, args)?;
    for step in &steps {
        eprintln_quietly(&step.tells());
    }
    if args.force && !pipeline.to.survives_rewind() {
        eprintln_quietly(&format!("forced: {}", inexact(pipeline)));
    }
    let mut kept = None;
    if confirm(&pipeline.name, args.consent)? == Answer::Go {
        kept = Some(keep(plan, pipeline, id, &steps, args)?);
    }
    let mut is_done = false;
    if let (Some(id), Some(seconds)) = (kept, args.wait) {
        let done = wait(plan, id, std::time::Duration::from_secs(seconds))?;
        if done.is_void {
            let text = format!("request {id} came to nothing: the log has changed; ask again");
            return Err(coded(Exit::Conflict, anyhow!(text)));
        }
        is_done = true;
    }
    let value = json!({
        "pipeline": pipeline.name,
        "request": kept.map(|id| id.to_string()),
        "done": is_done,
        "partitions": steps.iter().map(Step::as_json).collect::<Vec<_>>(),
    });
    let mut table = Table::new(&["PARTITION", "FROM", "CURSOR", "RECORDS", "BYTES", "REQUEST"]);
    for step in &steps {
        table.row([
            step.target.partition.to_string(),
            step.target.to.to_string(),
            step.cursor.to_string(),
            step.records.to_string(),
            bytes(step.bytes),
            kept.map_or("not asked: this is the plan".into(), |id| id.to_string()),
        ]);
    }
    output::print(format, &value, &table)?;
    Ok(Exit::Ok)
}

enum Asked {
    Before(RequestRecord),
    /// Of this pipeline.
    Never(PipelineId),
}

async fn known(
    meta: &Meta,
    pipeline: &PipelinePlan,
    request: Option<Uuid>,
) -> anyhow::Result<Asked> {
    let requests = meta.requests().await?;
    if let Some(before) = requests.into_iter().find(|known| Some(known.id) == request) {
        return Ok(Asked::Before(before));
    }
    let known = meta.pipelines().await?;
    let known = known.into_iter().find(|known| known.name == pipeline.name);
    let id = known.map(|known| known.id).ok_or_else(|| {
        coded(Exit::NotFound, anyhow!("pipeline {} has never run", pipeline.name))
    })?;
    Ok(Asked::Never(id))
}

fn tell_again(
    pipeline: &PipelinePlan,
    request: &RequestRecord,
    format: Format,
) -> anyhow::Result<Exit> {
    let state = if request.done.is_some() { "carried out" } else { "kept" };
    let value = json!({
        "pipeline": pipeline.name,
        "request": request.id.to_string(),
        "done": request.done.is_some(),
        "partitions": [],
    });
    output::print_text(format, &value, &format!("request {} is {state} already\n", request.id))?;
    Ok(Exit::Ok)
}

/// What happens in a table where rows that come again are not as if they had not.
fn inexact(pipeline: &PipelinePlan) -> String {
    let To::Sink(sink) = &pipeline.to else { return "the stream takes it again".into() };
    let identity = sink.identity();
    let mode = identity.iter().find(|(name, _)| *name == "mode");
    match mode.map(|(_, mode)| mode.as_str()) {
        Some("insert") => "records whose key is there already are put aside".into(),
        _ => "old rows are put over newer ones until the log is caught up".into(),
    }
}

/// Refuses what would not be exact, unless forced, and what would come to nothing.
fn refuse_inexact(pipeline: &PipelinePlan, force: bool) -> anyhow::Result<()> {
    if let To::Stream(target) = &pipeline.to {
        let (name, stream) = (&pipeline.name, &target.stream);
        let text = format!(
            "pipeline {name} writes stream {stream}, which keeps each record once: a replay would add nothing to it; replay a \
             pipeline that reads {stream}"
        );
        return Err(coded(Exit::Conflict, anyhow!(text)));
    }
    if force || pipeline.to.survives_rewind() {
        return Ok(());
    }
    let text = format!(
        "pipeline {} cannot be replayed exactly: {}; configure a guard (version = \"COLUMN\"), or say --force",
        pipeline.name,
        inexact(pipeline)
    );
    Err(coded(Exit::Conflict, anyhow!(text)))
}

fn steps(
    plan: &Plan,
    pipeline: &PipelinePlan,
    id: PipelineId,
    args: &Args,
) -> anyhow::Result<Vec<Step>> {
    let partitions = plan.stream(&pipeline.from).map_or(0, |stream| stream.partitions);
    if let Some(only) = args.partition.filter(|only| *only >= partitions) {
        let text = format!("stream {} has no partition {only}", pipeline.from);
        return Err(coded(Exit::NotFound, anyhow!(text)));
    }
    if matches!(args.from, Place::Offset(_)) && args.partition.is_none() && partitions > 1 {
        let text = "an offset is of one partition: say --partition";
        return Err(coded(Exit::Usage, anyhow!(text)));
    }
    let key = |index| CursorKey { pipeline: id, partition: index, slots: SlotRange::ALL };
    let keys: Vec<_> = (0..partitions).map(key).collect();
    let cursors = super::block_on(pipeline.to.read_cursors(&plan.log_dir(), &keys))?;
    let mut steps = Vec::new();
    for index in (0..partitions).filter(|index| args.partition.is_none_or(|only| only == *index)) {
        let Some(cursor) = cursors.iter().find(|cursor| cursor.key == key(index)) else { continue };
        let input = PartitionId { stream: pipeline.from.clone(), index };
        steps.extend(step(plan, &input, cursor, args.from)?);
    }
    if steps.is_empty() {
        let text = format!("{} has delivered nothing since then", pipeline.name);
        return Err(coded(Exit::NotFound, anyhow!(text)));
    }
    Ok(steps)
}

/// What one partition delivers again; `None`: nothing.
fn step(
    plan: &Plan,
    input: &PartitionId,
    cursor: &Cursor,
    from: Place,
) -> anyhow::Result<Option<Step>> {
    let Bounds { incarnation, start, end } = offline::glance(&plan.log_dir(), input)?.bounds;
    let conflict = |text: String| coded(Exit::Conflict, anyhow!("partition {input}: {text}"));
    if cursor.incarnation != incarnation || cursor.next < start || cursor.next > end {
        let text = "its cursor does not fit the log: see `garam status` and `garam resume`";
        return Err(conflict(text.into()));
    }
    if let Place::Offset(offset) = from
        && (offset < start || offset > cursor.next)
    {
        let text = format!("the log holds {start} to {}, not {offset}", cursor.next);
        return Err(conflict(text));
    }
    let mut found: Option<Step> = None;
    for entry in entries(&plan.log_dir(), input, Some(start))? {
        let entry = entry?;
        if entry.offset >= cursor.next {
            break;
        }
        let EntryBody::Block { header, .. } = &entry.body else { continue };
        let is_asked_for = match from {
            Place::Time(since_us) => found.is_some() || header.ingest_time_us >= since_us,
            Place::Offset(offset) => entry.offset >= offset,
        };
        if !is_asked_for {
            continue;
        }
        let to = match from {
            Place::Time(_) => entry.offset,
            Place::Offset(offset) => offset,
        };
        let step = found.get_or_insert_with(|| {
            let target = Target { partition: input.index, to, incarnation };
            Step { target, cursor: cursor.next, records: 0, bytes: 0 }
        });
        step.records += u64::from(header.records);
        step.bytes += u64::from(header.raw_len);
    }
    let is_first = found.as_ref().is_some_and(|step| step.target.to == start);
    if matches!(from, Place::Time(_)) && is_first && start > LogOffset::ZERO {
        let text = format!(
            "the log does not reach so far back: it begins at offset {start}; say --partition {} --from {start} to \
             take what there is",
            input.index
        );
        return Err(conflict(text));
    }
    Ok(found)
}

fn keep(
    plan: &Plan,
    pipeline: &PipelinePlan,
    id: PipelineId,
    steps: &[Step],
    args: &Args,
) -> anyhow::Result<Uuid> {
    let Some(first) = steps.first() else {
        return Err(coded(Exit::NotFound, anyhow!("nothing is to be delivered again")));
    };
    let request = RequestRecord {
        id: args.request.unwrap_or_else(Uuid::new_v4),
        pipeline: id,
        what: REPLAY.into(),
        reason: None,
        names: steps.iter().map(|step| step.target.to_string()).collect(),
        until: LogOffset::ZERO,
        incarnation: first.target.incarnation,
        asked_us: wall_clock_us(),
        done: None,
    };
    super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        meta.ask(&request).await?;
        let event = Event::new("replay", Outcome::Allowed).by_this_user();
        let event = event.with("pipeline", &pipeline.name).with("request", request.id);
        let event = event.with("from", request.names.join(" ")).with("forced", args.force);
        Audit::in_folder(&plan.data_dir).record(event).await;
        Ok(())
    })?;
    Ok(request.id)
}

impl Step {
    fn tells(&self) -> String {
        let Self { target, cursor, records, bytes: size } = self;
        format!(
            "partition {}: from {} on, up to the cursor at {cursor}: {records} records, {} as they were read",
            target.partition,
            target.to,
            bytes(*size)
        )
    }

    fn as_json(&self) -> Value {
        json!({
            "partition": self.target.partition,
            "from": self.target.to.0,
            "cursor": self.cursor.0,
            "records": self.records,
            "bytes": self.bytes,
        })
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(offset) = text.parse() {
            return Ok(Self::Offset(LogOffset(offset)));
        }
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::Time(time.as_microsecond()));
        }
        let span = humantime::parse_duration(text).map_err(|_| {
            "a time like 2026-11-27T09:00:00Z, a span like 2h, or an offset".to_owned()
        })?;
        let span = i64::try_from(span.as_micros()).map_err(|error| error.to_string())?;
        Ok(Self::Time(wall_clock_us().saturating_sub(span)))
    }
}
