//! The core's configuration: what `garam.toml` and `conf.d/*.toml` say, parsed, merged and checked once.
//!
//! In: files. Out: [`Plan`], the checked form that every room is built from; no room validates again.
//! Promise: an unknown key, a key given twice, a bad value or a reference to something that does not exist is refused
//! with the file, the key and what to do, before anything is opened. Each field documents meaning, default and bounds.
//! Not here: what the rooms make of their part (`app`).

pub mod change;
mod load;
mod pipelines;
mod plan;
mod recipe;
mod refining;
mod target;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use garam_dimension::DimensionConfig;
use garam_stage::{ContractConfig, Missing};
use serde::Deserialize;

pub use load::{ConfigError, load, parse};
pub use pipelines::PipelinePlan;
pub use plan::{AdminPlan, Plan, PolicyPlan, StreamPlan};
pub use recipe::{Recipe, Remade, plan_id, plan_text};
pub use refining::Refining;
pub use target::{StreamTo, Target};

/// Where `garam` looks when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/garam/garam.toml";

/// The whole configuration as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the core keeps everything: log, metadata, certificates. Default `/var/lib/garam`.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    #[serde(default)]
    pub gateway: GatewayConfig,
    #[serde(default)]
    pub admin: AdminConfig,
    #[serde(default)]
    pub log: LogConfig,
    #[serde(default)]
    pub pki: PkiConfig,
    /// `[policy.NAME]`: what agents may do that carry it.
    #[serde(default)]
    pub policy: BTreeMap<String, PolicyConfig>,
    /// `[stream.NAME]`: at least one.
    #[serde(default)]
    pub stream: BTreeMap<String, StreamConfig>,
    /// `[dimension.NAME]`: tables to join.
    #[serde(default)]
    pub dimension: BTreeMap<String, DimensionConfig>,
    /// `[pipeline.NAME]`.
    #[serde(default)]
    pub pipeline: BTreeMap<String, PipelineConfig>,
}

/// The door for agents.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address and port for agents. Default `0.0.0.0:7470`.
    pub listen: SocketAddr,
    /// Address and port where hosts with a token become agents. Default: nowhere.
    pub enrol_listen: Option<SocketAddr>,
    /// Names and addresses the server certificate is valid for. Default: this host's name, `localhost`, `127.0.0.1`
    /// and `::1`.
    pub names: Vec<String>,
    /// Unacknowledged payload bytes allowed per agent, stream and partition. Default 8 MiB; 1 MiB to 256 MiB.
    pub window: ByteSize,
    /// Largest record in raw bytes. Default 16 MiB; 64 KiB to 64 MiB.
    pub max_record: ByteSize,
    /// Payload bytes in flight over all agents, between socket and stable storage. Default 256 MiB; at least `window`
    /// and `max_record`.
    pub max_in_flight: ByteSize,
    /// The share of one agent in that; at least `window` and `max_record`, at most `max_in_flight`. Default 64 MiB, within these
    /// bounds.
    pub max_in_flight_per_agent: Option<ByteSize>,
    /// Sessions at once. Default 4096; 1 to 65536.
    pub max_sessions: u32,
    /// Connections that are no sessions yet, waiting for their turn or in their handshake. Default 4096; 16 to 65536.
    pub max_half_open: u32,
    /// Of them, of one address (of v6: one /64). Default 1024; 1 to 65536.
    pub max_half_open_per_address: u32,
    /// Handshakes worked on at once, the others wait in the order of coming; one address has at most an eighth of them. Default 128;
    /// 8 to 4096.
    pub max_handshakes: u32,
    /// How long a peer may take for its first byte, and then for the TLS handshake and its greeting. Default 10 s; 100 ms to
    /// 10 min, like the other two.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long a session may be silent. Default 60 s; agents send a ping after 10 s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a frame may take from its first byte to its last, and one second more for every 64 KiB of it that have come; also how
    /// long an agent may leave its answers unread. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub frame_timeout: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7470)),
            enrol_listen: None,
            names: Vec::new(),
            window: ByteSize::mib(8),
            max_record: ByteSize::mib(16),
            max_in_flight: ByteSize::mib(256),
            max_in_flight_per_agent: None,
            max_sessions: 4096,
            max_half_open: 4096,
            max_half_open_per_address: 1024,
            max_handshakes: 128,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            frame_timeout: Duration::from_secs(30),
        }
    }
}

/// Health, metrics and operators' questions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Plain HTTP for probes and Prometheus: health and metrics, nothing else. Default `127.0.0.1:7479`; a loopback address.
    pub listen: SocketAddr,
    /// Where the command line asks: only the core's user and root may. Default `DATA_DIR/admin.sock`; at most 107 bytes.
    pub socket: Option<PathBuf>,
    /// Address and port for operators on other machines, over mutual TLS with certificates of `garam admin issue`. Default:
    /// nowhere.
    pub remote_listen: Option<SocketAddr>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7479));
        Self { listen, socket: None, remote_listen: None }
    }
}

/// The embedded log as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A segment is closed at this size. Default 64 MiB; 1 MiB to 1 GiB.
    pub segment_size: ByteSize,
    /// Kept free on the log's disk for cursors, quarantines, metadata and a tail's copy when it is full. Default 64 MiB;
    /// up to 16 GiB, 0 keeps none.
    pub reserve: ByteSize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_size: ByteSize::mib(64), reserve: ByteSize::mib(64) }
    }
}

