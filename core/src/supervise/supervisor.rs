//! One supervisor: the actor around a [`Node`]. It carries out what the node decides and tells it what has happened.
//!
//! Messages: [`Halt`], [`Look`], [`Command`]. Ends of children do not come by mail, so no full mailbox can delay them:
//! the actor itself waits for each child's join handle or report.
//! Promise: if this actor panics, its children are cut off, its report is missing, and whoever waits for the report ends
//! the process (the root's is awaited by the control thread).

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::Stop;
use super::exit::Fault;
use super::handle::ControlError;
use super::kill::KillSwitch;
use super::node::{Action, Node, NodeEnd, SlotId, SlotState, join};
use super::progress::{Progress, Watch};
use super::restarts::Timing;
use super::snapshot::{Snapshot, State, millis};
use super::spec::{Branch, Child, Spec};
use super::task::{self, Context as TaskContext};

/// Control messages are few; whoever sends more waits.
const MAILBOX: usize = 16;

/// Asks the branch to stop. Answered at once; the end comes as a [`Report`].
pub(super) struct Halt(pub(super) Stop);

/// Asks for the branch as it is now.
pub(super) struct Look;

/// A change to the tree, on its way down.
pub(super) struct Command {
    /// What is left of the path from here.
    pub(super) path: Vec<String>,
    pub(super) verb: Verb,
}

pub(super) enum Verb {
    /// The path names the branch; the others name the child.
    Add(Box<Spec>),
    Remove,
    Park,
    Resume,
}

/// The last word of a supervisor.
pub(super) struct Report {
    pub(super) end: NodeEnd,
    /// What the branch consisted of, children added while it ran included.
    pub(super) children: Vec<Spec>,
    pub(super) late: Vec<String>,
    pub(super) seen: Snapshot,
}

/// What all supervisors of a tree share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) data: Handle,
    pub(super) timing: Timing,
    pub(super) kill: KillSwitch,
}

pub(super) struct Supervisor {
    node: Node,
    ground: Ground,
    live: HashMap<SlotId, Live>,
    /// How branches looked when they ended.
    seen: HashMap<SlotId, Snapshot>,
    report: Option<oneshot::Sender<Report>>,
    timer: Option<SpawnHandle>,
    began: Instant,
}

enum Live {
    Task { stop: watch::Sender<bool>, kill: KillSwitch, watch: Watch, deadline: Option<Duration> },
    Branch(Addr<Supervisor>),
}

impl Supervisor {
    /// Starts a supervisor on this thread. Without a report it has broken.
    pub(super) fn plant(
        path: String,
        branch: Branch,
        before: Option<&Snapshot>,
        ground: Ground,
    ) -> (Addr<Self>, oneshot::Receiver<Report>) {
        let (report, reported) = oneshot::channel();
        let now = Instant::now();
        let node = Node::new(path, branch, before, ground.timing, fastrand::u64(..), now);
        let supervisor = Self {
            node,
            ground,
            live: HashMap::new(),
            seen: HashMap::new(),
            report: Some(report),
            timer: None,
            began: now,
        };
        (supervisor.start(), reported)
    }

