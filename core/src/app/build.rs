//! Makes each room's parts from the plan.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use garam_dimension::Dimensions;
use garam_flow::{
    Budget, FlowConfig, FlowStats, Lane, Start as FlowStart, quarantine_stream, requeue_stream,
    taken_origin,
};
use garam_log::{EmbeddedLog, OnFull, StreamConfig};
use garam_meta::{Meta, MetaError};
use garam_proto::{PartitionId, PipelineId, StreamName};
use garam_sink::SinkStats;
use garam_stage::{Refiner, SlotMap};

use crate::actors::Slot;
use crate::actors::admin::{AdminRoom, admin};
use crate::actors::dimension::{DimensionRoom, dimension};
use crate::actors::enrol::{EnrolRoom, enrol};
use crate::actors::gate::Gate;
use crate::actors::gateway::{GatewayRoom, gateway};
use crate::actors::log::{LogNeeds, LogRoom, Reader, log};
use crate::actors::meta::meta as meta_child;
use crate::actors::pipeline::{FlowRoom, flow};
use crate::actors::requeue::{self, CarrierRoom, Front};
use crate::config::{PipelinePlan, Plan, Recipe, Start, StreamPlan, plan_id, plan_text};
use crate::enrol::Registrar;
use crate::supervise::tree::{Patience, PipelineRoom, Rooms};

/// A pipeline with one flow per partition of its stream.
pub(super) struct Pipeline {
    pub(super) name: String,
    pub(super) stream: StreamName,
    pub(super) destination: String,
    pub(super) id: PipelineId,
    pub(super) quarantine: StreamName,
    /// What of the quarantine waits.
    pub(super) front: Arc<Front>,
    pub(super) gate: Arc<Gate>,
    /// Delivers again what was put aside.
    pub(super) lane: FlowPart,
    pub(super) refiner: Arc<dyn Refiner>,
    pub(super) flows: Vec<FlowPart>,
    pub(super) sink_stats: Arc<SinkStats>,
    /// Which shard of its destination takes which keys.
    pub(super) slots: SlotMap,
    pub(super) plan: PipelinePlan,
}

/// One partition of a pipeline.
pub(super) struct FlowPart {
    pub(super) config: FlowConfig,
    pub(super) stats: Arc<FlowStats>,
}

/// How long what nobody needs any more stays in quarantine and requeue lane.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// The pin that keeps what waits in a quarantine.
const QUARANTINE_PIN: &str = "quarantine";
/// Each request is an origin of its lane, for ever.
const REQUESTS: u32 = 100_000;

/// What every pipeline's tasks stand on, also of one that comes while the core runs.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) meta: Arc<Meta>,
    pub(super) log: Slot<EmbeddedLog>,
    pub(super) log_dir: PathBuf,
    pub(super) registrar: Arc<Registrar>,
    /// Tables to join.
    pub(super) dimensions: Dimensions,
    /// Of all flows together.
    pub(super) budget: Budget,
    pub(super) patience: Patience,
}

/// Looks up or mints each pipeline's identity and notes its plan.
pub(super) async fn pipelines(plan: &Plan, meta: &Meta) -> Result<Vec<Pipeline>, MetaError> {
    let mut pipelines = Vec::new();
    for configured in &plan.pipelines {
        let Some(stream) = plan.stream(&configured.from) else { continue };
        pipelines.push(pipeline(plan, configured, stream, meta).await?);
    }
    Ok(pipelines)
}

