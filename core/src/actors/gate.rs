//! Where the flows of a pipeline wait while an operator has paused it.
//!
//! In: pauses as the metadata has them, from the pipeline's carrier. Out: flows that stop at a cursor and begin again from it.

use garam_meta::Pause;
use tokio::sync::watch;

use crate::supervise::Context;

/// Closed while the pipeline is paused.
#[derive(Debug)]
pub struct Gate {
    pause: watch::Sender<Option<Pause>>,
}

impl Gate {
    pub fn new(pause: Option<Pause>) -> Self {
        Self { pause: watch::Sender::new(pause) }
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

    /// Waits until it is open. `false`: the task was asked to stop meanwhile.
    pub(super) async fn pass(&self, context: &Context) -> bool {
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
