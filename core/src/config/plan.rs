//! The checked configuration: names are names, references exist, numbers are in bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use garam_dimension::{DimensionConfig, DimensionPlan};
use garam_flow::StreamTarget;
use garam_proto::StreamName;
use garam_refine::ContractRefiner;
use garam_sink::SinkConfig;
use garam_stage::{Contract, Dimension, Format, Snapshots};

use super::{
    AdminConfig, Config, ConfigError, GatewayConfig, LogConfig, OnFull, PipelineConfig, PkiConfig,
    PolicyConfig, QuarantineConfig, Refining, Start, StreamConfig, StreamTo, Target, To, UseConfig,
};

/// What the core will do, as `garam check` prints it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub data_dir: PathBuf,
    pub pki_dir: PathBuf,
    pub pki: PkiConfig,
    pub policies: Vec<PolicyPlan>,
    pub gateway: GatewayConfig,
    pub admin: AdminPlan,
    pub log: LogConfig,
    pub streams: Vec<StreamPlan>,
    pub dimensions: Vec<DimensionPlan>,
    /// Where the newest rows of the dimensions are, once a core runs.
    pub snapshots: Snapshots,
    pub pipelines: Vec<PipelinePlan>,
}

#[derive(Debug, Clone)]
pub struct StreamPlan {
    pub name: StreamName,
    pub partitions: u32,
    pub retain: Duration,
    pub quota: u64,
    pub on_full: OnFull,
    pub max_origins: u32,
    pub contract: Contract,
    pub refiner: Arc<ContractRefiner>,
}

/// Where operators ask.
#[derive(Debug, Clone)]
pub struct AdminPlan {
    pub listen: std::net::SocketAddr,
    pub socket: PathBuf,
    pub remote_listen: Option<std::net::SocketAddr>,
}

/// What an agent may do.
#[derive(Debug, Clone)]
pub struct PolicyPlan {
    pub name: String,
    /// As written.
    pub globs: Vec<String>,
    pub streams: globset::GlobSet,
    pub rate: Option<u64>,
    pub max_record: Option<u32>,
}

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

impl Plan {
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    pub fn meta_path(&self) -> PathBuf {
        self.data_dir.join("meta.db")
    }

    pub fn stream(&self, name: &StreamName) -> Option<&StreamPlan> {
        self.streams.iter().find(|stream| stream.name == *name)
    }
}

impl Config {
    /// Parsed form to checked form.
    pub fn check(self) -> Result<Plan, ConfigError> {
        self.check_with(Snapshots::default())
    }

    /// The same for a core that runs: refinements find the dimensions' rows where that core puts them.
    pub fn check_with(self, snapshots: Snapshots) -> Result<Plan, ConfigError> {
        check_gateway(&self.gateway)?;
        bounds("log.segment_size", self.log.segment_size, ByteSize::mib(1), ByteSize::gib(1))?;
        bounds("log.reserve", self.log.reserve, ByteSize::b(0), ByteSize::gib(16))?;
        let admin = check_admin(self.admin, &self.data_dir)?;
        if self.stream.is_empty() {
            return invalid(
                "stream",
                "no [stream.NAME] is configured: agents would have nowhere to send".into(),
            );
        }
        let streams = self
            .stream
            .into_iter()
            .map(|(name, stream)| check_stream(name, stream))
            .collect::<Result<Vec<_>, _>>()?;
        let dimensions = self
            .dimension
            .into_iter()
            .map(|(name, dimension)| check_dimension(&name, dimension))
            .collect::<Result<Vec<_>, _>>()?;
        let pipelines = self
            .pipeline
            .into_iter()
            .map(|(name, pipeline)| {
                check_pipeline(name, pipeline, &streams, &dimensions, &snapshots)
            })
            .collect::<Result<Vec<_>, _>>()?;
        check_targets(&pipelines)?;
        check_circles(&pipelines)?;
        check_pki(&self.pki)?;
        let policies = self.policy.into_iter().map(|(name, policy)| check_policy(name, &policy));
        let policies = policies.collect::<Result<_, _>>()?;
        let pki_dir = self.pki.dir.clone().unwrap_or_else(|| self.data_dir.join("pki"));
        Ok(Plan {
            data_dir: self.data_dir,
            pki_dir,
            pki: self.pki,
            policies,
            gateway: self.gateway,
            admin,
            log: self.log,
            streams,
            dimensions,
            snapshots,
            pipelines,
        })
    }
}