/// Where the certificates lie, and how long those of agents live.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PkiConfig {
    /// Folder made by `garam ca init`. Default `DATA_DIR/pki`.
    pub dir: Option<PathBuf>,
    /// How long the certificate of an enrolled agent lives; it is renewed when 70 to 90 % of that have passed. Default 24 h;
    /// 10 s to 1 year.
    #[serde(with = "humantime_serde")]
    pub agent_life: Duration,
    /// How long after its certificate's end an agent may come back by its key alone. Default 30 days; 0 to 1 year.
    #[serde(with = "humantime_serde")]
    pub recover_within: Duration,
    /// How often it may do so until it is enrolled anew. Default 10; 0 to 1000.
    pub recoveries: u32,
}

impl Default for PkiConfig {
    fn default() -> Self {
        Self {
            dir: None,
            agent_life: Duration::from_secs(24 * 3600),
            recover_within: Duration::from_secs(30 * 24 * 3600),
            recoveries: 10,
        }
    }
}

/// What an agent may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// The streams it may write to, as globs. At least one.
    pub streams: Vec<String>,
    /// Payload bytes a second. Default: no limit; 64 KiB and more.
    #[serde(default)]
    pub rate: Option<ByteSize>,
    /// Its largest record in raw bytes, below `gateway.max_record`. Default: that; 64 KiB and more.
    #[serde(default)]
    pub max_record: Option<ByteSize>,
}

/// A named, partitioned, durable log of blocks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// `embedded`: on this core's disk.
    #[serde(default)]
    pub backend: Backend,
    /// How many partitions; more later affect new lineages only. Default 1; 1 to 256.
    #[serde(default = "one")]
    pub partitions: u32,
    /// How long blocks stay beyond the slowest cursor. Default 24 h.
    #[serde(default = "default_retain", with = "humantime_serde")]
    pub retain: Duration,
    /// Most bytes on disk. `retain` yields to it, a cursor never does. Default 20 GiB; at least 64 MiB.
    #[serde(default = "default_quota")]
    pub quota: ByteSize,
    /// What happens when a cursor holds the quota. Default `stop_stream`.
    #[serde(default)]
    pub on_full: OnFull,
    /// Live origins per partition. Default 100 000.
    #[serde(default = "default_max_origins")]
    pub max_origins: u32,
    /// Default: whole lines as text in a column `line`.
    #[serde(default)]
    pub contract: Option<ContractConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    #[default]
    Embedded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The stream's agents hold.
    #[default]
    StopStream,
    /// After half a minute the stream goes on without that pipeline, which finds a counted gap when it comes back.
    Detach,
}

/// Reads one stream and delivers to one destination.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// The stream it reads.
    pub from: String,
    /// What becomes of the rows by the contract, which are called `input`: `"select id, lower(name) as name from input where id > 0"`.
    /// One record at a time, nothing that replays otherwise; `docs/sql.md` says what may be written. Default: they are delivered as
    /// they are.
    #[serde(default)]
    pub sql: Option<String>,
    /// Where a first start begins: `earliest` (default) or `now`.
    #[serde(default)]
    pub start: Start,
    /// Most rows of a batch. Default 8 000; 1 to 64 000.
    #[serde(default = "default_max_rows")]
    pub max_rows: u32,
    /// Longest wait to fill a batch while records keep coming. Default 1 s; at most 60 s.
    #[serde(default = "default_max_wait", with = "humantime_serde")]
    pub max_wait: Duration,
    #[serde(default)]
    pub quarantine: QuarantineConfig,
    /// `[pipeline.NAME.dimension.DIMENSION]`: the dimensions it joins. It waits until each has been read once.
    #[serde(default)]
    pub dimension: BTreeMap<String, UseConfig>,
    /// Exactly one destination: `[pipeline.NAME.to.mysql]`, `[pipeline.NAME.to.postgres]` or `[pipeline.NAME.to.sqlite]`.
    pub to: To,
}

/// A dimension as one pipeline uses it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UseConfig {
    /// What becomes of a record whose key the dimension does not have: `null`, `default` or `quarantine`. Default: as the dimension
    /// says.
    pub missing: Option<Missing>,
}

/// What a pipeline puts aside, and when that is too much.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuarantineConfig {
    /// Most bytes on disk. When it is full the pipeline stops; at four fifths it is degraded. Default 1 GiB; at least 64 MiB.
    pub quota: ByteSize,
    /// The pipeline is degraded while something waits for longer. Nothing is ever removed for its age. Default 30 days.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// A batch of which a larger share breaks the contract stops the pipeline with one error instead of being put aside, if
    /// that are at least `max_share_from` records. Default 0.5; 0 to 1, 1 is never.
    pub max_share: f64,
    /// Default 100; 1 and more.
    pub max_share_from: u64,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self {
            quota: ByteSize::gib(1),
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_share: 0.5,
            max_share_from: 100,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    #[default]
    Earliest,
    Now,
}

/// The destination of a pipeline; one of these.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct To {
    pub mysql: Option<garam_sink::MySqlConfig>,
    pub postgres: Option<garam_sink::PostgresConfig>,
    pub sqlite: Option<garam_sink::sqlite::SqliteConfig>,
    /// Another stream.
    pub stream: Option<StreamTo>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/garam")
}

fn one() -> u32 {
    1
}

fn default_retain() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn default_quota() -> ByteSize {
    ByteSize::gib(20)
}

fn default_max_origins() -> u32 {
    100_000
}

fn default_max_rows() -> u32 {
    8_000
}

fn default_max_wait() -> Duration {
    Duration::from_secs(1)
}