    /// Carries out what the node has decided, then waits for what is due next.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        if self.report.is_none() {
            return;
        }
        for action in self.node.take_actions() {
            match action {
                Action::Spawn(id) => self.spawn_child(id, ctx),
                Action::AskToStop(id) => self.ask(id, Stop::Graceful, ctx),
                Action::Kill(id) => self.ask(id, Stop::Immediate, ctx),
                Action::End(end) => return self.conclude(end, ctx),
            }
        }
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = self.node.next_wake().map(|due| {
            ctx.run_later(due.saturating_duration_since(Instant::now()), |act, ctx| {
                act.timer = None;
                act.node.tick(Instant::now());
                act.drive(ctx);
            })
        });
    }

    fn spawn_child(&mut self, id: SlotId, ctx: &mut Context<Self>) {
        let Some(slot) = self.node.slot(id) else { return };
        let path = join(&self.node.path, slot.spec.name());
        tracing::info!(child = path, generation = slot.generation, "child starts");
        match slot.spec.clone() {
            Spec::Task(child) => self.spawn_task(id, child, path, slot.generation, ctx),
            Spec::Branch(branch) => {
                let ground = Ground { kill: self.ground.kill.child(), ..self.ground.clone() };
                let (addr, report) = Self::plant(path, branch, self.seen.get(&id), ground);
                self.live.insert(id, Live::Branch(addr));
                ctx.spawn(report.into_actor(self).map(move |report, act, ctx| {
                    act.branch_ended(id, report.ok(), ctx);
                }));
            }
        }
    }

    fn spawn_task(
        &mut self,
        id: SlotId,
        child: Child,
        path: String,
        generation: u64,
        ctx: &mut Context<Self>,
    ) {
        let kill = self.ground.kill.child();
        let progress = Progress::new();
        let (stop, stopped) = watch::channel(false);
        let watch = Watch::new(progress.clone(), Instant::now());
        let context = TaskContext { path, generation, progress, kill: kill.clone(), stop: stopped };
        let life = self.ground.data.spawn(task::live(child.factory, context));
        self.live.insert(id, Live::Task { stop, kill, watch, deadline: child.progress_deadline });
        ctx.spawn(life.into_actor(self).map(move |joined, act, ctx| {
            act.live.remove(&id);
            act.node.exited(id, task::joined(joined), Instant::now());
            act.drive(ctx);
        }));
    }

    fn branch_ended(&mut self, id: SlotId, report: Option<Report>, ctx: &mut Context<Self>) {
        self.live.remove(&id);
        let now = Instant::now();
        match report {
            Some(Report { end, children, late, seen }) => {
                self.seen.insert(id, seen);
                self.node.late.extend(late);
                self.node.branch_ended(id, end, children, now);
            }
            None => {
                let what = format!("a supervisor below {:?} broke", self.node.path);
                self.node.branch_ended(id, NodeEnd::Fatal(Fault::internal(what)), Vec::new(), now);
            }
        }
        self.drive(ctx);
    }

    fn ask(&mut self, id: SlotId, how: Stop, ctx: &mut Context<Self>) {
        match self.live.get(&id) {
            Some(Live::Task { stop, .. }) if how == Stop::Graceful => {
                stop.send_replace(true);
            }
            Some(Live::Task { kill, .. }) => kill.kill(),
            Some(Live::Branch(addr)) => {
                // A branch that cannot take the message is gone, and its report, or the lack of one, is awaited anyway.
                ctx.spawn(addr.send(Halt(how)).into_actor(self).map(|_taken, _act, _ctx| ()));
            }
            None => {}
        }
    }

    fn heartbeat(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        for (&id, live) in &mut self.live {
            if let Live::Task { watch, deadline: Some(deadline), .. } = live {
                let idle = watch.idle(now);
                if idle > *deadline {
                    self.node.stuck(id, idle, now);
                }
            }
        }
        self.drive(ctx);
    }

    fn conclude(&mut self, end: NodeEnd, ctx: &mut Context<Self>) {
        let seen = self.look();
        if let Some(report) = self.report.take() {
            let children = self.node.children();
            let late = std::mem::take(&mut self.node.late);
            // Whoever waited for it has gone only if the whole tree is going.
            let _heard = report.send(Report { end, children, late, seen }).is_ok();
        }
        ctx.stop();
    }

    /// This branch with its tasks; running branches below are still without children.
    fn look(&mut self) -> Snapshot {
        let now = Instant::now();
        let children = self.node.slots.iter().map(|slot| {
            let alive = matches!(slot.state, SlotState::Running | SlotState::Ending { .. });
            let mut snapshot = Snapshot {
                name: slot.spec.name().to_owned(),
                path: join(&self.node.path, slot.spec.name()),
                role: role(&slot.spec).to_owned(),
                state: state(slot.state, now),
                generation: slot.generation,
                restarts: slot.restarts,
                last_fault: slot.last_fault.clone(),
                uptime_ms: alive.then(|| millis(now.duration_since(slot.began))),
                since_progress_ms: None,
                children: Vec::new(),
            };
            match self.live.get_mut(&slot.id) {
                Some(Live::Task { watch, deadline, .. }) => {
                    snapshot.since_progress_ms = deadline.map(|_| millis(watch.idle(now)));
                    if snapshot.state == State::Running {
                        snapshot.state = activity(watch, deadline.is_some());
                    }
                }
                Some(Live::Branch(_)) => {}
                None => {
                    let seen = self.seen.get(&slot.id);
                    snapshot.children = seen.map(|seen| seen.children.clone()).unwrap_or_default();
                }
            }
            snapshot
        });
        let children = children.collect();
        Snapshot {
            name: self.node.branch.name.clone(),
            path: self.node.path.clone(),
            role: self.node.branch.strategy.name().to_owned(),
            state: if self.node.is_leaving() { State::Stopping } else { State::Running },
            generation: 1,
            restarts: 0,
            last_fault: None,
            uptime_ms: Some(millis(now.duration_since(self.began))),
            since_progress_ms: None,
            children,
        }
    }

    fn obey(&mut self, name: Option<&str>, verb: Verb) -> Result<(), ControlError> {
        let now = Instant::now();
        let named = || name.ok_or(ControlError::NoSuchChild { path: String::new() });
        match verb {
            Verb::Add(spec) => self.node.add(*spec, now),
            Verb::Remove => self.node.remove(named()?, now),
            Verb::Park => self.node.park(named()?, now),
            Verb::Resume => self.node.resume(named()?, now),
        }
    }

    fn below(&self, name: &str) -> Result<Addr<Self>, ControlError> {
        let path = || join(&self.node.path, name);
        let slot =
            self.node.slot_named(name).ok_or_else(|| ControlError::NoSuchChild { path: path() })?;
        match (self.live.get(&slot.id), &slot.spec) {
            (Some(Live::Branch(addr)), _) => Ok(addr.clone()),
            (_, Spec::Branch(_)) => Err(ControlError::NotRunning { path: path() }),
            (_, Spec::Task(_)) => Err(ControlError::NoSuchChild { path: path() }),
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(self.ground.timing.heartbeat, Self::heartbeat);
        self.node.start(Instant::now());
        self.drive(ctx);
    }
}

