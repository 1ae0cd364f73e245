//! Decides: what one supervisor does about its children. Plain and synchronous; the actor around it only acts.
//!
//! In: starts, exits, stalls, commands and the passing of time, each with its moment. Out: [`Action`]s, in order.
//! Promise: a unit of restart is started again only after every part of it has ended; a decision about a unit falls once,
//! when all of it is down, by the first fault that was not the effect of another; every wait has an end.
//! Not here: tasks, actors, clocks and messages.
//!
//! This file holds the state and the commands; `failing` says what follows an end, `ending` brings ends about.
//!
//! ```text
//!            exits, unit kept down            all of the unit down         due
//! Running ─────────────────────────► Down ──────────────────────► BackingOff ──► Running
//!    │ stuck · regroup · park · remove · leave      │ cannot heal, or too often
//!    └──► Ending ──exits──► Down · Parked · Stopped └──► Parked · Stopped · the branch itself ends
//! ```
//!
//! What was parked because somebody refused it comes back to Running by itself, at growing intervals, until it is parked by hand.

mod ending;
mod failing;

use std::time::SystemTime;

use tokio::time::Instant;

use crate::supervise::Stop;
use crate::supervise::exit::{Exit, Fault};
use crate::supervise::handle::ControlError;
use crate::supervise::restarts::{Backoff, History, Probe, Timing};
use crate::supervise::snapshot::{LastFault, Snapshot};
use crate::supervise::spec::{Branch, Restart, Spec};

/// One child for as long as the node knows it; never given twice.
pub(in crate::supervise) type SlotId = u64;

/// What the actor does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervise) enum Action {
    Spawn(SlotId),
    AskToStop(SlotId),
    Kill(SlotId),
    /// The node is done. Nothing follows.
    End(NodeEnd),
}

/// How a node ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervise) enum NodeEnd {
    Stopped,
    /// It cannot keep its children alive: its own supervisor decides.
    Escalated(Fault),
    /// It is to be put aside until somebody resumes it.
    GaveUp(Fault),
    /// The process must end.
    Fatal(Fault),
}

#[derive(Debug)]
pub(in crate::supervise) struct Node {
    pub(in crate::supervise) path: String,
    pub(in crate::supervise) branch: Branch,
    pub(in crate::supervise) slots: Vec<Slot>,
    /// Who missed a deadline in a graceful stop.
    pub(in crate::supervise) late: Vec<String>,
    timing: Timing,
    chance: fastrand::Rng,
    history: History,
    regroup: Option<Regroup>,
    leaving: Option<(Stop, NodeEnd)>,
    actions: Vec<Action>,
    next_id: SlotId,
}

#[derive(Debug)]
pub(in crate::supervise) struct Slot {
    pub(in crate::supervise) id: SlotId,
    pub(in crate::supervise) spec: Spec,
    pub(in crate::supervise) state: SlotState,
    pub(in crate::supervise) generation: u64,
    pub(in crate::supervise) restarts: u64,
    pub(in crate::supervise) last_fault: Option<LastFault>,
    /// When the newest generation began.
    pub(in crate::supervise) began: Instant,
    history: History,
    backoff: Backoff,
    /// Parked: when it is tried again, if it is.
    probe: Option<Probe>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervise) enum SlotState {
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
pub(in crate::supervise) enum Then {
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
    pub(in crate::supervise) fn new(
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

    pub(in crate::supervise) fn start(&mut self, now: Instant) {
        for i in 0..self.slots.len() {
            self.spawn(i, now);
        }
    }

    pub(in crate::supervise) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(in crate::supervise) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(in crate::supervise) fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    pub(in crate::supervise) fn slot_named(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.spec.name() == name)
    }

    /// The children as they stand, for the next life of this branch. Temporary ones have only one.
    pub(in crate::supervise) fn children(&self) -> Vec<Spec> {
        let lasting = self.slots.iter().filter(|slot| slot.spec.restart() != Restart::Temporary);
        lasting.map(|slot| slot.spec.clone()).collect()
    }

    pub(in crate::supervise) fn add(
        &mut self,
        spec: Spec,
        now: Instant,
    ) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        if self.slot_named(spec.name()).is_some() {
            return Err(ControlError::NameTaken { name: spec.name().to_owned() });
        }
        self.insert(spec, None, now);
        self.spawn_or_join(self.slots.len() - 1, now);
        Ok(())
    }

    /// Ends a child for good, gracefully.
    pub(in crate::supervise) fn remove(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Result<(), ControlError> {
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
    pub(in crate::supervise) fn park(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        let i = self.find(name)?;
        self.slots[i].probe = None;
        if self.is_alive(i) {
            self.ask_to_stop(i, Then::Park, now);
        } else {
            self.slots[i].state = SlotState::Parked;
        }
        Ok(())
    }

    /// Starts a child that was parked or has stopped, as if it had never failed.
    pub(in crate::supervise) fn resume(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Result<(), ControlError> {
        self.refuse_while_leaving()?;
        let i = self.find(name)?;
        if !matches!(self.slots[i].state, SlotState::Parked | SlotState::Stopped) {
            return Err(ControlError::NotParked { name: name.to_owned() });
        }
        self.slots[i].history.clear();
        self.slots[i].backoff.reset(&self.timing);
        self.slots[i].probe = None;
        self.spawn_or_join(i, now);
        Ok(())
    }

    /// Who comes while its unit is on its way down comes up together with it.
    fn spawn_or_join(&mut self, i: usize, now: Instant) {
        match &self.regroup {
            Some(regroup) if i >= regroup.first => self.slots[i].state = SlotState::Down,
            _ => self.spawn(i, now),
        }
    }

    fn spawn(&mut self, i: usize, now: Instant) {
        let slot = &mut self.slots[i];
        slot.state = SlotState::Running;
        slot.generation += 1;
        slot.began = now;
        self.actions.push(Action::Spawn(slot.id));
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
            probe: None,
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
pub(in crate::supervise) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
