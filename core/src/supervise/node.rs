//! Decides: what one supervisor does about its children. Plain and synchronous; the actor around it only acts.
//!
//! In: starts, exits, stalls, commands and the passing of time, each with its moment. Out: [`Action`]s, in order.
//! Promise: a unit of restart is started again only after every part of it has ended; a decision about a unit falls once,
//! when all of it is down, by the first fault that was not the effect of another; every wait has an end.
//! Not here: tasks, actors, clocks and messages.
//!
//! ```text
//!            exits, unit kept down            all of the unit down         due
//! Running ─────────────────────────► Down ──────────────────────► BackingOff ──► Running
//!    │ stuck · regroup · park · remove · leave      │ cannot heal, or too often
//!    └──► Ending ──exits──► Down · Parked · Stopped └──► Parked · Stopped · the branch itself ends
//! ```

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Stop;
use super::exit::{Exit, Fault};
use super::handle::ControlError;
use super::policy::{Retry, kind_name, policy};
use super::restarts::{Backoff, History, Timing};
use super::snapshot::{LastFault, Snapshot};
use super::spec::{Branch, OnExceeded, Restart, Spec, Strategy, WhenStuck};

/// One child for as long as the node knows it; never given twice.
pub(super) type SlotId = u64;

/// What the actor does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Spawn(SlotId),
    AskToStop(SlotId),
    Kill(SlotId),
    /// The node is done. Nothing follows.
    End(NodeEnd),
}

/// How a node ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeEnd {
    Stopped,
    /// It cannot keep its children alive: its own supervisor decides.
    Escalated(Fault),
    /// It is to be put aside until somebody resumes it.
    GaveUp(Fault),
    /// The process must end.
    Fatal(Fault),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) branch: Branch,
    pub(super) slots: Vec<Slot>,
    /// Who missed a deadline in a graceful stop.
    pub(super) late: Vec<String>,
    timing: Timing,
    chance: fastrand::Rng,
    history: History,
    regroup: Option<Regroup>,
    leaving: Option<(Stop, NodeEnd)>,
    actions: Vec<Action>,
    next_id: SlotId,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) spec: Spec,
    pub(super) state: SlotState,
    pub(super) generation: u64,
    pub(super) restarts: u64,
    pub(super) last_fault: Option<LastFault>,
    /// When the newest generation began.
    pub(super) began: Instant,
    history: History,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Running,
    Ending {
        then: Then,
        deadline: Option<Instant>,
        killed: bool,
    },
    /// Ended, and waits for the rest of its unit.
    Down,
    BackingOff {
        until: Instant,
    },
    Parked,
    Stopped,
}

/// Why a child is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Restart,
    Regroup,
    Park,
    Remove,
    Leave,
}

/// A group restart under way.
#[derive(Debug)]
struct Regroup {
    /// The unit: this slot and all after it.
    first: usize,
    culprit: SlotId,
    fault: Fault,
    /// Whether the fault is somebody's own, not yet an effect only.
    own: bool,
}

impl Node {
    /// `before`: what was seen of this branch in its last life; counters go on from there.
    pub(super) fn new(
        path: String,
        mut branch: Branch,
        before: Option<&Snapshot>,
        timing: Timing,
        seed: u64,
        now: Instant,
    ) -> Self {
        let specs = std::mem::take(&mut branch.children);
        let mut node = Self {
            path,
            branch,
            slots: Vec::new(),
            late: Vec::new(),
            timing,
            chance: fastrand::Rng::with_seed(seed),
            history: History::default(),
            regroup: None,
            leaving: None,
            actions: Vec::new(),
            next_id: 0,
        };
        for spec in specs {
            let seen = before.and_then(|b| b.children.iter().find(|c| c.name == spec.name()));
            node.insert(spec, seen, now);
        }
        node
    }

