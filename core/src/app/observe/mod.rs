//! What the admin port tells: gathered from the rooms' own figures at the moment of the question.

mod dimensions;
mod metrics;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use garam_flow::FlowStats;
use garam_log::{EmbeddedLog, PartitionStats, State as LogState};
use garam_meta::Meta;
use garam_proto::{AgentId, PartitionId, StreamName};
use garam_sink::SinkStats;
use garam_stage::{Counters, Refiner};
use tokio::sync::mpsc;

use super::build::{FlowPart, Pipeline, Tables};
use super::reload::Reloader;
use super::tap;
use crate::actors::Slot;
use crate::actors::dimension::DimensionRoom;
use crate::actors::gate::Gate;
use crate::actors::requeue::Front;
use crate::admin::answers::{
    AgentAnswer, DimensionAnswer, LagAnswer, PartitionLag, PipelineAnswer, RefreshAnswer,
    SinkAnswer, StatusAnswer, StreamAnswer, Verdict,
};
use crate::admin::metrics::{Exposition, Kind};
use crate::admin::{Observe, Resumed, TapRequest, TapStage, Unapplied};
use crate::config::change::{Changes, Definition};
use crate::config::{Plan, QuarantineConfig, Target};
use crate::gateway::{Door, wall_clock_us};
use crate::supervise::{ControlError, Snapshot, State, SupervisionHandle};

/// Everything that can be looked at.
pub(super) struct Observed {
    started: Instant,
    cluster: String,
    meta: Arc<Meta>,
    shown: Arc<Shown>,
    dimensions: Vec<DimensionRoom>,
    log: Slot<EmbeddedLog>,
    door: Slot<Door>,
    /// Set once the tree runs, which needs this observer first.
    supervision: OnceLock<SupervisionHandle>,
    reloader: OnceLock<Arc<Reloader>>,
}

/// What there is to look at, as the newest configuration has it.
#[derive(Default)]
pub(super) struct Shown(RwLock<Arc<Exhibits>>);

#[derive(Default)]
struct Exhibits {
    streams: Vec<StreamName>,
    pipelines: Vec<Watched>,
}

struct Watched {
    name: String,
    stream: StreamName,
    destination: String,
    refiner: Arc<dyn Refiner>,
    /// The names under which its flows pin the log.
    readers: Vec<String>,
    flows: Vec<(PartitionId, Arc<FlowStats>)>,
    /// The table that it fills, and what that takes; a stream has none.
    sink: Option<Sink>,
    quarantine: Aside,
    gate: Arc<Gate>,
    /// The dimensions that it joins.
    joins: Vec<String>,
}

/// A table as a destination.
struct Sink {
    table: String,
    stats: Arc<SinkStats>,
}

/// What a pipeline put aside, and its way back.
struct Aside {
    stream: StreamName,
    front: Arc<Front>,
    limits: QuarantineConfig,
    /// The requeue lane.
    again: Arc<FlowStats>,
}

