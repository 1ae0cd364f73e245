//! One partition of a pipeline as a child: a flow from the log to its destination, built anew for each generation.

use std::convert::Infallible;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use garam_dimension::Dimensions;
use garam_flow::{Budget, Flow, FlowConfig, FlowHooks, FlowStats, StreamDestination, Waiting};
use garam_log::{EmbeddedLog, Log};
use garam_sink::SinkStats;
use garam_stage::{CursorMemory, Failure, QuarantinedRecord, Refiner, SlotMap};
use tokio::sync::watch;

use super::Slot;
use super::gate::Gate;
use crate::config::Target;
use crate::enrol::Registrar;
use crate::gateway::wall_clock_us;
use crate::supervise::{Context, Factory, Fault, Progress, factory};

/// What a flow is made of.
#[derive(Clone)]
pub struct FlowRoom {
    pub config: FlowConfig,
    pub schema: SchemaRef,
    pub refiner: Arc<dyn Refiner>,
    pub to: Target,
    pub memory: Arc<dyn CursorMemory>,
    pub stats: Arc<FlowStats>,
    /// Of the destination, over all flows of the pipeline.
    pub sink_stats: Arc<SinkStats>,
    /// By which the rows of a table are placed in its shards.
    pub slots: SlotMap,
    pub budget: Budget,
    pub log: Slot<EmbeddedLog>,
    pub gate: Arc<Gate>,
    /// Hears of blocks that do not decode.
    pub registrar: Arc<Registrar>,
    pub dimensions: Dimensions,
    /// Those of them that it joins.
    pub joins: Vec<String>,
}

pub fn flow(room: FlowRoom) -> Factory {
    factory(move |context| run_flow(room.clone(), context))
}

/// Runs one flow until it is asked to stop; while the pipeline is paused it waits at its cursor.
pub(super) async fn run_flow(room: FlowRoom, context: Context) -> Result<(), Fault> {
    // A flow that waits for a dimension is not inside the gate: nobody waits for it there.
    while room.has_joins(&context).await
        && let Some(_inside) = room.gate.pass(&context).await
    {
        run_open(room.clone(), &context).await?;
        if context.is_stopping() {
            break;
        }
    }
    Ok(())
}

impl FlowRoom {
    /// Waits until each dimension that it joins was read once. `false`: the task was asked to stop meanwhile.
    async fn has_joins(&self, context: &Context) -> bool {
        let _guard = context.progress.waiting("a dimension that was never read");
        tokio::select! {
            () = context.stopping() => false,
            () = self.dimensions.present(&self.joins) => true,
        }
    }
}

/// Runs it until the task is asked to stop or the gate is closed.
async fn run_open(room: FlowRoom, context: &Context) -> Result<(), Fault> {
    let log = room.log.wait(&context.progress, "the log").await;
    let destination = match &room.to {
        Target::Sink(sink) => {
            sink.build_counted(&room.schema, Arc::clone(&room.sink_stats), &room.slots)?
        }
        Target::Stream(target) => {
            let (log, target) = (Arc::clone(&log) as Arc<dyn Log>, target.clone());
            Box::new(StreamDestination::new(log, target, room.schema.clone(), wall_clock_us))
        }
    };
    let hooks = FlowHooks {
        stats: room.stats,
        progress: Arc::new(SignsOfLife::of(&context.progress)),
        budget: room.budget,
        undecodable: note_undecodable(room.registrar),
        ..FlowHooks::default()
    };
    let flow = Flow::new(room.config, log, room.refiner, destination, room.memory, hooks);
    let (stop, stopping) = watch::channel(false);
    let asked = async {
        tokio::select! {
            () = context.stopping() => {}
            () = room.gate.closed() => {}
        }
        stop.send_replace(true);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        ended = flow.run(stopping) => {
            ended.map(drop).map_err(|failure| fault(failure, &room.sink_stats))
        }
        never = asked => match never {},
    }
}

/// What the destination itself refuses is tried again while the pipeline is parked: rights are given and tables made meanwhile.
fn fault(failure: Failure, sink: &SinkStats) -> Fault {
    let is_refusal = sink.has_refused(&failure);
    let fault = Fault::from(failure);
    if is_refusal { fault.probed() } else { fault }
}

/// A line in the audit log for each; the flow does not wait for it.
fn note_undecodable(registrar: Arc<Registrar>) -> Arc<dyn Fn(&QuarantinedRecord) + Send + Sync> {
    Arc::new(move |record| {
        let (registrar, record) = (Arc::clone(&registrar), record.clone());
        tokio::spawn(async move {
            let QuarantinedRecord { origin, host, stream, detail, .. } = record;
            registrar.undecodable(origin.agent, &host, stream.as_str(), &detail).await;
        });
    })
}

/// What the flow says about itself, in the supervisor's words.
pub(super) struct SignsOfLife(Progress);

impl SignsOfLife {
    pub(super) fn of(progress: &Progress) -> Self {
        Self(progress.clone())
    }
}

impl garam_flow::Progress for SignsOfLife {
    fn beat(&self) {
        self.0.working();
    }

    fn waiting(&self, why: Waiting) {
        self.0.resting(match why {
            Waiting::Entries => "entries",
            Waiting::Budget => "its share of memory",
        });
    }
}
