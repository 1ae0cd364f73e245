//! The story of one flow: take the cursor over, learn what is bound, then read, refine and deliver until told to stop.
//!
//! In: a log, a refiner, a destination, a memory; a stop signal. Out: [`Stopped`] with the cursor, or the failure that
//! ended it. Promise: dropping the future at any await loses nothing and repeats nothing; whoever runs a flow on the same
//! cursor next continues exactly where the destination stands.
//! How: two halves in one task. One reads ahead, decodes and refines (on blocking threads); the other delivers in order.
//! At most three batches are in hand, each with its byte permit.
//! Not here: restarts and back-off (supervision).

use std::convert::Infallible;
use std::sync::Arc;

use garam_log::Log;
use garam_stage::{Cursor, CursorMemory, Destination, Failure, FailureKind, Refiner};
use tokio::sync::{mpsc, watch};

use crate::batch::Cutter;
use crate::config::FlowConfig;
use crate::deliver::{Deliverer, Halt};
use crate::error::FlowError;
use crate::quarantine::Quarantine;
use crate::start::{Unsettled, take_position};
use crate::stats::FlowHooks;

/// How a flow ends when it is asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Durable at the destination.
    pub cursor: Cursor,
}

/// What every part of a flow may look at.
pub(crate) struct Context {
    pub(crate) config: FlowConfig,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) refiner: Arc<dyn Refiner>,
    pub(crate) memory: Arc<dyn CursorMemory>,
    pub(crate) hooks: FlowHooks,
}

/// One pipeline on one partition.
pub struct Flow {
    context: Context,
    destination: Box<dyn Destination>,
}

/// Prepared batches that may wait for delivery, beside the one being prepared and the one being delivered.
const BATCHES_WAITING: usize = 1;

impl Flow {
    pub fn new(
        config: FlowConfig,
        log: Arc<dyn Log>,
        refiner: Arc<dyn Refiner>,
        destination: Box<dyn Destination>,
        memory: Arc<dyn CursorMemory>,
        hooks: FlowHooks,
    ) -> Self {
        Self { context: Context { config, log, refiner, memory, hooks }, destination }
    }

    /// Runs until `stop` becomes true (or its sender is gone) or it is where it shall stop: finishes what is in hand, flushes, and says where the
    /// cursor stands. Must run on a tokio runtime with time; CPU work goes to its blocking threads.
    pub async fn run(mut self, stop: watch::Receiver<bool>) -> Result<Stopped, Failure> {
        let ended = self.run_from_durable_state(stop).await;
        match &ended {
            Ok(Stopped { cursor }) => {
                tracing::info!(input = %self.context.config.input, next = %cursor.next, "flow stopped");
            }
            Err(failure) => self.context.hooks.stats.failed(failure),
        }
        ended
    }

    async fn run_from_durable_state(
        &mut self,
        stop: watch::Receiver<bool>,
    ) -> Result<Stopped, Failure> {
        self.destination.prepare().await?;
        let (mut epoch, mut unsettled, mut take_overs) = (0, None, 0);
        loop {
            let destination = &mut *self.destination;
            let cursor = take_position(&self.context, destination, epoch, unsettled).await?;
            epoch = cursor.epoch;
            destination.admits(&cursor, self.context.config.plan)?;
            let (from, to, why) = match self.flow(cursor, stop.clone()).await {
                Ok(cursor) => return Ok(Stopped { cursor }),
                Err(Halt::Failure(failure)) if self.was_left_behind(&failure) => {
                    let input = &self.context.config.input;
                    tracing::warn!(%input, error = %failure, "the log went on without this flow");
                    unsettled = None;
                    continue;
                }
                Err(Halt::Failure(failure) | Halt::Content(failure)) => return Err(failure),
                Err(Halt::TakeOver { from, to, why }) => (from, to, why),
            };
            self.context.hooks.stats.takes_over(&why);
            let input = &self.context.config.input;
            tracing::warn!(%input, %from, %to, error = %why, "write is unsettled, taking over again");
            let still = unsettled.is_some_and(|before: Unsettled| before.from == from);
            take_overs = if still { take_overs + 1 } else { 1 };
            if take_overs > self.context.config.limits.take_overs {
                return Err(why);
            }
            unsettled = Some(Unsettled { from, to });
        }
    }

    /// Whether the log gave up what this flow was about to read.
    fn was_left_behind(&self, failure: &Failure) -> bool {
        let Context { config, log, .. } = &self.context;
        failure.kind == FailureKind::Cursor
            && log.detached(&config.input, &config.reader_name()).is_some()
    }

    /// From an owned cursor to the end of this ownership.
    async fn flow(&mut self, cursor: Cursor, stop: watch::Receiver<bool>) -> Result<Cursor, Halt> {
        let Self { context, destination } = self;
        let context = &*context;
        let Context { config, log, memory, hooks, .. } = context;
        memory.remember(&cursor.key, cursor.next).await?;
        let (quarantine, binding) = Quarantine::open(context, &cursor).await?;
        let reader = log.reader(&config.input, cursor.next).await;
        let reader = reader.map_err(FlowError::log("read the log"))?;
        let end = log.bounds(&config.input).map_or(cursor.next, |bounds| bounds.end);
        hooks.stats.stands(&cursor, end);

        let (send, receive) = mpsc::channel(BATCHES_WAITING);
        let cutter = Cutter::new(context, reader, cursor.next, stop);
        let deliverer = Deliverer::new(context, &mut **destination, quarantine, cursor).await?;
        let reading = async {
            cutter.run(Arc::new(binding), send).await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            ended = deliverer.run(receive) => ended,
            never = reading => match never {},
        }
    }
}
