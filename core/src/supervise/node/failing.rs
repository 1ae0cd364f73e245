//! What follows when a child ends: who is restarted with it, when, and when it is given up.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::{Node, NodeEnd, Regroup, SlotId, SlotState, Then};
use crate::supervise::Stop;
use crate::supervise::exit::{Exit, Fault};
use crate::supervise::policy::{Retry, kind_name, policy};
use crate::supervise::restarts::Probe;
use crate::supervise::spec::{OnExceeded, Restart, Spec, Strategy, WhenStuck};

impl Node {
    /// A child's task has ended.
    pub(in crate::supervise) fn exited(&mut self, id: SlotId, exit: Exit, now: Instant) {
        let Some(i) = self.index(id) else { return };
        let then = match self.slots[i].state {
            SlotState::Running => None,
            SlotState::Ending { then, .. } => Some(then),
            _ => return,
        };
        let asked = then.is_some() || self.leaving.is_some();
        let exit = if asked && exit == Exit::Finished { Exit::Stopped } else { exit };
        tracing::info!(child = self.path_of(i), exit = exit.name(), "child has ended");
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
    pub(in crate::supervise) fn branch_ended(
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
                self.put_aside(i, &fault, now);
                self.settle(now);
            }
            NodeEnd::GaveUp(fault) => self.exited(id, Exit::Failed(fault), now),
        }
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
                SlotState::Running => {
                    let temporary = self.slots[j].spec.restart() == Restart::Temporary;
                    self.cut_off(j, if temporary { Then::Remove } else { Then::Regroup }, now);
                }
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
    pub(super) fn settle(&mut self, now: Instant) {
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
    fn decide(&mut self, culprit: usize, unit: Range<usize>, fault: &Fault, now: Instant) {
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
            (OnExceeded::Park, Strategy::OneForOne) => self.put_aside(culprit, fault, now),
            (OnExceeded::Park, _) => {
                self.leave(Stop::Graceful, NodeEnd::GaveUp(fault.clone()), now)
            }
            (OnExceeded::Escalate, _) => {
                tracing::error!(child, error = %fault, kind, action = fault.advice, "child cannot be kept running; its branch ends");
                self.leave(Stop::Graceful, NodeEnd::Escalated(fault.clone()), now);
            }
        }
    }

    fn put_aside(&mut self, i: usize, fault: &Fault, now: Instant) {
        let (child, kind) = (self.path_of(i), kind_name(fault.kind));
        if policy(fault.kind).retry == Retry::Never {
            tracing::error!(child, error = %fault, kind, action = fault.advice, "child has stopped for good");
            self.slots[i].state = SlotState::Stopped;
            return;
        }
        let slot = &mut self.slots[i];
        slot.state = SlotState::Parked;
        let last = slot.probe.take();
        if last.as_ref().is_some_and(|last| last.has_told(&fault.what)) {
            tracing::debug!(child, error = %fault, kind, "child is parked again");
        } else {
            tracing::error!(child, error = %fault, kind, action = fault.advice, "child is parked until it is resumed");
        }
        if fault.is_probed() {
            let ran = now.duration_since(slot.began);
            slot.probe = Some(Probe::after(last, ran, &fault.what, &self.timing, now));
        }
    }

    /// The heartbeat found no progress.
    pub(in crate::supervise) fn stuck(&mut self, id: SlotId, idle: Duration, now: Instant) {
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
}
