//! The checked configuration: names are names, references exist, numbers are in bounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use garam_dimension::{DimensionConfig, DimensionPlan};
use garam_proto::StreamName;
use garam_refine::ContractRefiner;
use garam_stage::{Contract, ContractConfig, Snapshots};

use super::pipelines::{check_circles, check_pipeline, check_targets};
use super::{
    AdminConfig, Config, ConfigError, GatewayConfig, LogConfig, OnFull, PipelinePlan, PkiConfig,
    PolicyConfig, StreamConfig,
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
    /// As it was written. `None`: lines as they are.
    pub written: Option<ContractConfig>,
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
    let written = stream.contract.clone();
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
        written,
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

pub(super) fn bounds(
    key: &str,
    value: ByteSize,
    least: ByteSize,
    most: ByteSize,
) -> Result<(), ConfigError> {
    if value < least || value > most {
        return invalid(key, format!("{value} is out of bounds: {least} to {most}"));
    }
    Ok(())
}

pub(super) fn range(key: &str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    if value < least || value > most {
        return invalid(key, format!("{value} is out of bounds: {least} to {most}"));
    }
    Ok(())
}

pub(super) fn invalid<T>(key: &str, why: String) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key: key.into(), why })
}
