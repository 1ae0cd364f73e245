//! A world that survives crashes: log, destination and memory keep what was durable, the rest is gone.
//!
//! Every call a flow makes is a step, most are two (before and after the effect). `crash_at` ends the life at a step:
//! from then on nothing of that life moves again, whatever it still holds.

mod destination;
mod entries;
mod log;
mod memory;
mod refiner;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use garam_flow::{
    Done, Flow, FlowConfig, FlowHooks, FlowLimits, Lane, NoProgress, Oldest, Request, RequestId,
    Start, Stopped, StreamDestination, StreamTarget, carry_out, oldest_waiting, requeue_stream,
};
use garam_proto::{LogOffset, PartitionId, PipelineId, StreamName};
use garam_stage::{Cursor, Destination, Failure, PlanId, Refiner as _};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub(crate) use destination::{Commit, DestinationState, Fault};
pub(crate) use log::{CutOff, Item, LogState};
pub(crate) use memory::MemoryState;

/// Everything that is shared by the lives of a flow.
pub(crate) struct World {
    state: Mutex<State>,
    /// Something changed: look again.
    pub(crate) changed: Notify,
}

pub(crate) struct State {
    pub(crate) life: u64,
    /// Lives that may still act. Two at once: a zombie and its successor.
    alive: Vec<u64>,
    pub(crate) steps: u64,
    pub(crate) crash_at: Option<u64>,
    pub(crate) log: LogState,
    pub(crate) destination: DestinationState,
    pub(crate) memory: MemoryState,
    /// The requeue lane is what flows now: destination and memory are its own, and what is wrong with records is mended.
    pub(crate) requeues: bool,
    /// A stream of the log is the destination.
    pub(crate) streams: bool,
}

/// How a life ended.
#[derive(Debug)]
pub(crate) enum End {
    Crashed,
    Stopped(Stopped),
    Failed(Failure),
}

pub(crate) const PIPELINE: PipelineId = PipelineId([7; 16]);

pub(crate) fn input() -> PartitionId {
    PartitionId { stream: StreamName::new("app").unwrap(), index: 3 }
}

/// Partitions of the stream that takes the records, where a stream does.
pub(crate) const OUTPUTS: u32 = 3;

pub(crate) fn output(index: u32) -> PartitionId {
    PartitionId { stream: StreamName::new("by-key").unwrap(), index }
}

