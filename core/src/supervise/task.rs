//! What a task holds while it runs, and how its end is caught.

use tokio::sync::watch;

use super::exit::{Exit, Fault};
use super::kill::KillSwitch;
use super::progress::Progress;
use super::spec::Factory;

/// Given to a factory for one generation of its child.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where the child stands in the tree, such as `data/gateway`.
    pub path: String,
    /// 1 for the first life, one more for each restart.
    pub generation: u64,
    pub progress: Progress,
    /// Thrown to cut the task off. Whoever works for the task elsewhere holds a [`KillSwitch::child`] of it, or throws it
    /// with a fault to end the task as failed.
    pub kill: KillSwitch,
    /// Turns true when the task is asked to finish what is in flight and end.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    /// Ends when the task is asked to stop, or when nobody is left to ask.
    pub async fn stopping(&self) {
        let mut stop = self.stop.clone();
        // An error means that the supervisor has gone, and then the task must go too.
        let _asked_or_orphaned = stop.wait_for(|&stop| stop).await.is_ok();
    }

    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }
}

/// The whole life of one generation, on the data runtime. A panic of factory or task goes to the join handle.
pub(super) async fn live(factory: Factory, context: Context) -> Exit {
    let kill = context.kill.clone();
    let work = async move { factory(context).await };
    tokio::select! {
        biased;
        fault = kill.thrown() => fault.map_or(Exit::Killed, Exit::Failed),
        result = work => Exit::of(result),
    }
}

/// What the join handle says.
pub(super) fn joined(joined: Result<Exit, tokio::task::JoinError>) -> Exit {
    match joined {
        Ok(exit) => exit,
        Err(error) if error.is_panic() => Exit::Panicked(panic_message(&*error.into_panic())),
        Err(_cancelled) => Exit::Failed(Fault::internal("the data runtime has gone")),
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "without a message".to_owned()
    }
}
