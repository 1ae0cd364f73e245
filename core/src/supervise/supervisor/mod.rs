//! One supervisor: the actor around a [`Node`]. It carries out what the node decides and tells it what has happened.
//!
//! Messages: [`Halt`], [`Look`], [`Command`]. Ends of children do not come by mail, so no full mailbox can delay them:
//! the actor itself waits for each child's join handle or report.
//! Promise: if this actor panics, its children are cut off, its report is missing, and whoever waits for the report ends
//! the process (the root's is awaited by the control thread).

mod looking;
mod messages;

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::supervise::Stop;
use crate::supervise::exit::Fault;
use crate::supervise::handle::ControlError;
use crate::supervise::kill::KillSwitch;
use crate::supervise::node::{Action, Node, NodeEnd, SlotId, join};
use crate::supervise::progress::{Progress, Watch};
use crate::supervise::restarts::Timing;
use crate::supervise::snapshot::Snapshot;
use crate::supervise::spec::{Branch, Child, Spec};
use crate::supervise::task::{self, Context as TaskContext};

/// Control messages are few; whoever sends more waits.
const MAILBOX: usize = 16;

pub(in crate::supervise) use messages::{Command, Halt, Look, Report, Verb};

/// What all supervisors of a tree share.
#[derive(Clone)]
pub(in crate::supervise) struct Ground {
    pub(in crate::supervise) data: Handle,
    pub(in crate::supervise) timing: Timing,
    pub(in crate::supervise) kill: KillSwitch,
}

pub(in crate::supervise) struct Supervisor {
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
    pub(in crate::supervise) fn plant(
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
                let name = self.node.slot(id).map_or("", |slot| slot.spec.name());
                let what = format!("the supervisor of {} broke", join(&self.node.path, name));
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

    pub(in crate::supervise) fn below(&self, name: &str) -> Result<Addr<Self>, ControlError> {
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

impl Handler<Halt> for Supervisor {
    type Result = ();

    fn handle(&mut self, Halt(how): Halt, ctx: &mut Self::Context) {
        self.node.stop(how, Instant::now());
        self.drive(ctx);
    }
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