    pub(super) fn start(&mut self, now: Instant) {
        for i in 0..self.slots.len() {
            self.spawn(i, now);
        }
    }

    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(super) fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    pub(super) fn slot_named(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.spec.name() == name)
    }

    /// The children as they stand, for the next life of this branch. Temporary ones have only one.
    pub(super) fn children(&self) -> Vec<Spec> {
        let lasting = self.slots.iter().filter(|slot| slot.spec.restart() != Restart::Temporary);
        lasting.map(|slot| slot.spec.clone()).collect()
    }

    /// A child's task has ended.
    pub(super) fn exited(&mut self, id: SlotId, exit: Exit, now: Instant) {
        let Some(i) = self.index(id) else { return };
        let then = match self.slots[i].state {
            SlotState::Running => None,
            SlotState::Ending { then, .. } => Some(then),
            _ => return,
        };
        if self.leaving.is_some() {
            self.note_end(i, &exit);
            self.slots[i].state = SlotState::Stopped;
            return self.go_on_leaving(now);
        }
        match then {
            None => self.ended_unasked(i, &exit, now),
            Some(Then::Restart) => self.ended_unasked(i, &Exit::Stuck, now),
            Some(Then::Regroup) => {
                self.note_end(i, &exit);
                self.slots[i].state = SlotState::Down;
                self.blame(id, &exit);
                self.settle(now);
            }
            Some(Then::Park) => {
                self.note_end(i, &exit);
                self.slots[i].state = SlotState::Parked;
                self.settle(now);
            }
            Some(Then::Remove) => {
                self.note_end(i, &exit);
                self.remove_slot(i);
                self.settle(now);
            }
            // Only a node that leaves says so, and that was seen above.
            Some(Then::Leave) => self.slots[i].state = SlotState::Stopped,
        }
    }

    /// A child branch has ended.
    pub(super) fn branch_ended(
        &mut self,
        id: SlotId,
        end: NodeEnd,
        children: Vec<Spec>,
        now: Instant,
    ) {
        let Some(i) = self.index(id) else { return };
        if let Spec::Branch(branch) = &mut self.slots[i].spec {
            branch.children = children;
        }
        let counts = matches!(
            self.slots[i].state,
            SlotState::Running | SlotState::Ending { then: Then::Regroup, .. }
        );
        match end {
            NodeEnd::Stopped => self.exited(id, Exit::Stopped, now),
            NodeEnd::Escalated(fault) => self.exited(id, Exit::Failed(fault), now),
            NodeEnd::Fatal(fault) => self.end(NodeEnd::Fatal(fault)),
            NodeEnd::GaveUp(fault) if counts && self.leaving.is_none() => {
                self.note_fault(i, "gave_up", &fault);
                self.put_aside(i, &fault);
                self.settle(now);
            }
            NodeEnd::GaveUp(fault) => self.exited(id, Exit::Failed(fault), now),
        }
    }

    /// The heartbeat found no progress.
    pub(super) fn stuck(&mut self, id: SlotId, idle: Duration, now: Instant) {
        let Some(i) = self.index(id) else { return };
        let slot = &self.slots[i];
        if slot.state != SlotState::Running || self.leaving.is_some() {
            return;
        }
        let (name, idle_s) = (self.path_of(i), idle.as_secs());
        if matches!(&slot.spec, Spec::Task(child) if child.when_stuck == WhenStuck::EndProcess) {
            tracing::error!(
                child = name,
                idle_s,
                "a child is stuck that must not be; the process ends"
            );
            self.note_fault(i, Exit::Stuck.name(), &Exit::Stuck.fault());
            let what = format!("{name} made no progress for {idle_s} s and cannot be replaced");
            return self.end(NodeEnd::Fatal(Fault::internal(what)));
        }
        tracing::warn!(child = name, idle_s, "child is stuck; it is cut off");
        self.cut_off(i, Then::Restart, now);
    }

    /// Time has passed: starts what is due, cuts off who is late.
    pub(super) fn tick(&mut self, now: Instant) {
        for i in 0..self.slots.len() {
            match self.slots[i].state {
                SlotState::BackingOff { until } if until <= now => self.spawn(i, now),
                SlotState::Ending { then, deadline: Some(deadline), killed } if deadline <= now => {
                    if killed {
                        let name = self.path_of(i);
                        tracing::error!(
                            child = name,
                            "cannot end a child: it holds its thread; the process ends"
                        );
                        let what =
                            format!("{name} was cut off but did not end: it holds its thread");
                        return self.end(NodeEnd::Fatal(Fault::internal(what)));
                    }
                    self.too_late(i);
                    self.cut_off(i, then, now);
                }
                _ => {}
            }
        }
    }

    /// When [`Node::tick`] is due next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let due = self.slots.iter().filter_map(|slot| match slot.state {
            SlotState::BackingOff { until } => Some(until),
            SlotState::Ending { deadline, .. } => deadline,
            _ => None,
        });
        due.min()
    }

    pub(super) fn stop(&mut self, how: Stop, now: Instant) {
        match &mut self.leaving {
            Some((current, _)) => {
                if how == Stop::Immediate {
                    *current = how;
                }
                self.go_on_leaving(now);
            }
            None => self.leave(how, NodeEnd::Stopped, now),
        }
    }

    pub(super) fn add(&mut self, spec: Spec, now: Instant) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        if self.slot_named(spec.name()).is_some() {
            return Err(ControlError::NameTaken { name: spec.name().to_owned() });
        }
        self.insert(spec, None, now);
        self.spawn(self.slots.len() - 1, now);
        Ok(())
    }

    /// Ends a child for good, gracefully.
    pub(super) fn remove(&mut self, name: &str, now: Instant) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        let i = self.find(name)?;
        if self.is_alive(i) {
            self.ask_to_stop(i, Then::Remove, now);
        } else {
            self.remove_slot(i);
        }
        Ok(())
    }

    /// Ends a child, gracefully, until it is resumed. Its siblings run on.
    pub(super) fn park(&mut self, name: &str, now: Instant) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        let i = self.find(name)?;
        if self.is_alive(i) {
            self.ask_to_stop(i, Then::Park, now);
        } else {
            self.slots[i].state = SlotState::Parked;
        }
        Ok(())
    }

    /// Starts a child that was parked or has stopped, as if it had never failed.
    pub(super) fn resume(&mut self, name: &str, now: Instant) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        let i = self.find(name)?;
        if !matches!(self.slots[i].state, SlotState::Parked | SlotState::Stopped) {
            return Err(ControlError::NotParked { name: name.to_owned() });
        }
        self.slots[i].history.clear();
        self.slots[i].backoff.reset(&self.timing);
        self.spawn(i, now);
        Ok(())
    }

    /// A child that runs has ended and nobody had asked it to.
    fn ended_unasked(&mut self, i: usize, exit: &Exit, now: Instant) {
        let restarts = match self.slots[i].spec.restart() {
            Restart::Permanent => true,
            Restart::Transient => !matches!(exit, Exit::Finished | Exit::Stopped),
            Restart::Temporary => false,
        };
        if restarts || !matches!(exit, Exit::Finished | Exit::Stopped) {
            self.note_fault(i, exit.name(), &exit.fault());
        }
        if !restarts {
            tracing::info!(child = self.path_of(i), exit = exit.name(), "child has ended");
            match self.slots[i].spec.restart() {
                Restart::Temporary => self.remove_slot(i),
                _ => self.slots[i].state = SlotState::Stopped,
            }
            return;
        }
        self.slots[i].state = SlotState::Down;
        let id = self.slots[i].id;
        let first = match self.branch.strategy {
            Strategy::OneForOne => return self.decide(i, i..i + 1, &exit.fault(), now),
            Strategy::RestForOne => i,
            Strategy::OneForAll => 0,
        };
        self.blame(id, exit);
        let own = exit.is_own_fault();
        let regroup =
            self.regroup.get_or_insert(Regroup { first, culprit: id, fault: exit.fault(), own });
        regroup.first = regroup.first.min(first);
        for j in regroup.first..self.slots.len() {
            match self.slots[j].state {
                SlotState::Running => self.cut_off(j, Then::Regroup, now),
                SlotState::BackingOff { .. } | SlotState::Stopped => {
                    self.slots[j].state = SlotState::Down
                }
                _ => {}
            }
        }
        self.settle(now);
    }

    /// The first own fault explains a group restart better than an effect of it.
    fn blame(&mut self, id: SlotId, exit: &Exit) {
        if let Some(regroup) = &mut self.regroup
            && exit.is_own_fault()
            && !regroup.own
        {
            *regroup =
                Regroup { first: regroup.first, culprit: id, fault: exit.fault(), own: true };
        }
    }

    /// Decides about a group once all of it is down.
    fn settle(&mut self, now: Instant) {
        let Some(regroup) = &self.regroup else { return };
        if (regroup.first..self.slots.len()).any(|i| self.is_alive(i)) {
            return;
        }
        let Some(Regroup { first, culprit, fault, .. }) = self.regroup.take() else { return };
        let culprit = self.index(culprit).unwrap_or(first);
        if culprit < self.slots.len() {
            self.decide(culprit, first..self.slots.len(), &fault, now);
        }
    }

    /// The unit is down because of `culprit`: tries again, or gives up.
    fn decide(
        &mut self,
        culprit: usize,
        unit: std::ops::Range<usize>,
        fault: &Fault,
        now: Instant,
    ) {
        let policy = policy(fault.kind);
        let alone = self.branch.strategy == Strategy::OneForOne
            && self.branch.on_exceeded == OnExceeded::Park;
        let slot = &mut self.slots[culprit];
        let history = if alone { &mut slot.history } else { &mut self.history };
        let borne = !policy.counted || history.admit(self.branch.intensity, now);
        if policy.retry != Retry::After || !borne {
            return self.give_up(culprit, fault, now);
        }
        let ran = now.duration_since(slot.began);
        let pause = slot.backoff.next(ran, &self.timing, &mut self.chance);
        tracing::warn!(
            child = self.path_of(culprit),
            error = %fault,
            kind = kind_name(fault.kind),
            retry_in_ms = pause.as_millis() as u64,
            restarting = unit.len(),
            "child has failed"
        );
        for slot in &mut self.slots[unit] {
            if slot.state == SlotState::Down {
                slot.state = SlotState::BackingOff { until: now + pause };
                slot.restarts += 1;
            }
        }
    }

    fn give_up(&mut self, culprit: usize, fault: &Fault, now: Instant) {
        let child = self.path_of(culprit);
        let kind = kind_name(fault.kind);
        match (self.branch.on_exceeded, self.branch.strategy) {
            (OnExceeded::Park, Strategy::OneForOne) => self.put_aside(culprit, fault),
            (OnExceeded::Park, _) => {
                self.leave(Stop::Graceful, NodeEnd::GaveUp(fault.clone()), now)
            }
            (OnExceeded::Escalate, _) => {
                tracing::error!(child, error = %fault, kind, action = fault.advice, "child cannot be kept running; its branch ends");
                self.leave(Stop::Graceful, NodeEnd::Escalated(fault.clone()), now);
            }
        }
    }

    fn put_aside(&mut self, i: usize, fault: &Fault) {
        let (child, kind) = (self.path_of(i), kind_name(fault.kind));
        if policy(fault.kind).retry == Retry::Never {
            tracing::error!(child, error = %fault, kind, action = fault.advice, "child has stopped for good");
            self.slots[i].state = SlotState::Stopped;
        } else {
            tracing::error!(child, error = %fault, kind, action = fault.advice, "child is parked until it is resumed");
            self.slots[i].state = SlotState::Parked;
        }
    }

    fn leave(&mut self, how: Stop, end: NodeEnd, now: Instant) {
        self.leaving = Some((how, end));
        self.regroup = None;
        for slot in &mut self.slots {
            if matches!(slot.state, SlotState::Down | SlotState::BackingOff { .. }) {
                slot.state = SlotState::Stopped;
            }
        }
        self.go_on_leaving(now);
    }

    /// Ends the next children in line, or the node when none is left.
    fn go_on_leaving(&mut self, now: Instant) {
        let Some((how, end)) = self.leaving.clone() else { return };
        if !(0..self.slots.len()).any(|i| self.is_alive(i)) {
            return self.end(end);
        }
        for i in self.wave(how) {
            match self.slots[i].state {
                SlotState::Running if how == Stop::Graceful => {
                    self.ask_to_stop(i, Then::Leave, now)
                }
                SlotState::Running => self.cut_off(i, Then::Leave, now),
                SlotState::Ending { killed: false, .. } if how == Stop::Immediate => {
                    self.cut_off(i, Then::Leave, now);
                }
                _ => {}
            }
        }
    }

    /// Who ends next: all at once; independent children side by side; those that build on each other one by one.
    fn wave(&self, how: Stop) -> Vec<usize> {
        let mut wave = self.stop_order();
        wave.retain(|&i| self.is_alive(i));
        match (how, self.branch.strategy) {
            (Stop::Immediate, _) => {}
            (Stop::Graceful, Strategy::OneForOne) => {
                let last = wave.first().is_some_and(|&i| self.slots[i].spec.stops_last());
                wave.retain(|&i| self.slots[i].spec.stops_last() == last);
            }
            (Stop::Graceful, _) => wave.truncate(1),
        }
        wave
    }

    /// As data flows: declared first, stopped first; what the others stand on last and backwards.
    fn stop_order(&self) -> Vec<usize> {
        let (last, mut order): (Vec<usize>, Vec<usize>) =
            (0..self.slots.len()).partition(|&i| self.slots[i].spec.stops_last());
        order.extend(last.into_iter().rev());
        order
    }

    fn end(&mut self, end: NodeEnd) {
        self.actions.push(Action::End(end));
    }

    fn spawn(&mut self, i: usize, now: Instant) {
        let slot = &mut self.slots[i];
        slot.state = SlotState::Running;
        slot.generation += 1;
        slot.began = now;
        self.actions.push(Action::Spawn(slot.id));
    }

    fn ask_to_stop(&mut self, i: usize, then: Then, now: Instant) {
        let slot = &mut self.slots[i];
        if let SlotState::Ending { deadline, killed, .. } = slot.state {
            slot.state = SlotState::Ending { then, deadline, killed };
            return;
        }
        let deadline = slot.spec.shutdown().map(|patience| now + patience);
        slot.state = SlotState::Ending { then, deadline, killed: false };
        self.actions.push(Action::AskToStop(slot.id));
    }

    fn cut_off(&mut self, i: usize, then: Then, now: Instant) {
        let slot = &mut self.slots[i];
        // A branch gives its own tasks their grace, and ends the process itself if one does not go.
        let deadline = slot.spec.shutdown().map(|_| now + self.timing.abort_grace);
        slot.state = SlotState::Ending { then, deadline, killed: true };
        self.actions.push(Action::Kill(slot.id));
    }

    fn too_late(&mut self, i: usize) {
        let name = self.path_of(i);
        let waited_ms = self.slots[i].spec.shutdown().unwrap_or_default().as_millis() as u64;
        tracing::warn!(child = name, waited_ms, "child did not stop in time; it is cut off");
        self.late.push(name);
    }

    fn note_end(&mut self, i: usize, exit: &Exit) {
        if exit.is_own_fault() {
            self.note_fault(i, exit.name(), &exit.fault());
        }
    }

    fn note_fault(&mut self, i: usize, exit: &'static str, fault: &Fault) {
        self.slots[i].last_fault = Some(LastFault::new(exit, fault, SystemTime::now()));
    }

    fn insert(&mut self, spec: Spec, seen: Option<&Snapshot>, now: Instant) {
        self.slots.push(Slot {
            id: self.next_id,
            spec,
            state: SlotState::Down,
            generation: seen.map_or(0, |seen| seen.generation),
            restarts: seen.map_or(0, |seen| seen.restarts),
            last_fault: seen.and_then(|seen| seen.last_fault.clone()),
            began: now,
            history: History::default(),
            backoff: Backoff::new(&self.timing),
        });
        self.next_id += 1;
    }

    /// A unit that is being regrouped is named by its first index, so that moves with the slots.
    fn remove_slot(&mut self, i: usize) {
        self.slots.remove(i);
        if let Some(regroup) = &mut self.regroup
            && i < regroup.first
        {
            regroup.first -= 1;
        }
    }

    fn refuse_while_leaving(&self) -> Result<(), ControlError> {
        if self.leaving.is_some() { Err(ControlError::Stopping) } else { Ok(()) }
    }

    fn find(&self, name: &str) -> Result<usize, ControlError> {
        let found = self.slots.iter().position(|slot| slot.spec.name() == name);
        found.ok_or_else(|| ControlError::NoSuchChild { path: join(&self.path, name) })
    }

    fn index(&self, id: SlotId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id)
    }

    fn is_alive(&self, i: usize) -> bool {
        matches!(self.slots[i].state, SlotState::Running | SlotState::Ending { .. })
    }

    fn path_of(&self, i: usize) -> String {
        join(&self.path, self.slots[i].spec.name())
    }
}

/// The root's own path is empty.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