impl Drop for Supervisor {
    /// Also on the way of a panic: nothing runs unsupervised.
    fn drop(&mut self) {
        self.ground.kill.kill();
    }
}

impl Message for Halt {
    type Result = ();
}

impl Handler<Halt> for Supervisor {
    type Result = ();

    fn handle(&mut self, Halt(how): Halt, ctx: &mut Self::Context) {
        self.node.stop(how, Instant::now());
        self.drive(ctx);
    }
}

impl Message for Look {
    type Result = Result<Snapshot, ControlError>;
}

impl Handler<Look> for Supervisor {
    type Result = ResponseFuture<Result<Snapshot, ControlError>>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        let mut snapshot = self.look();
        let below = self.node.slots.iter().map(|slot| match self.live.get(&slot.id) {
            Some(Live::Branch(addr)) => Some(addr.clone()),
            _ => None,
        });
        let below: Vec<_> = below.collect();
        Box::pin(async move {
            for (child, addr) in snapshot.children.iter_mut().zip(below) {
                let Some(addr) = addr else { continue };
                // A branch that ends just now is shown without its children.
                if let Ok(Ok(seen)) = addr.send(Look).await {
                    child.children = seen.children;
                }
            }
            Ok(snapshot)
        })
    }
}

impl Message for Command {
    type Result = Result<(), ControlError>;
}

impl Handler<Command> for Supervisor {
    type Result = ResponseFuture<Result<(), ControlError>>;

    fn handle(&mut self, command: Command, ctx: &mut Self::Context) -> Self::Result {
        let Command { mut path, verb } = command;
        let goes_below = match verb {
            Verb::Add(_) => !path.is_empty(),
            Verb::Remove | Verb::Park | Verb::Resume => path.len() > 1,
        };
        if !goes_below {
            let done = self.obey(path.first().map(String::as_str), verb);
            self.drive(ctx);
            return Box::pin(std::future::ready(done));
        }
        match self.below(&path.remove(0)) {
            Ok(addr) => Box::pin(async move {
                addr.send(Command { path, verb }).await.unwrap_or(Err(ControlError::Stopping))
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

fn role(spec: &Spec) -> &'static str {
    match spec {
        Spec::Task(_) => "task",
        Spec::Branch(branch) => branch.strategy.name(),
    }
}

fn state(state: SlotState, now: Instant) -> State {
    match state {
        SlotState::Running => State::Running,
        SlotState::Ending { .. } | SlotState::Down => State::Stopping,
        SlotState::BackingOff { until } => {
            State::BackingOff { retry_in_ms: millis(until.saturating_duration_since(now)) }
        }
        SlotState::Parked => State::Parked,
        SlotState::Stopped => State::Stopped,
    }
}

fn activity(watch: &Watch, is_watched: bool) -> State {
    match watch.waits_for() {
        Some(on) => State::Waiting { on: on.to_owned() },
        None if is_watched && !watch.has_begun() => State::Starting,
        None => State::Running,
    }
}