fn check_gateway(gateway: &GatewayConfig) -> Result<(), ConfigError> {
    bounds("gateway.window", gateway.window, ByteSize::mib(1), ByteSize::mib(256))?;
    bounds("gateway.max_record", gateway.max_record, ByteSize::kib(64), ByteSize::mib(64))?;
    let least = gateway.window.max(gateway.max_record);
    bounds("gateway.max_in_flight", gateway.max_in_flight, least, ByteSize::gib(2))?;
    if let Some(share) = gateway.max_in_flight_per_agent {
        bounds("gateway.max_in_flight_per_agent", share, least, gateway.max_in_flight)?;
    }
    range("gateway.max_sessions", gateway.max_sessions, 1, 65_536)?;
    range("gateway.max_half_open", gateway.max_half_open, 16, 65_536)?;
    range("gateway.max_half_open_per_address", gateway.max_half_open_per_address, 1, 65_536)?;
    range("gateway.max_handshakes", gateway.max_handshakes, 8, 4096)?;
    for (key, value) in [
        ("gateway.handshake_timeout", gateway.handshake_timeout),
        ("gateway.idle_timeout", gateway.idle_timeout),
        ("gateway.frame_timeout", gateway.frame_timeout),
    ] {
        if value < Duration::from_millis(100) || value > Duration::from_secs(600) {
            return invalid(key, format!("{value:?} is out of bounds: 100ms to 10min"));
        }
    }
    Ok(())
}

fn check_admin(admin: AdminConfig, data_dir: &Path) -> Result<AdminPlan, ConfigError> {
    let AdminConfig { listen, socket, remote_listen } = admin;
    if !listen.ip().is_loopback() {
        let text = format!(
            "{listen} is not a loopback address: use 127.0.0.1 or [::1]; other machines ask at admin.remote_listen"
        );
        return invalid("admin.listen", text);
    }
    let socket = socket.unwrap_or_else(|| data_dir.join("admin.sock"));
    // What a socket's address holds, on every Unix.
    if socket.as_os_str().len() > 107 {
        let text = format!("{} is longer than 107 bytes: name a shorter path", socket.display());
        return invalid("admin.socket", text);
    }
    Ok(AdminPlan { listen, socket, remote_listen })
}

fn check_pki(pki: &PkiConfig) -> Result<(), ConfigError> {
    let year = Duration::from_secs(366 * 24 * 3600);
    let within = |key: &str, value: Duration, least: Duration| {
        if value < least || value > year {
            return invalid(key, format!("{value:?} is out of bounds: {least:?} to 366 days"));
        }
        Ok(())
    };
    within("pki.agent_life", pki.agent_life, Duration::from_secs(10))?;
    within("pki.recover_within", pki.recover_within, Duration::ZERO)?;
    range("pki.recoveries", pki.recoveries, 0, 1000)
}

