//! What a core runs by, as names and texts: what can be kept, sent and compared. Never a secret.
//!
//! In: a checked [`Plan`]. Out: [`Definition`]. Promise: every setting is in it, in the group that says what another value takes; a
//! password in an address is not, so that another one is seen only by who has both plans. Not here: comparing (`super`).

use std::collections::BTreeMap;
use std::time::Duration;

use garam_dimension::DimensionPlan;
use garam_stage::{Column, Contract};
use serde::{Deserialize, Serialize};

use crate::config::{
    AdminPlan, GatewayConfig, LogConfig, PipelinePlan, PkiConfig, Plan, PolicyPlan,
    QuarantineConfig, StreamPlan, Target,
};

/// By name, as it would be written.
pub type Settings = BTreeMap<String, String>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// Read once, at the start.
    pub core: Settings,
    pub policies: BTreeMap<String, Settings>,
    pub streams: BTreeMap<String, StreamDefinition>,
    pub pipelines: BTreeMap<String, PipelineDefinition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamDefinition {
    pub partitions: u32,
    /// What the log takes at any time.
    pub limits: Settings,
    pub contract: ContractDefinition,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContractDefinition {
    pub version: u32,
    pub format: String,
    pub key: Vec<String>,
    pub columns: Vec<ColumnDefinition>,
    /// How records are taken apart, and what becomes of what fits nowhere.
    pub reading: Settings,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnDefinition {
    pub name: String,
    pub kind: String,
    pub nullable: bool,
    /// A record that lacks it gets a value: a default or a constant.
    pub filled: bool,
    /// The names and pointers under which its value comes.
    pub read_as: Vec<String>,
    pub rules: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PipelineDefinition {
    /// What its rows and its cursor belong to.
    pub identity: Settings,
    /// What it may take from one batch to the next.
    pub settings: Settings,
    /// What counts at its first start alone.
    pub start: String,
}

impl Definition {
    pub fn of(plan: &Plan) -> Self {
        let Plan {
            data_dir,
            pki_dir,
            pki,
            policies,
            gateway,
            admin,
            log,
            streams,
            dimensions,
            snapshots: _,
            pipelines,
        } = plan;
        let mut core = Settings::new();
        core.insert("data_dir".into(), data_dir.display().to_string());
        core.insert("pki.dir".into(), pki_dir.display().to_string());
        of_pki(&mut core, pki);
        of_gateway(&mut core, gateway);
        of_admin(&mut core, admin);
        let LogConfig { segment_size, reserve } = log;
        core.insert("log.segment_size".into(), segment_size.to_string());
        core.insert("log.reserve".into(), reserve.to_string());
        for dimension in dimensions {
            core.insert(format!("dimension.{}", dimension.name()), of_dimension(dimension));
        }
        let stream = |stream: &StreamPlan| (stream.name.to_string(), of_stream(stream));
        let pipeline = |pipeline: &PipelinePlan| (pipeline.name.clone(), of_pipeline(pipeline));
        Self {
            core,
            policies: policies.iter().map(|p| (p.name.clone(), of_policy(p))).collect(),
            streams: streams.iter().map(stream).collect(),
            pipelines: pipelines.iter().map(pipeline).collect(),
        }
    }

    /// As it is kept.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Of the kept text; `None` when another build wrote it in a way that this one does not read.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn of_pki(core: &mut Settings, pki: &PkiConfig) {
    let PkiConfig { dir: _, agent_life, recover_within, recoveries } = pki;
    core.insert("pki.agent_life".into(), time(*agent_life));
    core.insert("pki.recover_within".into(), time(*recover_within));
    core.insert("pki.recoveries".into(), recoveries.to_string());
}

fn of_gateway(core: &mut Settings, gateway: &GatewayConfig) {
    let GatewayConfig {
        listen,
        enrol_listen,
        names,
        window,
        max_record,
        max_in_flight,
        max_in_flight_per_agent,
        max_sessions,
        max_half_open,
        max_half_open_per_address,
        max_handshakes,
        handshake_timeout,
        idle_timeout,
        frame_timeout,
    } = gateway;
    let settings = [
        ("listen", listen.to_string()),
        ("enrol_listen", or_none(enrol_listen.as_ref())),
        ("names", names.join(", ")),
        ("window", window.to_string()),
        ("max_record", max_record.to_string()),
        ("max_in_flight", max_in_flight.to_string()),
        ("max_in_flight_per_agent", or_none(max_in_flight_per_agent.as_ref())),
        ("max_sessions", max_sessions.to_string()),
        ("max_half_open", max_half_open.to_string()),
        ("max_half_open_per_address", max_half_open_per_address.to_string()),
        ("max_handshakes", max_handshakes.to_string()),
        ("handshake_timeout", time(*handshake_timeout)),
        ("idle_timeout", time(*idle_timeout)),
        ("frame_timeout", time(*frame_timeout)),
    ];
    core.extend(settings.map(|(key, value)| (format!("gateway.{key}"), value)));
}

fn of_admin(core: &mut Settings, admin: &AdminPlan) {
    let AdminPlan { listen, socket, remote_listen } = admin;
    core.insert("admin.listen".into(), listen.to_string());
    core.insert("admin.socket".into(), socket.display().to_string());
    core.insert("admin.remote_listen".into(), or_none(remote_listen.as_ref()));
}

fn of_policy(policy: &PolicyPlan) -> Settings {
    let PolicyPlan { name: _, globs, streams: _, rate, max_record } = policy;
    Settings::from([
        ("streams".into(), globs.join(", ")),
        ("rate".into(), or_none(rate.as_ref())),
        ("max_record".into(), or_none(max_record.as_ref())),
    ])
}

/// One line: it is read once, at the start.
fn of_dimension(dimension: &DimensionPlan) -> String {
    let DimensionPlan { shape, refresh, max_bytes, max_rows, source: _ } = dimension;
    let declared = shape.dimension();
    format!(
        "{:032x} refresh {} max_bytes {max_bytes} max_rows {max_rows} missing {:?} default {:?}",
        dimension.identity(),
        time(*refresh),
        declared.missing,
        declared.default_row.columns(),
    )
}

fn of_stream(stream: &StreamPlan) -> StreamDefinition {
    let StreamPlan {
        name: _,
        partitions,
        retain,
        quota,
        on_full,
        max_origins,
        contract,
        written: _,
        refiner: _,
    } = stream;
    let limits = Settings::from([
        ("retain".into(), time(*retain)),
        ("quota".into(), bytesize::ByteSize::b(*quota).to_string()),
        ("on_full".into(), format!("{on_full:?}")),
        ("max_origins".into(), max_origins.to_string()),
    ]);
    StreamDefinition { partitions: *partitions, limits, contract: of_contract(contract) }
}

fn of_contract(contract: &Contract) -> ContractDefinition {
    let Contract { version, format, columns, time, key, unknown, reading, time_bounds } = contract;
    let column = |column: &Column| {
        let Column { name, kind, nullable, is_named, rules } = column;
        let own = is_named.then(|| name.clone());
        let aliases = reading.aliases.iter().filter(|(_, of)| of == name).map(|(alias, _)| alias);
        let paths = reading.paths.iter().filter(|(_, of)| of == name);
        let paths = paths.map(|(way, _)| format!("/{}", way.join("/")));
        ColumnDefinition {
            name: name.clone(),
            kind: kind.to_string(),
            nullable: *nullable,
            filled: rules.default.is_some() || rules.constant.is_some(),
            read_as: own.into_iter().chain(aliases.cloned()).chain(paths).collect(),
            rules: format!("{rules:?}"),
        }
    };
    let garam_stage::Reading {
        aliases: _,
        paths: _,
        time_format,
        zone_seconds,
        fields,
        delimiter,
        header,
        pattern,
        patterns,
        tables,
    } = reading;
    let reading = Settings::from([
        ("time".into(), or_none(time.as_ref())),
        ("time_format".into(), or_none(time_format.as_ref())),
        ("zone_seconds".into(), or_none(zone_seconds.as_ref())),
        ("fields".into(), fields.join(", ")),
        ("delimiter".into(), or_none(delimiter.map(char::from).as_ref())),
        ("header".into(), header.to_string()),
        ("pattern".into(), or_none(pattern.as_ref())),
        ("patterns".into(), of_patterns(patterns)),
        ("tables".into(), tables.join(", ")),
        ("unknown".into(), format!("{unknown:?}").to_lowercase()),
        ("time_bounds".into(), format!("{time_bounds:?}")),
    ]);
    ContractDefinition {
        version: *version,
        format: format.to_string(),
        key: key.clone(),
        columns: columns.iter().map(column).collect(),
        reading,
    }
}

fn of_patterns(patterns: &[(String, String)]) -> String {
    let each: Vec<String> =
        patterns.iter().map(|(name, text)| format!("{name} = {text}")).collect();
    each.join(", ")
}

fn of_pipeline(pipeline: &PipelinePlan) -> PipelineDefinition {
    let PipelinePlan { name: _, from, refining, start, max_rows, max_wait, quarantine, to } =
        pipeline;
    let QuarantineConfig { quota, max_age, max_share, max_share_from } = quarantine;
    let (identity, options) = match to {
        Target::Sink(sink) => (sink.identity(), sink.options()),
        Target::Stream(target) => {
            let (name, key) = (target.stream.to_string(), target.key.join(", "));
            (vec![("name", name), ("key", key)], Vec::new())
        }
    };
    let of_target = |settings: Vec<(&'static str, String)>| {
        settings.into_iter().map(move |(key, value)| (format!("to.{}.{key}", to.kind()), value))
    };
    let own = [
        ("sql", refining.sql().unwrap_or("none").trim().to_owned()),
        ("dimensions", refining.tables().trim().to_owned()),
        ("max_rows", max_rows.to_string()),
        ("max_wait", time(*max_wait)),
        ("quarantine.quota", quota.to_string()),
        ("quarantine.max_age", time(*max_age)),
        ("quarantine.max_share", max_share.to_string()),
        ("quarantine.max_share_from", max_share_from.to_string()),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value));
    PipelineDefinition {
        identity: of_target(identity)
            .chain([("from".into(), from.to_string()), ("to".into(), to.kind().into())])
            .collect(),
        settings: own.into_iter().chain(of_target(options)).collect(),
        start: format!("{start:?}").to_lowercase(),
    }
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn or_none(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "none".into(), ToString::to_string)
}