impl World {
    pub(crate) fn new(items: &[Item]) -> Arc<Self> {
        let state = State {
            life: 0,
            alive: Vec::new(),
            steps: 0,
            crash_at: None,
            log: LogState::new(items),
            destination: DestinationState::default(),
            memory: MemoryState::default(),
            requeues: false,
            streams: false,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A point where the life may end. What a dead life awaits never comes.
    pub(crate) async fn step(&self, life: u64) {
        tokio::task::yield_now().await;
        {
            let mut state = self.lock();
            if state.alive.contains(&life) {
                state.steps += 1;
                if state.crash_at != Some(state.steps) {
                    return;
                }
                state.alive.retain(|&other| other != life);
            }
        }
        self.changed.notify_waiters();
        std::future::pending::<()>().await;
    }

    /// Like [`World::eventually`], for tests: ten virtual minutes without it are a failed test.
    #[track_caller]
    pub(crate) fn until(&self, is: impl FnMut(&mut State) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let waited = timeout(Duration::from_secs(600), self.eventually(is)).await;
            waited.unwrap_or_else(|_| panic!("it never happened: {caller}"));
        }
    }

    /// For the world's own parts, which wait for as long as it takes.
    async fn eventually(&self, mut is: impl FnMut(&mut State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is(&mut self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// A new process: a new life with nothing but what was durable.
    pub(crate) fn be_born(&self) -> u64 {
        let mut state = self.lock();
        state.life += 1;
        state.steps = 0;
        let life = state.life;
        state.alive.push(life);
        life
    }

    /// The process is gone, and what it had not made durable.
    pub(crate) fn die(&self, life: u64) {
        let mut state = self.lock();
        state.alive.retain(|&other| other != life);
        state.crash_at = None;
        state.log.forget_unsynced();
        state.destination.forget_unflushed();
    }

    pub(crate) fn flow(self: &Arc<Self>, life: u64, config: FlowConfig, hooks: FlowHooks) -> Flow {
        let log = Arc::new(log::FakeLog { world: Arc::clone(self), life });
        let refiner = Arc::new(refiner::FakeRefiner { life, mended: self.lock().requeues });
        let destination: Box<dyn Destination> = if self.lock().streams {
            let target = StreamTarget { stream: output(0).stream, key: vec!["text".into()] };
            let stream = StreamDestination::new(log.clone(), target, refiner.schema(), || 0);
            Box::new(destination::Noted { world: Arc::clone(self), inner: stream })
        } else {
            Box::new(destination::FakeDestination { world: Arc::clone(self), life })
        };
        Flow::new(
            config,
            log,
            refiner,
            destination,
            Arc::new(memory::FakeMemory { world: Arc::clone(self), life }),
            hooks,
        )
    }

    /// Lives once, with small batches, until crashed, failed, or stopped because everything is delivered.
    pub(crate) async fn live(self: &Arc<Self>) -> End {
        self.live_as(config()).await
    }

    pub(crate) async fn live_as(self: &Arc<Self>, config: FlowConfig) -> End {
        self.live_with(config, FlowHooks::default()).await
    }

    pub(crate) async fn live_with(self: &Arc<Self>, config: FlowConfig, hooks: FlowHooks) -> End {
        let life = self.be_born();
        let (stop, stopping) = watch::channel(false);
        let running = self.flow(life, config, hooks).run(stopping);
        tokio::pin!(running);
        let stopper = async {
            self.until(|state| state.done()).await;
            stop.send_replace(true);
            tokio::time::sleep(Duration::from_secs(600)).await;
        };
        let end = tokio::select! {
            ended = &mut running => match ended {
                Ok(stopped) => End::Stopped(stopped),
                Err(failure) => End::Failed(failure),
            },
            () = self.eventually(|state| !state.alive.contains(&life)) => End::Crashed,
            () = stopper => panic!("a flow stops soon when asked to"),
        };
        self.die(life);
        end
    }

    /// From here on the requeue lane flows, into an empty table. Gives what the pipeline's own lane delivered.
    pub(crate) fn turn_to_requeue(&self) -> DestinationState {
        let mut state = self.lock();
        state.requeues = true;
        state.memory = MemoryState::default();
        std::mem::take(&mut state.destination)
    }

    /// Carries a request out in a life of its own; `None`: crashed.
    pub(crate) async fn carry_out(self: &Arc<Self>, request: &Request) -> Option<Done> {
        let life = self.be_born();
        let log = log::FakeLog { world: Arc::clone(self), life };
        let done = tokio::select! {
            done = carry_out(&log, request, &NoProgress, || 0) => Some(done.unwrap()),
            () = self.eventually(|state| !state.alive.contains(&life)) => None,
        };
        self.die(life);
        done
    }

    /// What waits in the quarantine.
    pub(crate) async fn oldest(self: &Arc<Self>, undone: &[RequestId]) -> Oldest {
        let life = self.be_born();
        let log = log::FakeLog { world: Arc::clone(self), life };
        let oldest = oldest_waiting(&log, PIPELINE, undone, &NoProgress).await.unwrap();
        self.die(life);
        oldest
    }

    /// Lives again and again until everything is delivered. Bounded: a world that never gets there is a failed test.
    pub(crate) async fn live_on(self: &Arc<Self>) -> Cursor {
        for _ in 0..50 {
            match self.live().await {
                End::Stopped(stopped) => return stopped.cursor,
                End::Crashed => {}
                End::Failed(failure) => panic!("life failed: {:?} {failure}", failure.kind),
            }
        }
        panic!("everything should have been delivered within 50 lives");
    }
}

impl State {
    /// Whether the destination stands at the end of the input.
    pub(crate) fn done(&self) -> bool {
        let next = self.destination.durable_cursor().map(|cursor| cursor.next);
        next == Some(if self.requeues { self.log.requeue_end() } else { self.log.end() })
    }
}

/// Batches of few rows, so that short inputs make several.
pub(crate) fn config() -> FlowConfig {
    let limits = FlowLimits { max_rows: 6, ..FlowLimits::default() };
    FlowConfig { limits, ..FlowConfig::new(PIPELINE, input(), PlanId(1), Start::Earliest) }
}

/// The same for the requeue lane.
pub(crate) fn requeue_config() -> FlowConfig {
    let input = PartitionId { stream: requeue_stream(PIPELINE), index: 0 };
    FlowConfig { input, lane: Lane::Requeue, ..config() }
}

pub(crate) fn offset(at: usize) -> LogOffset {
    LogOffset(at as u64)
}
