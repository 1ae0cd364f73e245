//! One partition of a pipeline as a child: a flow from the log to its destination, built anew for each generation.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use garam_dimension::Dimensions;
use garam_flow::{
    Budget, CutShort, Flow, FlowConfig, FlowHooks, FlowStats, StreamDestination, Waiting,
};
use garam_log::{EmbeddedLog, Log, LogError};
use garam_meta::Meta;
use garam_sink::SinkStats;
use garam_stage::{Failure, QuarantinedRecord, Refiner, SlotMap};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Slot;
use super::gate::Gate;
use crate::config::{Recipe, Remade, Target};
use crate::enrol::Registrar;
use crate::gateway::wall_clock_us;
use crate::supervise::{Context, Factory, Fault, Progress, factory};

/// How often a flow that had no room for what it writes into the log tries again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// What a flow is made of.
#[derive(Clone)]
pub struct FlowRoom {
    pub config: FlowConfig,
    pub schema: SchemaRef,
    pub refiner: Arc<dyn Refiner>,
    pub to: Target,
    /// Remembers cursors and plans.
    pub meta: Arc<Meta>,
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
        ended = deliver(&room, &log, &context.progress, stopping) => {
            ended.map_err(|failure| fault(failure, &room.sink_stats))
        }
        never = asked => match never {},
    }
}

/// Delivers by the plan of today, after what a crash cut short has been finished by its own.
async fn deliver(
    room: &FlowRoom,
    log: &Arc<EmbeddedLog>,
    progress: &Progress,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Failure> {
    while !*stopping.borrow() {
        let ended = room.flow(log, progress)?.run(stopping.clone()).await;
        let Err(failure) = ended else { return Ok(()) };
        if is_out_of_room(&failure) {
            // Where it ended as a failure the whole branch would, and with it the carrier, which makes the room.
            tracing::warn!(pipeline = %room.config.pipeline, input = %room.config.input, error = %failure, "waiting for room");
            let _guard = progress.waiting("room in a stream of the log");
            let asked = stopping.wait_for(|&stop| stop);
            if timeout(LOOK_FOR_ROOM, asked).await.is_ok() {
                return Ok(());
            }
            continue;
        }
        let Some(cut) = CutShort::behind(&failure).cloned() else { return Err(failure) };
        let before = match room.before(&cut, log).await {
            Ok(before) => before,
            Err(why) => return Err(unfinished(failure, &cut, &why)),
        };
        tracing::info!(pipeline = %room.config.pipeline, input = %room.config.input, next = %cut.next, end = %cut.end,
            "a batch that was cut short is finished by its own plan");
        before.flow(log, progress)?.run(stopping.clone()).await?;
    }
    Ok(())
}

impl FlowRoom {
    fn flow(&self, log: &Arc<EmbeddedLog>, progress: &Progress) -> Result<Flow, Failure> {
        let log = Arc::clone(log) as Arc<dyn Log>;
        let destination = match &self.to {
            Target::Sink(sink) => {
                sink.build_counted(&self.schema, Arc::clone(&self.sink_stats), &self.slots)?
            }
            Target::Stream(target) => {
                let (log, target) = (Arc::clone(&log), target.clone());
                Box::new(StreamDestination::new(log, target, self.schema.clone(), wall_clock_us))
            }
        };
        let hooks = FlowHooks {
            stats: Arc::clone(&self.stats),
            progress: Arc::new(SignsOfLife::of(progress)),
            budget: self.budget.clone(),
            undecodable: note_undecodable(Arc::clone(&self.registrar)),
            ..FlowHooks::default()
        };
        let (refiner, memory) = (Arc::clone(&self.refiner), Arc::clone(&self.meta) as _);
        Ok(Flow::new(self.config.clone(), log, refiner, destination, memory, hooks))
    }

    /// What delivers as the plan did that began what was cut short, up to its end; or why nothing can.
    async fn before(&self, cut: &CutShort, log: &EmbeddedLog) -> Result<Self, String> {
        let recipe = self.meta.recipe(cut.made_by).await.map_err(|error| error.to_string())?;
        let recipe = recipe.ok_or("the metadata does not say what that plan was made of")?;
        let Remade { refining, target, partitions } = Recipe::remake(&recipe, cut.made_by)?;
        let now = log.partitions(&target.stream).map_err(|error| error.to_string())?;
        if target.stream != cut.stream || now != partitions {
            let stream = &target.stream;
            return Err(format!("it wrote {partitions} partitions of stream {stream}"));
        }
        let mut before = self.clone();
        before.config.plan = cut.made_by;
        before.config.until = Some(cut.end);
        before.schema = refining.schema();
        before.refiner = refining.refiner();
        before.to = Target::Stream(target);
        Ok(before)
    }
}

/// A quarantine, or a stream that is written into, has reached its quota.
fn is_out_of_room(failure: &Failure) -> bool {
    let cause = failure.source.as_ref().and_then(|source| source.downcast_ref());
    matches!(cause, Some(LogError::Full { .. }))
}

/// What an operator may do where the plan of before cannot be had.
fn unfinished(failure: Failure, cut: &CutShort, why: &str) -> Failure {
    let what = format!(
        "{failure}; it cannot be finished by that plan: {why}; nothing was changed: put the old definition back until the pipeline \
         has passed offset {}, or choose `garam resume PIPELINE --accept-gap`",
        cut.end
    );
    Failure::new(failure.kind, what)
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
