//! Makes each room's parts from the plan.

use std::sync::Arc;
use std::time::Duration;

use garam_flow::{Budget, FlowConfig, FlowStats, Start as FlowStart, quarantine_stream};
use garam_log::{EmbeddedLog, OnFull, StreamConfig};
use garam_meta::Meta;
use garam_proto::{PartitionId, StreamName};
use garam_refine::SEMANTICS;
use garam_stage::{PlanId, Refiner};

use super::StartError;
use crate::actors::Slot;
use crate::actors::admin::{AdminRoom, admin};
use crate::actors::enrol::{EnrolRoom, enrol};
use crate::actors::gateway::{GatewayRoom, gateway};
use crate::actors::log::{LogRoom, Reader, log};
use crate::actors::meta::meta as meta_child;
use crate::actors::pipeline::{FlowRoom, flow};
use crate::config::{PipelinePlan, Plan, Start};
use crate::supervise::tree::{Patience, PipelineRoom, Rooms};

/// A pipeline with one flow per partition of its stream.
pub(super) struct Pipeline {
    pub(super) name: String,
    pub(super) stream: StreamName,
    pub(super) destination: String,
    pub(super) quarantine: StreamName,
    pub(super) refiner: Arc<dyn Refiner>,
    pub(super) flows: Vec<FlowPart>,
    plan: PipelinePlan,
}

/// One partition of a pipeline.
pub(super) struct FlowPart {
    pub(super) config: FlowConfig,
    pub(super) stats: Arc<FlowStats>,
}

/// Bytes on disk a pipeline's quarantine may take. When it is full, that pipeline stops.
const QUARANTINE_QUOTA: u64 = 1024 * 1024 * 1024;
/// Quarantined records stay this long at least.
const QUARANTINE_RETAIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// The pin that keeps a quarantine whole: nothing is trimmed until requeue and purge exist.
const QUARANTINE_PIN: &str = "quarantine";

/// Looks up or mints each pipeline's identity and notes its plan.
pub(super) async fn pipelines(plan: &Plan, meta: &Meta) -> Result<Vec<Pipeline>, StartError> {
    let mut pipelines = Vec::new();
    for configured in &plan.pipelines {
        let Some(stream) = plan.stream(&configured.from) else { continue };
        let destination = configured.sink.label();
        let id = meta.pipeline(&configured.name, &configured.from, &destination).await?;
        let text = format!(
            "contract {}\nrefine semantics {SEMANTICS}\n",
            stream.contract.canonical_text()
        );
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
            FlowPart { config, stats: Arc::default() }
        });
        pipelines.push(Pipeline {
            name: configured.name.clone(),
            stream: stream.name.clone(),
            destination,
            quarantine: quarantine_stream(id),
            refiner: stream.refiner.clone(),
            flows: flows.collect(),
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
        .chain(pipelines.iter().map(|pipeline| StreamConfig {
            name: pipeline.quarantine.clone(),
            partitions: 1,
            retain: QUARANTINE_RETAIN,
            quota: QUARANTINE_QUOTA,
            on_full: OnFull::StopStream,
            max_origins: 1024,
        }))
        .collect();
    let flows = pipelines.iter().flat_map(|pipeline| &pipeline.flows).map(|part| Reader {
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

/// Every child's factory, for the tree.
pub(super) fn rooms(
    meta: &Arc<Meta>,
    log_room: LogRoom,
    ports: Ports,
    pipelines: &[Pipeline],
    log_slot: &Slot<EmbeddedLog>,
) -> Rooms {
    let budget = Budget::default();
    let registrar = Arc::clone(&ports.gateway.registrar);
    let pipelines = pipelines.iter().map(|pipeline| PipelineRoom {
        name: pipeline.name.clone(),
        parts: pipeline
            .flows
            .iter()
            .map(|part| {
                let room = FlowRoom {
                    config: part.config.clone(),
                    schema: pipeline.refiner.schema(),
                    refiner: Arc::clone(&pipeline.refiner),
                    sink: pipeline.plan.sink.clone(),
                    memory: Arc::clone(meta) as _,
                    stats: Arc::clone(&part.stats),
                    budget: budget.clone(),
                    log: log_slot.clone(),
                    registrar: Arc::clone(&registrar),
                };
                (format!("p{}", part.config.input.index), flow(room))
            })
            .collect(),
    });
    let enrolment = ports.enrol.map(|room| ("enrol".to_owned(), enrol(room)));
    Rooms {
        admin: [("http".to_owned(), admin(ports.admin))].into_iter().chain(enrolment).collect(),
        meta: meta_child(Arc::clone(meta)),
        log: log(log_room),
        gateway: gateway(ports.gateway),
        pipelines: pipelines.collect(),
        patience: Patience::default(),
    }
}
