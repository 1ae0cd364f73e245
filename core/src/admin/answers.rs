//! What the admin port answers: the stable JSON that the command line and other programs read.

use serde::{Deserialize, Serialize};

/// Whether all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Healthy,
    Degraded,
}

/// `/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    pub verdict: Verdict,
    /// Why it is not healthy, one sentence each.
    pub why: Vec<String>,
    pub version: String,
    pub cluster: String,
    pub uptime_s: u64,
    pub agents: Vec<AgentAnswer>,
    pub streams: Vec<StreamAnswer>,
    pub pipelines: Vec<PipelineAnswer>,
    #[serde(default)]
    pub dimensions: Vec<DimensionAnswer>,
    /// How the newest reading of a changed configuration went; null before the first.
    #[serde(default)]
    pub reload: Option<ReloadAnswer>,
}

/// A reading of the configuration while the core ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// Microseconds since the epoch.
    pub at_us: i64,
    /// Why it is not in force; null when it is.
    pub error: Option<String>,
}

/// A connected agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentAnswer {
    pub agent: String,
    pub host: String,
    pub peer: String,
    pub build: String,
    pub connected_s: u64,
}

/// A stream, summed over its partitions. Offsets are entries; `bytes` is what lies on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamAnswer {
    pub name: String,
    pub partitions: u32,
    pub start: u64,
    pub end: u64,
    pub bytes: u64,
    pub origins: u64,
    pub records: u64,
    pub state: String,
}

/// A pipeline, summed over its partitions and its requeue lane. Counts are records since the pipeline's first start, exact:
/// `records_in = delivered + quarantined + dropped`, where a record that is requeued comes in, and may be put aside, again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineAnswer {
    pub name: String,
    pub stream: String,
    pub destination: String,
    pub state: String,
    /// The reason, while an operator lets it wait.
    #[serde(default)]
    pub paused: Option<String>,
    pub records_in: u64,
    /// Of `records_in`, those that came out of the quarantine.
    #[serde(default)]
    pub requeued: u64,
    /// In the quarantine now, neither requeued nor purged.
    #[serde(default)]
    pub waiting: u64,
    pub delivered: u64,
    pub quarantined: u64,
    pub dropped: u64,
    pub gap: u64,
    pub lag_entries: u64,
    /// Null where it writes a stream.
    #[serde(default)]
    pub sink: Option<SinkAnswer>,
}

/// What a pipeline's destination did since the core started; nothing of it is kept over a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SinkAnswer {
    pub table: String,
    /// Rows committed, and their size in memory.
    pub rows: u64,
    pub bytes: u64,
    /// Writes of rows that were committed, and the seconds they took together.
    pub batches: u64,
    pub write_s: f64,
    /// Rows it would not take.
    pub refused: u64,
    /// Records dropped because a newer row was there.
    pub stale: u64,
    /// Writes that lost against others or whose outcome was unknown, and writes that failed otherwise.
    pub retries: u64,
    pub failures: u64,
    /// Connections opened: more than one a partition and one for the requeue lane are reconnections.
    pub connections: u64,
}

/// `/v1/dimensions`, one each; `/v1/dimensions/NAME`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DimensionAnswer {
    pub name: String,
    pub source: String,
    /// `ok`; `stale`: the newest try failed, its last good rows are used; `absent`: it was never read.
    pub state: String,
    pub rows: Option<u64>,
    /// In memory.
    pub bytes: Option<u64>,
    /// Names the rows and their columns.
    pub snapshot: Option<String>,
    /// When these rows were read, and what time that was at the source, where it says so.
    pub loaded_at: Option<String>,
    pub source_at: Option<String>,
    /// Seconds since the source was last known to hold these rows.
    pub age_s: Option<f64>,
    /// Read back from this core's disk, and not confirmed by the source since.
    pub from_disk: bool,
    pub refresh_s: u64,
    pub key: Vec<String>,
    /// `name type`, with `not null` behind it where that holds; types as Arrow has them.
    pub columns: Vec<String>,
    /// `null`, `default` or `quarantine`.
    pub missing: String,
    /// The pipelines that join it.
    pub pipelines: Vec<String>,
    /// Refreshes since the start of the core.
    pub refreshed: u64,
    pub failed: u64,
    /// Why the newest try failed, while that holds.
    pub error: Option<String>,
}

/// `POST /v1/dimensions/NAME/refresh`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefreshAnswer {
    pub name: String,
    /// Whether other rows than before are used now.
    pub swapped: bool,
    pub rows: Option<u64>,
    pub snapshot: Option<String>,
}

/// `/v1/lag`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LagAnswer {
    pub pipelines: Vec<PartitionLag>,
}

/// How far a pipeline is behind in one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartitionLag {
    pub pipeline: String,
    pub stream: String,
    pub partition: u32,
    /// First offset not delivered yet.
    pub next: u64,
    /// One past the last durable offset.
    pub end: u64,
    pub lag_entries: u64,
    /// Age of the oldest entry not delivered, by arrival at the gateway; null when unknown, 0 when there is none.
    pub lag_s: Option<f64>,
    pub state: String,
}