impl Shown {
    pub(super) fn set(&self, plan: &Plan, pipelines: &[Pipeline]) {
        let exhibits = Exhibits {
            streams: plan.streams.iter().map(|stream| stream.name.clone()).collect(),
            pipelines: pipelines.iter().map(Watched::of).collect(),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(exhibits);
    }

    fn now(&self) -> Arc<Exhibits> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watched {
    fn of(pipeline: &Pipeline) -> Self {
        let flow = |part: &FlowPart| (part.config.input.clone(), Arc::clone(&part.stats));
        Self {
            name: pipeline.name.clone(),
            stream: pipeline.stream.clone(),
            destination: pipeline.destination.clone(),
            refiner: Arc::clone(&pipeline.refiner),
            readers: pipeline.flows.iter().map(|part| part.config.reader_name()).collect(),
            flows: pipeline.flows.iter().map(flow).collect(),
            sink: match &pipeline.plan.to {
                Target::Sink(sink) => Some(Sink {
                    table: sink.target().1.to_owned(),
                    stats: Arc::clone(&pipeline.sink_stats),
                }),
                Target::Stream(_) => None,
            },
            gate: Arc::clone(&pipeline.gate),
            joins: pipeline.plan.refining.joins().to_vec(),
            quarantine: Aside {
                stream: pipeline.quarantine.clone(),
                front: Arc::clone(&pipeline.front),
                limits: pipeline.plan.quarantine.clone(),
                again: Arc::clone(&pipeline.lane.stats),
            },
        }
    }
}

impl Observed {
    pub(super) fn new(
        meta: &Arc<Meta>,
        shown: Arc<Shown>,
        tables: &Tables,
        log: Slot<EmbeddedLog>,
        door: Slot<Door>,
    ) -> Self {
        Self {
            started: Instant::now(),
            cluster: meta.cluster().to_string(),
            meta: Arc::clone(meta),
            shown,
            dimensions: tables.rooms.clone(),
            log,
            door,
            supervision: OnceLock::new(),
            reloader: OnceLock::new(),
        }
    }

    pub(super) fn attach(&self, supervision: SupervisionHandle, reloader: Arc<Reloader>) {
        // Attached once, right after the start.
        let _first = self.supervision.set(supervision).is_ok();
        let _first = self.reloader.set(reloader).is_ok();
    }

    fn log_stats(&self) -> Vec<PartitionStats> {
        self.log.peek().map(|log| log.stats()).unwrap_or_default()
    }

    fn stream(&self, name: &StreamName, stats: &[PartitionStats]) -> StreamAnswer {
        let mine: Vec<_> = stats.iter().filter(|stats| stats.partition.stream == *name).collect();
        let sum = |figure: fn(&PartitionStats) -> u64| mine.iter().map(|stats| figure(stats)).sum();
        let troubled = mine.iter().find_map(|stats| trouble(&stats.state));
        StreamAnswer {
            name: name.to_string(),
            partitions: u32::try_from(mine.len()).unwrap_or(u32::MAX),
            start: sum(|stats| stats.start.0),
            end: sum(|stats| stats.end.0),
            bytes: sum(|stats| stats.bytes),
            origins: sum(|stats| stats.origins as u64),
            records: sum(|stats| stats.appended_records),
            state: troubled.unwrap_or_else(|| "ok".into()),
        }
    }

    /// The pipelines that a stream with `on_full = "detach"` went on without.
    fn left_behind(stats: &PartitionStats, exhibits: &Exhibits) -> Vec<String> {
        let of_whom = |reader: &String| {
            let known = exhibits.pipelines.iter().find(|watched| watched.readers.contains(reader));
            known.map_or("(removed)", |watched| watched.name.as_str())
        };
        let partition = &stats.partition;
        let left = stats.detached.iter().map(|(reader, at)| {
            let name = of_whom(reader);
            format!(
                "pipeline {name} was left behind at {at} of {partition}, whose quota was used up: get its \
                 destination going, it goes on behind a counted gap"
            )
        });
        left.collect()
    }

    fn lag_of(&self, watched: &Watched, tree: &Snapshot) -> Vec<PartitionLag> {
        let log = self.log.peek();
        let lag = watched.flows.iter().map(|(partition, stats)| {
            let bounds =
                log.as_ref().and_then(|log| garam_log::Log::bounds(&**log, partition).ok());
            let end = bounds.map_or(stats.end().0, |bounds| bounds.end.0);
            let next = stats.cursor().map(|cursor| cursor.next.0);
            let behind =
                end.saturating_sub(next.unwrap_or(bounds.map_or(0, |bounds| bounds.start.0)));
            let since_us = wall_clock_us().saturating_sub(stats.last_ingest_us());
            let lag_s = match (behind, stats.last_ingest_us()) {
                (0, _) => Some(0.0),
                (_, 0) => None,
                _ => Some(since_us.max(0) as f64 / 1e6),
            };
            PartitionLag {
                pipeline: watched.name.clone(),
                stream: watched.stream.to_string(),
                partition: partition.index,
                next: next.unwrap_or(0),
                end,
                lag_entries: behind,
                lag_s,
                state: state_of(
                    tree,
                    &format!("data/pipelines/{}/p{}", watched.name, partition.index),
                ),
            }
        });
        lag.collect()
    }

    fn pipeline(&self, watched: &Watched, tree: &Snapshot) -> PipelineAnswer {
        let counters = watched
            .flows
            .iter()
            .filter_map(|(_, stats)| stats.cursor())
            .map(|cursor| cursor.counters);
        let pause = watched.gate.pause();
        let again = watched.quarantine.again.cursor().map(|cursor| cursor.counters);
        let requeued = again.as_ref().map_or(0, |counters| counters.records_in);
        let sum = counters.chain(again).fold(Counters::default(), add);
        PipelineAnswer {
            name: watched.name.clone(),
            stream: watched.stream.to_string(),
            destination: watched.destination.clone(),
            state: match &pause {
                Some(_) => "paused".into(),
                None => state_of(tree, &format!("data/pipelines/{}", watched.name)),
            },
            paused: pause.map(|pause| pause.reason),
            records_in: sum.records_in,
            requeued,
            waiting: watched.quarantine.front.waiting().0,
            delivered: sum.delivered,
            quarantined: sum.quarantined,
            dropped: sum.dropped_total(),
            gap: sum.gap_units,
            lag_entries: self.lag_of(watched, tree).iter().map(|lag| lag.lag_entries).sum(),
            sink: watched.sink.as_ref().map(sink),
        }
    }
}

#[async_trait]
impl Observe for Observed {
    async fn tree(&self) -> Result<Snapshot, String> {
        let supervision = self.supervision.get().ok_or("the core is starting")?;
        supervision.snapshot().await.map_err(|error| error.to_string())
    }

    async fn status(&self) -> Result<StatusAnswer, String> {
        let tree = self.tree().await?;
        let stats = self.log_stats();
        let exhibits = self.shown.now();
        let reload = self.reloader.get().and_then(|reloader| reloader.last());
        let mut why = complaints(&tree);
        if let Some(error) = reload.as_ref().and_then(|reload| reload.error.as_ref()) {
            why.push(format!("the changed configuration is not in force: {error}"));
        }
        for partition in &stats {
            if let Some(trouble) = trouble(&partition.state) {
                why.push(format!("partition {}: {trouble}", partition.partition));
            }
            why.extend(Self::left_behind(partition, &exhibits));
        }
        for watched in &exhibits.pipelines {
            let is_paused = watched.gate.pause().is_some();
            if !is_paused && watched.flows.iter().any(|(_, stats)| stats.cursor().is_none()) {
                why.push(format!("pipeline {} has not begun to deliver", watched.name));
            }
            why.extend(watched.quarantine.alarms(&watched.name, &stats));
        }
        why.extend(self.dimension_troubles());
        let sessions = self.door.peek().map(|door| door.sessions.list()).unwrap_or_default();
        let agents = sessions.into_iter().map(|session| AgentAnswer {
            agent: session.agent,
            host: session.host,
            peer: session.peer,
            build: session.build,
            connected_s: session.connected_s,
        });
        Ok(StatusAnswer {
            verdict: if why.is_empty() { Verdict::Healthy } else { Verdict::Degraded },
            why,
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: self.cluster.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            agents: agents.collect(),
            streams: exhibits.streams.iter().map(|name| self.stream(name, &stats)).collect(),
            pipelines: exhibits
                .pipelines
                .iter()
                .map(|watched| self.pipeline(watched, &tree))
                .collect(),
            dimensions: self.dimensions(),
            reload,
        })
    }

    async fn lag(&self) -> Result<LagAnswer, String> {
        let tree = self.tree().await?;
        Ok(LagAnswer {
            pipelines: self
                .shown
                .now()
                .pipelines
                .iter()
                .flat_map(|watched| self.lag_of(watched, &tree))
                .collect(),
        })
    }

    fn dimensions(&self) -> Vec<DimensionAnswer> {
        self.dimensions.iter().map(|room| self.dimension(room)).collect()
    }

    async fn refresh(&self, dimension: &str) -> Result<Option<RefreshAnswer>, String> {
        self.refresh_dimension(dimension).await
    }

    async fn metrics(&self) -> Result<String, String> {
        let tree = self.tree().await?;
        let mut out = Exposition::default();
        out.family("garam_up_seconds", Kind::Gauge, "Seconds since the core started.")
            .sample(&[], self.started.elapsed().as_secs_f64());
        self.door_metrics(&mut out);
        self.log_metrics(&mut out);
        self.pipeline_metrics(&mut out, &tree);
        self.dimension_metrics(&mut out);
        self.sink_metrics(&mut out);
        let mut restarts = out.family(
            "garam_child_restarts_total",
            Kind::Counter,
            "Restarts in the supervision tree.",
        );
        for child in tree.walk() {
            restarts.count(&[("child", child.path.as_str())], child.restarts);
        }
        Ok(out.finish())
    }

    async fn is_revoked(&self, admin: AgentId) -> Result<bool, String> {
        let revoked = self.meta.revocations().await;
        revoked.map(|revoked| revoked.contains_key(&admin)).map_err(|error| error.to_string())
    }

    async fn resume(&self, pipeline: &str) -> Result<Option<Resumed>, String> {
        if !self.shown.now().pipelines.iter().any(|watched| watched.name == pipeline) {
            return Ok(None);
        }
        let supervision = self.supervision.get().ok_or("the core is starting")?;
        match supervision.resume(&format!("data/pipelines/{pipeline}")).await {
            Ok(()) => Ok(Some(Resumed::Started)),
            Err(ControlError::NotParked { .. }) => Ok(Some(Resumed::NotParked)),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn definition(&self) -> Result<Definition, String> {
        let reloader = self.reloader.get().ok_or("the core is starting")?;
        Ok(reloader.definition())
    }

    async fn reload(&self) -> Result<Changes, Unapplied> {
        let starting = || Unapplied::Unavailable("the core is starting".into());
        self.reloader.get().ok_or_else(starting)?.reload().await.map_err(Unapplied::from)
    }

    async fn tap(
        &self,
        pipeline: &str,
        request: TapRequest,
    ) -> Result<Option<mpsc::Receiver<String>>, String> {
        let exhibits = self.shown.now();
        let mut pipelines = exhibits.pipelines.iter();
        let Some(watched) = pipelines.find(|watched| watched.name == pipeline) else {
            return Ok(None);
        };
        let log = self.log.peek().ok_or("the log is being opened")?;
        let partitions = match request.stage {
            TapStage::Quarantined => {
                vec![PartitionId { stream: watched.quarantine.stream.clone(), index: 0 }]
            }
            TapStage::Before | TapStage::After => {
                watched.flows.iter().map(|(partition, _)| partition.clone()).collect()
            }
        };
        tap::open(log, partitions, Arc::clone(&watched.refiner), request).await.map(Some)
    }
}

impl Aside {
    /// What an operator must act on before the pipeline stops for it, or because it was forgotten.
    fn alarms(&self, pipeline: &str, stats: &[PartitionStats]) -> Vec<String> {
        let mut alarms = Vec::new();
        let bytes: u64 =
            stats.iter().filter(|s| s.partition.stream == self.stream).map(|s| s.bytes).sum();
        let quota = self.limits.quota.as_u64();
        if bytes >= quota / 5 * 4 {
            alarms.push(format!(
                "quarantine of {pipeline}: {bytes} of {quota} bytes are used, the pipeline stops when it is full: \
                 raise quarantine.quota, or requeue or purge, which makes room once the stream has let go of these records"
            ));
        }
        let (waiting, since_us) = self.front.waiting();
        let age_us = since_us.map_or(0, |since| wall_clock_us().saturating_sub(since));
        let age_s = u64::try_from(age_us / 1_000_000).unwrap_or(0);
        if age_s > self.limits.max_age.as_secs() {
            alarms.push(format!(
                "quarantine of {pipeline}: {waiting} records wait, the oldest for {age_s} s: requeue or purge them"
            ));
        }
        alarms
    }
}

fn sink(sink: &Sink) -> SinkAnswer {
    let figures = sink.stats.read();
    SinkAnswer {
        table: sink.table.clone(),
        rows: figures.rows,
        bytes: figures.bytes,
        batches: figures.batches,
        refused: figures.refused,
        stale: figures.stale,
        retries: figures.retries,
        failures: figures.failures,
        connections: figures.connections,
        write_s: figures.write_seconds,
    }
}

fn trouble(state: &LogState) -> Option<String> {
    match state {
        LogState::Ok => None,
        LogState::Full(why) => Some(format!("full: {why}")),
        LogState::Stopped(why) => Some(format!("stopped: {why}")),
    }
}

fn add(mut sum: Counters, more: Counters) -> Counters {
    sum.records_in += more.records_in;
    sum.delivered += more.delivered;
    sum.quarantined += more.quarantined;
    sum.gap_units += more.gap_units;
    sum.gaps += more.gaps;
    let dropped: BTreeMap<String, u64> = more.dropped;
    for (reason, count) in dropped {
        *sum.dropped.entry(reason).or_default() += count;
    }
    sum
}

fn state_of(tree: &Snapshot, path: &str) -> String {
    tree.at(path).map_or("unknown", |node| node.state.name()).to_owned()
}

/// Every child that is not as it should be.
fn complaints(tree: &Snapshot) -> Vec<String> {
    let troubled =
        |node: &&Snapshot| matches!(node.state, State::Parked | State::BackingOff { .. });
    let complaint = |node: &Snapshot| {
        let fault = node.last_fault.as_ref();
        let text =
            fault.map_or(String::new(), |fault| format!(": {}; {}", fault.what, fault.advice));
        format!("{} is {}{text}", node.path, node.state.name())
    };
    tree.walk().into_iter().filter(troubled).map(complaint).collect()
}
