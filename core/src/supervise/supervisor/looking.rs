//! How a supervisor and its children look at one moment.

use tokio::time::Instant;

use super::{Live, Supervisor};
use crate::supervise::node::{SlotState, join};
use crate::supervise::progress::Watch;
use crate::supervise::snapshot::{Snapshot, State, millis};
use crate::supervise::spec::Spec;

impl Supervisor {
    /// This branch with its tasks; running branches below are still without children.
    pub(super) fn look(&mut self) -> Snapshot {
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
