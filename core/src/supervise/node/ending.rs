//! How children are brought to an end: in which order, how long they are waited for, and what is done to the late.

use tokio::time::Instant;

use super::{Action, Node, NodeEnd, SlotState, Then};
use crate::supervise::Stop;
use crate::supervise::exit::Fault;
use crate::supervise::spec::Strategy;

impl Node {
    pub(in crate::supervise) fn stop(&mut self, how: Stop, now: Instant) {
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

    pub(super) fn leave(&mut self, how: Stop, end: NodeEnd, now: Instant) {
        self.leaving = Some((how, end));
        self.regroup = None;
        for slot in &mut self.slots {
            slot.probe = None;
            if matches!(slot.state, SlotState::Down | SlotState::BackingOff { .. }) {
                slot.state = SlotState::Stopped;
            }
        }
        self.go_on_leaving(now);
    }

    /// Ends the next children in line, or the node when none is left.
    pub(super) fn go_on_leaving(&mut self, now: Instant) {
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

    /// Time has passed: starts what is due, cuts off who is late.
    pub(in crate::supervise) fn tick(&mut self, now: Instant) {
        for i in 0..self.slots.len() {
            match self.slots[i].state {
                SlotState::BackingOff { until } if until <= now => self.spawn(i, now),
                SlotState::Parked if self.probe_is_due(i, now) => {
                    tracing::debug!(child = self.path_of(i), "a parked child is tried again");
                    self.slots[i].restarts += 1;
                    self.spawn_or_join(i, now);
                }
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
    pub(in crate::supervise) fn next_wake(&self) -> Option<Instant> {
        let due = self.slots.iter().filter_map(|slot| match slot.state {
            SlotState::BackingOff { until } => Some(until),
            SlotState::Ending { deadline, .. } => deadline,
            SlotState::Parked => slot.probe.as_ref().map(|probe| probe.at),
            _ => None,
        });
        due.min()
    }

    fn probe_is_due(&self, i: usize, now: Instant) -> bool {
        self.slots[i].probe.as_ref().is_some_and(|probe| probe.at <= now)
    }

    pub(super) fn ask_to_stop(&mut self, i: usize, then: Then, now: Instant) {
        let slot = &mut self.slots[i];
        if let SlotState::Ending { deadline, killed, .. } = slot.state {
            slot.state = SlotState::Ending { then, deadline, killed };
            return;
        }
        let deadline = slot.spec.shutdown().map(|patience| now + patience);
        slot.state = SlotState::Ending { then, deadline, killed: false };
        self.actions.push(Action::AskToStop(slot.id));
    }

    pub(super) fn cut_off(&mut self, i: usize, then: Then, now: Instant) {
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

    pub(super) fn end(&mut self, end: NodeEnd) {
        self.actions.push(Action::End(end));
    }
}
