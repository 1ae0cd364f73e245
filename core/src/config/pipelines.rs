//! Checked pipelines: what each reads, joins and writes is there and fits, and no two get in each other's way.
//!
//! In: `[pipeline.NAME]`, the checked streams and dimensions. Out: [`PipelinePlan`]. Not here: planning SQL (`refining`), what a
//! destination is (`target`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use garam_dimension::DimensionPlan;
use garam_flow::StreamTarget;
use garam_proto::StreamName;
use garam_sink::{SinkConfig, Truncate};
use garam_stage::{Dimension, Format, Snapshots};

use super::plan::{StreamPlan, bounds, invalid, range};
use super::{
    ConfigError, PipelineConfig, QuarantineConfig, Refining, Start, StreamTo, Target, To, UseConfig,
};

#[derive(Debug, Clone)]
pub struct PipelinePlan {
    pub name: String,
    pub from: StreamName,
    pub refining: Refining,
    pub start: Start,
    pub max_rows: u32,
    pub max_wait: Duration,
    pub quarantine: QuarantineConfig,
    pub to: Target,
}

/// The dimensions as a pipeline's SQL may join them.
fn check_uses(
    pipeline: &str,
    uses: &BTreeMap<String, UseConfig>,
    dimensions: &[DimensionPlan],
) -> Result<Vec<Dimension>, ConfigError> {
    let key = |name: &str| format!("pipeline.{pipeline}.dimension.{name}");
    if let Some(name) = uses.keys().find(|name| dimensions.iter().all(|d| d.name() != *name)) {
        let known: Vec<_> = dimensions.iter().map(DimensionPlan::name).collect();
        let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let text = format!("dimension {name} is not configured; there is {there}");
        return invalid(&key(name), text);
    }
    let as_used = |dimension: &DimensionPlan| {
        let declared = dimension.shape.dimension().clone();
        let written = uses.get(dimension.name()).and_then(|written| written.missing);
        let missing = written.unwrap_or(declared.missing);
        let key = format!("{}.missing", key(dimension.name()));
        dimension.shape.allows(missing).or_else(|e| invalid(&key, e.why))?;
        Ok(Dimension { missing, ..declared })
    };
    dimensions.iter().map(as_used).collect()
}

pub(super) fn check_pipeline(
    name: String,
    pipeline: PipelineConfig,
    streams: &[StreamPlan],
    dimensions: &[DimensionPlan],
    snapshots: &Snapshots,
) -> Result<PipelinePlan, ConfigError> {
    let key = |field: &str| format!("pipeline.{name}.{field}");
    if let Err(error) = StreamName::new(name.as_str()) {
        return invalid(&format!("pipeline.{name}"), error.to_string());
    }
    let Some(stream) = streams.iter().find(|stream| stream.name.as_str() == pipeline.from) else {
        let known: Vec<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
        return invalid(
            &key("from"),
            format!("stream {} is not configured; there is {}", pipeline.from, known.join(", ")),
        );
    };
    range(&key("max_rows"), pipeline.max_rows, 1, 64_000)?;
    if pipeline.max_wait > Duration::from_secs(60) {
        return invalid(&key("max_wait"), "more than 60s".into());
    }
    let quarantine = pipeline.quarantine;
    bounds(&key("quarantine.quota"), quarantine.quota, ByteSize::mib(64), ByteSize::tib(1))?;
    if !(0.0..=1.0).contains(&quarantine.max_share) {
        return invalid(&key("quarantine.max_share"), "out of bounds: 0 to 1".into());
    }
    if quarantine.max_share_from == 0 {
        return invalid(&key("quarantine.max_share_from"), "out of bounds: 1 and more".into());
    }
    let tables = check_uses(&name, &pipeline.dimension, dimensions)?;
    let (contract, refiner) = (&stream.contract, Arc::clone(&stream.refiner));
    let refining = Refining::new(contract, refiner, pipeline.sql, tables, snapshots);
    let refining = refining.or_else(|why| invalid(&key("sql"), why))?;
    if let Some(name) = pipeline.dimension.keys().find(|name| !refining.joins().contains(name)) {
        let text = format!(
            "the pipeline's SQL does not join it: write `join {name} using (…)`, or leave this out"
        );
        return invalid(&key(&format!("dimension.{name}")), text);
    }
    let to = one_target(&name, pipeline.to, streams)?;
    if let (Target::Stream(_), Some(joined)) = (&to, refining.joins().first()) {
        let text = format!(
            "records of a stream are placed once, and a batch that a crash cut short would be made again with newer rows of {joined}: \
             write the stream without the join, and join in the pipeline that reads it"
        );
        return invalid(&key("to.stream"), text);
    }
    if stream.contract.has_changes() {
        check_changes(&name, stream, &refining, &to)?;
    }
    if let Err(error) = to.check(&refining.schema()) {
        return invalid(&key(&format!("to.{}", to.kind())), error.to_string());
    }
    Ok(PipelinePlan {
        from: stream.name.clone(),
        refining,
        start: pipeline.start,
        max_rows: pipeline.max_rows,
        max_wait: pipeline.max_wait,
        quarantine,
        to,
        name,
    })
}

