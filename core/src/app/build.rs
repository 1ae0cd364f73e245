//! Makes each room's parts from the plan.

use std::sync::Arc;
use std::time::Duration;

use garam_dimension::Dimensions;
use garam_flow::{
    Budget, FlowConfig, FlowStats, Lane, Start as FlowStart, quarantine_stream, requeue_stream,
};
use garam_log::{EmbeddedLog, OnFull, StreamConfig};
use garam_meta::Meta;
use garam_proto::{PartitionId, PipelineId, StreamName};
use garam_sink::SinkStats;
use garam_stage::{PlanId, Refiner};

use super::StartError;
use crate::actors::Slot;
use crate::actors::admin::{AdminRoom, admin};
use crate::actors::dimension::{DimensionRoom, dimension};
use crate::actors::enrol::{EnrolRoom, enrol};
use crate::actors::gate::Gate;
use crate::actors::gateway::{GatewayRoom, gateway};
use crate::actors::log::{LogRoom, Reader, log};
use crate::actors::meta::meta as meta_child;
use crate::actors::pipeline::{FlowRoom, flow};
use crate::actors::requeue::{self, CarrierRoom, Front};
use crate::config::{PipelinePlan, Plan, Start};
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

/// Looks up or mints each pipeline's identity and notes its plan.
pub(super) async fn pipelines(plan: &Plan, meta: &Meta) -> Result<Vec<Pipeline>, StartError> {
    let mut pipelines = Vec::new();
    for configured in &plan.pipelines {
        let Some(stream) = plan.stream(&configured.from) else { continue };
        let destination = configured.to.label();
        let id = meta.pipeline(&configured.name, &configured.from, &destination).await?;
        let mut text = configured.refining.text().to_owned();
        let partitions =
            |name: &StreamName| plan.stream(name).map_or(0, |stream| stream.partitions);
        if let Some(placement) = configured.to.placement(partitions) {
            text.push_str(&format!("{placement}\n"));
        }
        let plan_id = PlanId(xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
        meta.plan(plan_id, &text).await?;
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
        pipelines.push(Pipeline {
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
            plan: configured.clone(),
        });
    }
    Ok(pipelines)
}

/// The log with every configured stream and every pipeline's quarantine.
pub(super) fn log_room(plan: &Plan, pipelines: &[Pipeline]) -> LogRoom {
    let mut config = garam_log::LogConfig::new(plan.log_dir());
    config.segment_size = plan.log.segment_size.as_u64();
    config.reserve = plan.log.reserve.as_u64();
    config.streams = plan
        .streams
        .iter()
        .map(|stream| StreamConfig {
            name: stream.name.clone(),
            partitions: stream.partitions,
            retain: stream.retain,
            quota: stream.quota,
            on_full: match stream.on_full {
                crate::config::OnFull::StopStream => OnFull::StopStream,
                crate::config::OnFull::Detach => OnFull::Detach,
            },
            max_origins: stream.max_origins,
        })
        .chain(pipelines.iter().flat_map(|pipeline| {
            let own = |name: &StreamName, max_origins| StreamConfig {
                name: name.clone(),
                partitions: 1,
                retain: KEPT,
                quota: pipeline.plan.quarantine.quota.as_u64(),
                on_full: OnFull::StopStream,
                max_origins,
            };
            let lane = &pipeline.lane.config.input.stream;
            [own(&pipeline.quarantine, 1024), own(lane, REQUESTS)]
        }))
        .collect();
    let parts = pipelines.iter().flat_map(|pipeline| pipeline.flows.iter().chain([&pipeline.lane]));
    let flows = parts.map(|part| Reader {
        partition: part.config.input.clone(),
        name: part.config.reader_name(),
    });
    let quarantines = pipelines.iter().map(|pipeline| Reader {
        partition: PartitionId { stream: pipeline.quarantine.clone(), index: 0 },
        name: QUARANTINE_PIN.into(),
    });
    LogRoom { config, readers: flows.chain(quarantines).collect(), slot: Slot::empty() }
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
    meta: &Arc<Meta>,
    log_room: LogRoom,
    ports: Ports,
    tables: &Tables,
    pipelines: &[Pipeline],
    log_slot: &Slot<EmbeddedLog>,
) -> Rooms {
    let budget = Budget::default();
    let registrar = Arc::clone(&ports.gateway.registrar);
    let pipelines = pipelines.iter().map(|pipeline| PipelineRoom {
        name: pipeline.name.clone(),
        parts: {
            let room = |part: &FlowPart| FlowRoom {
                config: part.config.clone(),
                schema: pipeline.refiner.schema(),
                refiner: Arc::clone(&pipeline.refiner),
                to: pipeline.plan.to.clone(),
                memory: Arc::clone(meta) as _,
                stats: Arc::clone(&part.stats),
                sink_stats: Arc::clone(&pipeline.sink_stats),
                budget: budget.clone(),
                log: log_slot.clone(),
                gate: Arc::clone(&pipeline.gate),
                registrar: Arc::clone(&registrar),
                dimensions: tables.all.clone(),
                joins: pipeline.plan.refining.joins().to_vec(),
            };
            let carrier = CarrierRoom {
                pipeline: pipeline.id,
                meta: Arc::clone(meta),
                log: log_slot.clone(),
                front: Arc::clone(&pipeline.front),
                gate: Arc::clone(&pipeline.gate),
                pin: QUARANTINE_PIN,
            };
            let named =
                |part: &FlowPart| (format!("p{}", part.config.input.index), flow(room(part)));
            let own = [
                ("requests".to_owned(), requeue::carrier(carrier)),
                ("requeue".to_owned(), requeue::lane(room(&pipeline.lane))),
            ];
            pipeline.flows.iter().map(named).chain(own).collect()
        },
    });
    let enrolment = ports.enrol.map(|room| ("enrol".to_owned(), enrol(room)));
    Rooms {
        admin: [("http".to_owned(), admin(ports.admin))].into_iter().chain(enrolment).collect(),
        meta: meta_child(Arc::clone(meta)),
        log: log(log_room),
        gateway: gateway(ports.gateway),
        pipelines: pipelines.collect(),
        dimensions: tables
            .rooms
            .iter()
            .map(|room| (room.shelf().name().to_owned(), dimension(room.clone())))
            .collect(),
        patience: Patience::default(),
    }
}