/// The same of one.
pub(super) async fn pipeline(
    plan: &Plan,
    configured: &PipelinePlan,
    stream: &StreamPlan,
    meta: &Meta,
) -> Result<Pipeline, MetaError> {
    let destination = configured.to.label();
    let id = meta.pipeline(&configured.name, &configured.from, &destination).await?;
    let partitions = |name: &StreamName| plan.stream(name).map_or(0, |stream| stream.partitions);
    let text = plan_text(&configured.refining, configured.to.placement(partitions));
    let plan_id = plan_id(&text);
    let recipe = Recipe::of(configured, stream, partitions).and_then(|recipe| recipe.text());
    meta.plan(plan_id, &text, recipe.as_deref()).await?;
    let start = match configured.start {
        Start::Earliest => FlowStart::Earliest,
        Start::Now => FlowStart::Now,
    };
    let flows = (0..stream.partitions).map(|index| {
        let input = PartitionId { stream: stream.name.clone(), index };
        let mut config = FlowConfig::new(id, input, plan_id, start);
        config.limits.max_rows = u64::from(configured.max_rows);
        config.limits.max_wait = configured.max_wait;
        config.limits.max_bad_share = configured.quarantine.max_share;
        config.limits.max_bad_from = configured.quarantine.max_share_from;
        FlowPart { config, stats: Arc::default() }
    });
    let again = PartitionId { stream: requeue_stream(id), index: 0 };
    let mut lane = FlowConfig::new(id, again, plan_id, FlowStart::Earliest);
    lane.lane = Lane::Requeue;
    Ok(Pipeline {
        name: configured.name.clone(),
        stream: stream.name.clone(),
        destination,
        id,
        quarantine: quarantine_stream(id),
        front: Arc::default(),
        gate: Arc::new(Gate::new(meta.paused(id).await?)),
        lane: FlowPart { config: lane, stats: Arc::default() },
        refiner: configured.refining.refiner(),
        flows: flows.collect(),
        sink_stats: Arc::default(),
        slots: meta.slots(id, &configured.name, &configured.to.first_map()).await?,
        plan: configured.clone(),
    })
}

impl Pipeline {
    /// Who reads for it: its flows, its lane, and what waits in its quarantine.
    pub(super) fn readers(&self) -> Vec<Reader> {
        let parts = self.flows.iter().chain([&self.lane]);
        let flows = parts.map(|part| Reader {
            partition: part.config.input.clone(),
            name: part.config.reader_name(),
        });
        let quarantine = Reader {
            partition: PartitionId { stream: self.quarantine.clone(), index: 0 },
            name: QUARANTINE_PIN.into(),
        };
        flows.chain([quarantine]).collect()
    }

    /// The streams that are its own: quarantine and requeue lane.
    pub(super) fn own_streams(&self) -> [StreamConfig; 2] {
        let own = |name: &StreamName, max_origins| StreamConfig {
            name: name.clone(),
            partitions: 1,
            retain: KEPT,
            quota: self.plan.quarantine.quota.as_u64(),
            on_full: OnFull::StopStream,
            max_origins,
            relief: None,
        };
        let lane = own(&self.lane.config.input.stream, REQUESTS);
        // A full quarantine is emptied by what is written into it.
        let relief = Some(taken_origin(self.id));
        [StreamConfig { relief, ..own(&self.quarantine, 1024) }, lane]
    }

    /// Goes on with the figures of the one that it takes the place of.
    pub(super) fn inherit(&mut self, before: &Self) {
        self.front = Arc::clone(&before.front);
        self.lane.stats = Arc::clone(&before.lane.stats);
        self.sink_stats = Arc::clone(&before.sink_stats);
        for (part, before) in self.flows.iter_mut().zip(&before.flows) {
            part.stats = Arc::clone(&before.stats);
        }
    }
}

/// The log with every configured stream and every pipeline's own ones.
pub(super) fn log_room(plan: &Plan, pipelines: &[Pipeline]) -> LogRoom {
    LogRoom { needs: Arc::new(Mutex::new(log_needs(plan, pipelines))), slot: Slot::empty() }
}

