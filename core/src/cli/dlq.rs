//! `garam dlq`: what was put aside, and why. Reads the log's files, of a live core or a stopped one.

use anyhow::anyhow;
use bytes::Bytes;
use garam_flow::quarantine_stream;
use garam_log::{EntryBody, inspect};
use garam_proto::{DecodeLimits, PartitionId, PipelineId, decompress, records};
use garam_stage::QuarantinedRecord;
use garam_stage::quarantine::WHOLE_BLOCK;
use serde_json::{Value, json};

use super::exit::{Exit, coded};
use super::output::{self, Format, Table};
use super::query::choose;
use crate::config::{PipelinePlan, Plan};

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
        /// At most this many, the newest; 0 means all.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one quarantined record whole
    #[command(after_help = "Example: garam dlq show orders-to-db 17")]
    Show {
        pipeline: String,
        /// Its number in `dlq ls`.
        number: u64,
    },
}

/// A quarantined record with its number in the pipeline's quarantine.
struct Aside {
    pipeline: String,
    number: u64,
    record: QuarantinedRecord,
    bytes: Bytes,
}

pub(crate) fn dispatch(plan: &Plan, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        Verb::Ls { pipeline, reason, limit } => {
            list(plan, pipeline.as_deref(), reason.as_deref(), limit, format)
        }
        Verb::Show { pipeline, number } => show(plan, &pipeline, number, format),
    }
}

fn list(
    plan: &Plan,
    pipeline: Option<&str>,
    reason: Option<&str>,
    limit: usize,
    format: Format,
) -> anyhow::Result<Exit> {
    let pipelines = match pipeline {
        Some(name) => vec![choose(plan, Some(name))?],
        None => plan.pipelines.iter().collect(),
    };
    let mut found = Vec::new();
    for pipeline in pipelines {
        found.extend(read(plan, pipeline)?);
    }
    found.retain(|aside| reason.is_none_or(|reason| aside.record.reason.name() == reason));
    let skip = if limit == 0 { 0 } else { found.len().saturating_sub(limit) };
    let shown = found.split_off(skip);
    let mut table = Table::new(&[
        "NUMBER", "PIPELINE", "REASON", "DETAIL", "HOST", "PATH", "POSITION", "RECORD",
    ]);
    for aside in &shown {
        let text = String::from_utf8_lossy(&aside.bytes);
        let mut glimpse: String = text.chars().take(GLIMPSE).collect();
        if glimpse.len() < text.len() {
            glimpse.push('…');
        }
        table.row([
            aside.number.to_string(),
            aside.pipeline.clone(),
            aside.record.reason.name().into(),
            aside.record.detail.clone(),
            aside.record.host.clone(),
            aside.record.path.clone(),
            aside.record.position.to_string(),
            glimpse,
        ]);
    }
    let values: Vec<_> = shown.iter().map(as_json).collect();
    output::print(format, &values, &table)?;
    Ok(Exit::Ok)
}

fn show(plan: &Plan, pipeline: &str, number: u64, format: Format) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(pipeline))?;
    let found = read(plan, pipeline)?.into_iter().find(|aside| aside.number == number);
    let Some(aside) = found else {
        return Err(coded(
            Exit::NotFound,
            anyhow!("pipeline {} has no quarantined record {number}", pipeline.name),
        ));
    };
    let record = &aside.record;
    let at = jiff::Timestamp::from_microsecond(record.time_us)
        .map(|at| at.to_string())
        .unwrap_or_default();
    let mut text = format!(
        "number    {}\nreason    {}: {}\nwhen      {at}\nhost      {}\npath      {}\nposition  {}\noffset    {}/{} entry {} record {}\n\n",
        aside.number,
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
    output::print_text(format, &as_json(&aside), &text)?;
    Ok(Exit::Ok)
}

fn as_json(aside: &Aside) -> Value {
    let record = &aside.record;
    json!({
        "number": aside.number,
        "pipeline": aside.pipeline,
        "reason": record.reason.name(),
        "detail": record.detail,
        "records": record.records,
        "host": record.host,
        "path": record.path,
        "stream": record.stream.as_str(),
        "partition": record.partition,
        "offset": record.offset,
        "index": if record.index == WHOLE_BLOCK { Value::Null } else { json!(record.index) },
        "agent": record.origin.agent.to_string(),
        "generation": record.origin.generation.to_string(),
        "position": record.position.to_string(),
        "time_us": record.time_us,
        "record": String::from_utf8_lossy(&aside.bytes),
    })
}

/// Everything in a pipeline's quarantine, oldest first.
fn read(plan: &Plan, pipeline: &PipelinePlan) -> anyhow::Result<Vec<Aside>> {
    let Some(id) = pipeline_id(plan, &pipeline.name)? else { return Ok(Vec::new()) };
    let dir = plan.log_dir();
    let stream = quarantine_stream(id);
    let partition = PartitionId { stream, index: 0 };
    if !inspect::partitions_in(&dir)?.contains(&partition) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in inspect::entries(&dir, &partition, None)? {
        let EntryBody::Block { header, payload } = entry?.body else { continue };
        let raw = decompress(header.codec, &payload, header.raw_len, &DecodeLimits::default())?;
        for record in records(&header, &Bytes::from(raw))? {
            let (quarantined, bytes) = QuarantinedRecord::decode(&record.bytes)?;
            found.push(Aside {
                pipeline: pipeline.name.clone(),
                number: found.len() as u64 + 1,
                bytes: record.bytes.slice_ref(bytes),
                record: quarantined,
            });
        }
    }
    Ok(found)
}

/// The pipeline's identity; `None` when it has never run.
fn pipeline_id(plan: &Plan, name: &str) -> anyhow::Result<Option<PipelineId>> {
    if !plan.meta_path().try_exists()? {
        return Ok(None);
    }
    super::block_on(async {
        let meta = garam_meta::Meta::open(&plan.meta_path()).await?;
        let known = meta.pipelines().await?;
        Ok(known.into_iter().find(|pipeline| pipeline.name == name).map(|pipeline| pipeline.id))
    })
}
