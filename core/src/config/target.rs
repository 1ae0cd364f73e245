//! Where a pipeline delivers: a table of a database, or another stream.

use std::path::Path;

use arrow_schema::SchemaRef;
use garam_flow::{StreamTarget, register_origin, stored_cursor};
use garam_log::offline;
use garam_proto::{PartitionId, StreamName};
use garam_sink::{Readiness, SinkConfig};
use garam_stage::{Cursor, CursorKey, Failure, HASH_VERSION, MAIN_SHARD, SlotMap};
use serde::{Deserialize, Serialize};

/// `[pipeline.NAME.to.stream]`: records of another stream, as JSON objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamTo {
    /// The stream: one of the configuration, whose contract has format `json`.
    pub name: String,
    /// Columns by whose values a record is placed: equal values lie in one partition, in the order in which they came.
    /// Default: none, records of one origin lie in one partition.
    #[serde(default)]
    pub key: Vec<String>,
}

/// A checked destination.
#[derive(Debug, Clone)]
pub enum Target {
    Sink(SinkConfig),
    Stream(StreamTarget),
}

impl Target {
    /// What the operator calls it.
    pub fn label(&self) -> String {
        match self {
            Self::Sink(sink) => sink.label(),
            Self::Stream(target) => format!("stream {}", target.stream),
        }
    }

    /// As `[pipeline.NAME.to.KIND]` spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sink(sink) => sink.kind(),
            Self::Stream(_) => "stream",
        }
    }

    /// Checks it against the rows to come, without touching anything.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), Failure> {
        match self {
            Self::Sink(sink) => sink.check(schema),
            Self::Stream(target) => target.check(schema),
        }
    }

    /// What of it decides where rows go: a line of the plan; a table takes every row.
    pub fn placement(&self, partitions: impl Fn(&StreamName) -> u32) -> Option<String> {
        let Self::Stream(StreamTarget { stream, key }) = self else { return None };
        let partitions = partitions(stream);
        Some(format!(
            "stream {stream} partitions {partitions} hash {HASH_VERSION} key {}",
            key.join(" ")
        ))
    }

    /// Which shard takes which keys at the pipeline's first start. A stream is one place.
    pub fn first_map(&self) -> SlotMap {
        match self {
            Self::Sink(sink) => sink.first_map(),
            Self::Stream(_) => SlotMap::even(0, &[MAIN_SHARD]),
        }
    }

    /// Whether records that are delivered again leave it as it is.
    pub fn survives_rewind(&self) -> bool {
        match self {
            Self::Sink(sink) => sink.survives_rewind(),
            // What is in the stream is below its mark and is not appended again.
            Self::Stream(_) => true,
        }
    }

    /// The cursors among `keys` that it keeps, while no core writes.
    pub async fn read_cursors(
        &self,
        log_dir: &Path,
        keys: &[CursorKey],
    ) -> anyhow::Result<Vec<Cursor>> {
        match self {
            Self::Sink(sink) => Ok(sink.read_cursors().await?),
            Self::Stream(target) => registered(target, log_dir, keys),
        }
    }

    /// Reaches it and says what the pipeline would find, changing nothing.
    pub async fn connect(&self, schema: &SchemaRef) -> Result<Readiness, Failure> {
        match self {
            Self::Sink(sink) => sink.connect(schema).await,
            Self::Stream(target) => target.check(schema).map(|()| Readiness::Ready),
        }
    }
}

fn registered(
    target: &StreamTarget,
    log_dir: &Path,
    keys: &[CursorKey],
) -> anyhow::Result<Vec<Cursor>> {
    let at = PartitionId { stream: target.stream.clone(), index: 0 };
    let glance = offline::glance(log_dir, &at)?;
    let mut cursors = Vec::new();
    for key in keys {
        let state = glance.origin(&at, &register_origin(key))?;
        if let Some(resume) = state.and_then(|state| state.resume) {
            cursors.push(stored_cursor(key, &resume)?);
        }
    }
    Ok(cursors)
}
