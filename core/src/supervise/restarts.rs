//! How often and how soon a child may come back: restart intensity and back-off. Pure: time and chance come from outside.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::spec::Intensity;

/// The restarts of the recent past.
#[derive(Debug, Default)]
pub(super) struct History {
    at: VecDeque<Instant>,
}

/// Decorrelated jitter: each pause is drawn between the floor and three times the last one, below the cap. Children that
/// fail together do not return together.
#[derive(Debug)]
pub(super) struct Backoff {
    last: Duration,
}

/// When a child that was put aside is tried again, and what the operator was told about it.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) at: Instant,
    pause: Duration,
    told: String,
}

/// How patient supervision is. One value for the whole tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) heartbeat: Duration,
    pub(super) floor: Duration,
    pub(super) cap: Duration,
    /// A child that ran so long starts again with the shortest pause.
    pub(super) stable: Duration,
    /// How soon a child that was put aside is tried again, and how long at most after many times.
    pub(super) probe_floor: Duration,
    pub(super) probe_cap: Duration,
    /// How long a child that was cut off may take to be gone.
    pub(super) abort_grace: Duration,
}

impl History {
    /// Records a restart at `now`. `false` when it is one too many.
    pub(super) fn admit(&mut self, intensity: Intensity, now: Instant) -> bool {
        self.at.push_back(now);
        while self.at.front().is_some_and(|&at| now.duration_since(at) > intensity.within) {
            self.at.pop_front();
        }
        self.at.len() <= intensity.max as usize
    }

    pub(super) fn clear(&mut self) {
        self.at.clear();
    }
}

impl Backoff {
    pub(super) fn new(timing: &Timing) -> Self {
        Self { last: timing.floor }
    }

    /// The pause before the next start, for a child that has run for `ran`.
    pub(super) fn next(
        &mut self,
        ran: Duration,
        timing: &Timing,
        chance: &mut fastrand::Rng,
    ) -> Duration {
        if ran >= timing.stable {
            self.last = timing.floor;
        }
        let most = self.last.saturating_mul(3).min(timing.cap);
        let spread = most.saturating_sub(timing.floor);
        self.last = timing.floor + spread.mul_f64(chance.f64());
        self.last
    }

    pub(super) fn reset(&mut self, timing: &Timing) {
        self.last = timing.floor;
    }
}

impl Probe {
    /// The one after `last`, for a child that has run for `ran` and then was refused `what`.
    pub(super) fn after(
        last: Option<Self>,
        ran: Duration,
        what: &str,
        timing: &Timing,
        now: Instant,
    ) -> Self {
        let last = last.filter(|_| ran < timing.stable);
        let pause = last.map_or(timing.probe_floor, |last| (last.pause * 2).min(timing.probe_cap));
        Self { at: now + pause, pause, told: what.to_owned() }
    }

    /// Whether the operator was told this already.
    pub(super) fn has_told(&self, what: &str) -> bool {
        self.told == what
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            floor: Duration::from_millis(100),
            cap: Duration::from_secs(60),
            stable: Duration::from_secs(60),
            probe_floor: Duration::from_secs(1),
            probe_cap: Duration::from_secs(300),
            abort_grace: Duration::from_secs(5),
        }
    }
}
