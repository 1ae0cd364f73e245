//! How a supervisor tells stuck from waiting: one atomic that the task writes and the heartbeat reads.
//!
//! A task says [`Progress::beat`] whenever something got done, and stands inside [`Progress::waiting`] while it waits for
//! somebody else (the log, a destination, a full channel): blame goes downstream, never to the one who waits.
//! One `Progress` belongs to one line of work: two that share it hide each other's stall.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Signs of life. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// High 48 bits: beats. Low 16 bits: how many guards are held.
    word: AtomicU64,
    /// What was waited for last; written once per wait, not per record.
    why: Mutex<Option<&'static str>>,
}

const BEAT: u64 = 1 << 16;
const GUARDS: u64 = BEAT - 1;

/// While held, the task waits for somebody and is not stuck.
#[derive(Debug)]
#[must_use = "the wait lasts as long as the guard"]
pub struct WaitingGuard {
    shared: Arc<Shared>,
}

impl Progress {
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was done.
    pub fn beat(&self) {
        self.shared.word.fetch_add(BEAT, Ordering::Relaxed);
    }

    /// A sign of life with nothing in hand: a beat that also says what is waited for. Say it again within the deadline.
    pub fn resting(&self, why: &'static str) {
        self.shared.set_why(Some(why));
        self.beat();
    }

    /// The work goes on after [`Progress::resting`].
    pub fn working(&self) {
        self.shared.set_why(None);
        self.beat();
    }

    /// A protected zone: until the guard is dropped no progress is asked for.
    pub fn waiting(&self, why: &'static str) -> WaitingGuard {
        self.shared.set_why(Some(why));
        self.shared.word.fetch_add(BEAT + 1, Ordering::Relaxed);
        WaitingGuard { shared: Arc::clone(&self.shared) }
    }

    /// What the task says it waits for.
    pub fn waits_for(&self) -> Option<&'static str> {
        *self.shared.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self) -> u64 {
        self.shared.word.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn set_why(&self, why: Option<&'static str>) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        // One beat more, one guard less.
        let before = self.shared.word.fetch_add(BEAT - 1, Ordering::Relaxed);
        if before & GUARDS == 1 {
            self.shared.set_why(None);
        }
    }
}

/// The supervisor's memory of what it saw last.
#[derive(Debug)]
pub(super) struct Watch {
    progress: Progress,
    word: u64,
    since: Instant,
}

impl Watch {
    pub(super) fn new(progress: Progress, now: Instant) -> Self {
        Self { word: progress.word(), progress, since: now }
    }

    /// How long nothing has happened; zero while the task waits in a guard.
    pub(super) fn idle(&mut self, now: Instant) -> Duration {
        let word = self.progress.word();
        if word != self.word || word & GUARDS > 0 {
            self.word = word;
            self.since = now;
        }
        now.duration_since(self.since)
    }

    /// Whether the task has given any sign of life yet.
    pub(super) fn has_begun(&self) -> bool {
        self.progress.word() != 0
    }

    pub(super) fn waits_for(&self) -> Option<&'static str> {
        self.progress.waits_for()
    }
}
