//! Where the flows of a pipeline wait while an operator has paused it.
//!
//! In: pauses as the metadata has them, and a short hold of its own, from the pipeline's carrier. Out: flows that stop at a cursor and
//! begin again from it. Promise: whoever closes the gate and then finds nobody inside knows that no flow runs until it is opened.

use garam_meta::Pause;
use tokio::sync::watch;

use crate::supervise::Context;

/// Closed while the pipeline is paused.
#[derive(Debug)]
pub struct Gate {
    pause: watch::Sender<Option<Pause>>,
    /// Flows that run.
    inside: watch::Sender<u32>,
}

/// A flow that runs, until it is dropped.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.send_modify(|inside| *inside -= 1);
    }
}

/// Keeps the gate closed, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    gate: &'a Gate,
    before: Option<Pause>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.gate.set(self.before.take());
    }
}

impl Gate {
    pub fn new(pause: Option<Pause>) -> Self {
        Self { pause: watch::Sender::new(pause), inside: watch::Sender::new(0) }
    }

    /// Why it is closed, if it is.
    pub fn pause(&self) -> Option<Pause> {
        self.pause.borrow().clone()
    }

    pub(super) fn set(&self, pause: Option<Pause>) {
        self.pause.send_if_modified(|held| {
            let differs = *held != pause;
            *held = pause;
            differs
        });
    }

    /// Closes it for a moment, whether it is paused or not.
    pub(super) fn hold(&self, why: &str) -> Held<'_> {
        let pause = Pause { reason: why.to_owned(), since_us: crate::gateway::wall_clock_us() };
        Held { gate: self, before: self.pause.send_replace(Some(pause)) }
    }

    /// Ends when no flow is inside. More may come, unless it is closed.
    pub(super) async fn empty(&self) {
        // The sender lives in `self`, so this ends with nobody inside.
        let _empty = self.inside.subscribe().wait_for(|inside| *inside == 0).await.is_ok();
    }

    /// Waits until it is open, and goes in. `None`: the task was asked to stop meanwhile.
    pub(super) async fn pass(&self, context: &Context) -> Option<Inside<'_>> {
        while self.opens(context).await {
            self.inside.send_modify(|inside| *inside += 1);
            let inside = Inside(self);
            // Closed in between: whoever closed it may have counted already.
            if self.pause.borrow().is_none() {
                return Some(inside);
            }
        }
        None
    }

    async fn opens(&self, context: &Context) -> bool {
        let mut pause = self.pause.subscribe();
        if pause.borrow().is_none() {
            return true;
        }
        let _guard = context.progress.waiting("an operator: it is paused");
        tokio::select! {
            () = context.stopping() => false,
            open = pause.wait_for(Option::is_none) => open.is_ok(),
        }
    }

    /// Ends when it is closed.
    pub(super) async fn closed(&self) {
        let mut pause = self.pause.subscribe();
        // The sender lives in `self`, so this ends with a pause.
        let _closed = pause.wait_for(Option::is_some).await.is_ok();
    }
}