fn check_policy(name: String, policy: &PolicyConfig) -> Result<PolicyPlan, ConfigError> {
    let key = |field: &str| format!("policy.{name}.{field}");
    let parsed = garam_proto::SourceName::new(name.as_str());
    parsed.or_else(|e| invalid(&format!("policy.{name}"), e.to_string()))?;
    if policy.streams.is_empty() {
        return invalid(&key("streams"), "at least one glob: \"*\" allows every stream".into());
    }
    let mut streams = globset::GlobSet::builder();
    for glob in &policy.streams {
        streams.add(globset::Glob::new(glob).or_else(|e| invalid(&key("streams"), e.to_string()))?);
    }
    let streams = streams.build().or_else(|e| invalid(&key("streams"), e.to_string()))?;
    if let Some(rate) = policy.rate {
        bounds(&key("rate"), rate, ByteSize::kib(64), ByteSize::gib(64))?;
    }
    if let Some(most) = policy.max_record {
        bounds(&key("max_record"), most, ByteSize::kib(64), ByteSize::mib(64))?;
    }
    let max_record = policy.max_record.map(|most| most.as_u64() as u32);
    let (globs, rate) = (policy.streams.clone(), policy.rate.map(|rate| rate.as_u64()));
    Ok(PolicyPlan { name, globs, streams, rate, max_record })
}

fn check_stream(name: String, stream: StreamConfig) -> Result<StreamPlan, ConfigError> {
    let key = |field: &str| format!("stream.{name}.{field}");
    let parsed = StreamName::new(name.as_str());
    let parsed = parsed.or_else(|e| invalid(&format!("stream.{name}"), e.to_string()))?;
    if name.starts_with('_') {
        return invalid(
            &format!("stream.{name}"),
            "names that begin with _ belong to Garam".into(),
        );
    }
    range(&key("partitions"), stream.partitions, 1, 256)?;
    range(&key("max_origins"), stream.max_origins, 1, 10_000_000)?;
    bounds(&key("quota"), stream.quota, ByteSize::mib(64), ByteSize::tib(64))?;
    let contract = match stream.contract {
        Some(contract) => contract.check().or_else(|e| invalid(&key("contract"), e.to_string()))?,
        None => Contract::lines(),
    };
    let refiner = ContractRefiner::new(contract.clone())
        .or_else(|e| invalid(&key("contract"), e.to_string()))?;
    Ok(StreamPlan {
        name: parsed,
        partitions: stream.partitions,
        retain: stream.retain,
        quota: stream.quota.as_u64(),
        on_full: stream.on_full,
        max_origins: stream.max_origins,
        contract,
        refiner: Arc::new(refiner),
    })
}

fn check_dimension(name: &str, dimension: DimensionConfig) -> Result<DimensionPlan, ConfigError> {
    dimension.check(name).or_else(|error| {
        let key = match error.key {
            "" => format!("dimension.{name}"),
            key => format!("dimension.{name}.{key}"),
        };
        invalid(&key, error.why)
    })
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

fn check_pipeline(
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
fn check_circles(pipelines: &[PipelinePlan]) -> Result<(), ConfigError> {
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
fn check_targets(pipelines: &[PipelinePlan]) -> Result<(), ConfigError> {
    let table = |pipeline: &'_ PipelinePlan| match &pipeline.to {
        Target::Sink(sink) => {
            let (place, table) = sink.target();
            Some((sink.kind(), place, table.to_owned()))
        }
        Target::Stream(_) => None,
    };
    for (i, pipeline) in pipelines.iter().enumerate() {
        let Some(own) = table(pipeline) else { continue };
        let same = |other: &&PipelinePlan| table(other).is_some_and(|other| other == own);
        if let Some(other) = pipelines.iter().take(i).find(same) {
            return invalid(
                &format!("pipeline.{}.to.{}.table", pipeline.name, own.0),
                format!("pipeline {} writes the same table of the same database", other.name),
            );
        }
    }
    Ok(())
}

fn bounds(key: &str, value: ByteSize, least: ByteSize, most: ByteSize) -> Result<(), ConfigError> {
    if value < least || value > most {
        return invalid(key, format!("{value} is out of bounds: {least} to {most}"));
    }
    Ok(())
}

fn range(key: &str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if value < least || value > most {
        return invalid(key, format!("{value} is out of bounds: {least} to {most}"));
    }
    Ok(())
}

fn invalid<T>(key: &str, why: String) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key: key.into(), why })
}