/// What the log is opened with, and who reads it.
pub(super) fn log_needs(plan: &Plan, pipelines: &[Pipeline]) -> LogNeeds {
    let mut config = garam_log::LogConfig::new(plan.log_dir());
    config.segment_size = plan.log.segment_size.as_u64();
    config.reserve = plan.log.reserve.as_u64();
    let own = pipelines.iter().flat_map(Pipeline::own_streams);
    config.streams = plan.streams.iter().map(log_stream).chain(own).collect();
    LogNeeds { config, readers: pipelines.iter().flat_map(Pipeline::readers).collect() }
}

/// A configured stream, as the log has it.
pub(super) fn log_stream(stream: &StreamPlan) -> StreamConfig {
    StreamConfig {
        name: stream.name.clone(),
        partitions: stream.partitions,
        retain: stream.retain,
        quota: stream.quota,
        on_full: match stream.on_full {
            crate::config::OnFull::StopStream => OnFull::StopStream,
            crate::config::OnFull::Detach => OnFull::Detach,
        },
        max_origins: stream.max_origins,
        relief: None,
    }
}

/// The rooms that are spoken to from outside.
pub(super) struct Ports {
    pub(super) gateway: GatewayRoom,
    pub(super) admin: AdminRoom,
    pub(super) enrol: Option<EnrolRoom>,
}

/// Tables to join, and the tasks that read them.
pub(super) struct Tables {
    pub(super) all: Dimensions,
    pub(super) rooms: Vec<DimensionRoom>,
}

/// Every child's factory, for the tree.
pub(super) fn rooms(
    ground: &Ground,
    log_room: LogRoom,
    ports: Ports,
    tables: &Tables,
    pipelines: &[Pipeline],
) -> Rooms {
    let pipelines = pipelines.iter().map(|pipeline| pipeline_room(ground, pipeline));
    let enrolment = ports.enrol.map(|room| ("enrol".to_owned(), enrol(room)));
    Rooms {
        admin: [("http".to_owned(), admin(ports.admin))].into_iter().chain(enrolment).collect(),
        meta: meta_child(Arc::clone(&ground.meta)),
        log: log(log_room),
        gateway: gateway(ports.gateway),
        pipelines: pipelines.collect(),
        dimensions: tables
            .rooms
            .iter()
            .map(|room| (room.shelf().name().to_owned(), dimension(room.clone())))
            .collect(),
        patience: ground.patience,
    }
}

/// The tasks of one pipeline.
pub(super) fn pipeline_room(ground: &Ground, pipeline: &Pipeline) -> PipelineRoom {
    let room = |part: &FlowPart| FlowRoom {
        config: part.config.clone(),
        schema: pipeline.refiner.schema(),
        refiner: Arc::clone(&pipeline.refiner),
        to: pipeline.plan.to.clone(),
        meta: Arc::clone(&ground.meta),
        stats: Arc::clone(&part.stats),
        sink_stats: Arc::clone(&pipeline.sink_stats),
        slots: pipeline.slots.clone(),
        budget: ground.budget.clone(),
        log: ground.log.clone(),
        gate: Arc::clone(&pipeline.gate),
        registrar: Arc::clone(&ground.registrar),
        dimensions: ground.dimensions.clone(),
        joins: pipeline.plan.refining.joins().to_vec(),
    };
    let carrier = CarrierRoom {
        pipeline: pipeline.id,
        meta: Arc::clone(&ground.meta),
        log: ground.log.clone(),
        front: Arc::clone(&pipeline.front),
        gate: Arc::clone(&pipeline.gate),
        input: pipeline.stream.clone(),
        to: pipeline.plan.to.clone(),
        log_dir: ground.log_dir.clone(),
        pin: QUARANTINE_PIN,
    };
    let named = |part: &FlowPart| (format!("p{}", part.config.input.index), flow(room(part)));
    let own = [
        ("requests".to_owned(), requeue::carrier(carrier)),
        ("requeue".to_owned(), requeue::lane(room(&pipeline.lane))),
    ];
    PipelineRoom {
        name: pipeline.name.clone(),
        parts: pipeline.flows.iter().map(named).chain(own).collect(),
    }
}