/// Row changes and what the pipeline does with them: a change that gets lost would leave a wrong row behind.
fn check_changes(
    name: &str,
    stream: &StreamPlan,
    refining: &Refining,
    to: &Target,
) -> Result<(), ConfigError> {
    let key = |field: &str| format!("pipeline.{name}.{field}");
    let Target::Sink(sink) = to else {
        let text = "records of a stream are plain objects, and a delete among them would read as a row: deliver row changes into tables";
        return invalid(&key("to.stream"), text.into());
    };
    if sink.keeps_history() {
        return Ok(());
    }
    if !refining.keeps_every_row() {
        let text = "a row that the SQL leaves out or puts aside would stay in the table as it was before: write no `where`, only left joins, and dimensions with missing = \"null\" or \"default\"; filter where the table is read";
        return invalid(&key("sql"), text.into());
    }
    if sink.truncate() == Some(Truncate::Apply) && stream.partitions > 1 {
        let text = format!(
            "truncate = \"apply\" needs one order of all rows, and stream {} has {} partitions: say partitions = 1, or \"pause\" or \"ignore\"",
            stream.name, stream.partitions
        );
        return invalid(&key(&format!("to.{}.truncate", to.kind())), text);
    }
    Ok(())
}

fn one_target(name: &str, to: To, streams: &[StreamPlan]) -> Result<Target, ConfigError> {
    let key = format!("pipeline.{name}.to");
    let To { mysql, postgres, sqlite, stream } = to;
    let mysql = mysql.map(|config| SinkConfig::MySql(Box::new(config)));
    let postgres = postgres.map(|config| SinkConfig::Postgres(Box::new(config)));
    let sinks = mysql.into_iter().chain(postgres).chain(sqlite.map(SinkConfig::Sqlite));
    let stream = stream.map(|to| check_stream_to(&key, to, streams)).transpose()?;
    let mut targets = sinks.map(Target::Sink).chain(stream.map(Target::Stream));
    match (targets.next(), targets.next()) {
        (Some(target), None) => Ok(target),
        (None, _) => {
            let kinds = ["mysql", "postgres", "sqlite", "stream"];
            let kinds = kinds.map(|to| format!("[pipeline.{name}.to.{to}]"));
            invalid(&key, format!("no destination: add one of {}", kinds.join(", ")))
        }
        (Some(_), Some(_)) => {
            invalid(&key, "two destinations: a pipeline has one, make another pipeline".into())
        }
    }
}

fn check_stream_to(
    key: &str,
    to: StreamTo,
    streams: &[StreamPlan],
) -> Result<StreamTarget, ConfigError> {
    let Some(stream) = streams.iter().find(|stream| stream.name.as_str() == to.name) else {
        let known: Vec<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
        let text = format!("stream {} is not configured; there is {}", to.name, known.join(", "));
        return invalid(&format!("{key}.stream.name"), text);
    };
    if stream.contract.format != Format::Json {
        let text = format!(
            "the contract of stream {} has format {}: records come as JSON objects, say format = \"json\"",
            to.name, stream.contract.format
        );
        return invalid(&format!("{key}.stream.name"), text);
    }
    Ok(StreamTarget { stream: stream.name.clone(), key: to.key })
}

/// Streams that feed each other would never be empty.
pub(super) fn check_circles(pipelines: &[PipelinePlan]) -> Result<(), ConfigError> {
    for pipeline in pipelines {
        let mut reached = vec![&pipeline.from];
        let mut at = 0;
        while let Some(from) = reached.get(at).copied() {
            at += 1;
            for next in pipelines.iter().filter(|next| next.from == *from) {
                let Target::Stream(target) = &next.to else { continue };
                if target.stream == pipeline.from {
                    let text = format!(
                        "stream {} would come back to itself through pipeline {}",
                        pipeline.from, next.name
                    );
                    return invalid(&format!("pipeline.{}.to.stream.name", next.name), text);
                }
                if !reached.contains(&&target.stream) {
                    reached.push(&target.stream);
                }
            }
        }
    }
    Ok(())
}

/// Two pipelines that write one table would fight over its rows. A stream takes records of any number of pipelines.
pub(super) fn check_targets(pipelines: &[PipelinePlan]) -> Result<(), ConfigError> {
    let tables = |pipeline: &'_ PipelinePlan| match &pipeline.to {
        Target::Sink(sink) => {
            let of = |(_, shard): (String, SinkConfig)| {
                let (place, table) = shard.target();
                (shard.kind(), place, table.to_owned())
            };
            sink.shards().into_iter().map(of).collect()
        }
        Target::Stream(_) => Vec::new(),
    };
    for (i, pipeline) in pipelines.iter().enumerate() {
        let own = tables(pipeline);
        let same = |other: &&PipelinePlan| tables(other).iter().any(|other| own.contains(other));
        if let Some(other) = pipelines.iter().take(i).find(same) {
            return invalid(
                &format!("pipeline.{}.to.{}.table", pipeline.name, pipeline.to.kind()),
                format!("pipeline {} writes the same table of the same database", other.name),
            );
        }
    }
    Ok(())
}
