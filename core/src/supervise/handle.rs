//! How the rest of the program reaches the tree, from any runtime: start it, look at it, change it, stop it, wait for it.

use std::io;
use std::sync::mpsc;

use actix::{Addr, System};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use super::Stop;
use super::exit::{Fault, RootExit};
use super::kill::KillSwitch;
use super::node::NodeEnd;
use super::restarts::Timing;
use super::snapshot::Snapshot;
use super::spec::{Branch, Spec};
use super::supervisor::{Command, Ground, Halt, Look, Report, Supervisor, Verb};

/// Starts trees.
#[derive(Debug, Clone, Copy)]
pub struct Supervision;

/// A running tree. Clones reach the same one; dropping them all does not stop it.
#[derive(Clone)]
pub struct SupervisionHandle {
    pub(super) root: Addr<Supervisor>,
    pub(super) exit: watch::Receiver<Option<RootExit>>,
}

/// Why a change to the tree was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("no child at {path:?} in the supervision tree; `garam tree` shows them")]
    NoSuchChild { path: String },
    #[error("the branch {path:?} does not run; resume it first")]
    NotRunning { path: String },
    #[error("a child named {name:?} is already there; remove it first")]
    NameTaken { name: String },
    #[error("{name:?} is neither parked nor stopped, so there is nothing to resume")]
    NotParked { name: String },
    #[error("the supervision tree is stopping")]
    Stopping,
}

impl Supervision {
    /// Starts the tree: supervisors on a control thread of their own, tasks on `data`.
    pub fn start(root: Branch, data: Handle) -> io::Result<SupervisionHandle> {
        Self::start_with(root, data, Timing::default())
    }

    pub(super) fn start_with(
        root: Branch,
        data: Handle,
        timing: Timing,
    ) -> io::Result<SupervisionHandle> {
        let control = Builder::new_current_thread().enable_all().build()?;
        let (exit, exited) = watch::channel(None);
        let (planted, root_addr) = mpsc::sync_channel(1);
        let life = move || {
            let system = System::with_tokio_rt(move || control);
            let ended = system.block_on(async move {
                let (addr, report) = plant(root, data, timing);
                // The starter waits for it below; if it has gone, nobody can ever stop this tree.
                if planted.send(addr).is_err() {
                    return broken("whoever started the tree has gone");
                }
                conclude(report).await
            });
            exit.send_replace(Some(ended));
        };
        std::thread::Builder::new().name("garam-control".to_owned()).spawn(life)?;
        let root = root_addr
            .recv()
            .map_err(|_| io::Error::other("the control thread broke at its start"))?;
        Ok(SupervisionHandle { root, exit: exited })
    }
}

impl SupervisionHandle {
    /// The tree as it is now.
    pub async fn snapshot(&self) -> Result<Snapshot, ControlError> {
        self.root.send(Look).await.unwrap_or(Err(ControlError::Stopping))
    }

    /// Stops the tree and waits until it is down. A second, immediate stop cuts a graceful one short.
    pub async fn stop(&self, how: Stop) -> RootExit {
        // A root that takes no more mail has ended, and its exit is known.
        let _taken = self.root.send(Halt(how)).await.is_ok();
        self.wait_exit().await
    }

    /// Waits until the tree has ended, for whatever reason. The process is to end then.
    pub async fn wait_exit(&self) -> RootExit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(|| broken("the tree ended without a word")),
            Err(_) => broken("the control thread broke"),
        }
    }

    /// Starts a new child at the end of the branch at `parent`.
    pub async fn add(&self, parent: &str, child: Spec) -> Result<(), ControlError> {
        self.command(parent, Verb::Add(Box::new(child))).await
    }

    /// Stops the child at `path` gracefully and forgets it. Returns when it was asked, not when it is gone.
    pub async fn remove(&self, path: &str) -> Result<(), ControlError> {
        self.command(path, Verb::Remove).await
    }

    /// Stops the child at `path` gracefully until it is resumed. Returns when it was asked, not when it is down.
    pub async fn park(&self, path: &str) -> Result<(), ControlError> {
        self.command(path, Verb::Park).await
    }

    /// Starts a child again that was parked or has stopped.
    pub async fn resume(&self, path: &str) -> Result<(), ControlError> {
        self.command(path, Verb::Resume).await
    }

    async fn command(&self, path: &str, verb: Verb) -> Result<(), ControlError> {
        let path = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        self.root.send(Command { path, verb }).await.unwrap_or(Err(ControlError::Stopping))
    }
}

/// Starts the root supervisor on this thread.
pub(super) fn plant(
    root: Branch,
    data: Handle,
    timing: Timing,
) -> (Addr<Supervisor>, oneshot::Receiver<Report>) {
    Supervisor::plant(String::new(), root, None, Ground { data, timing, kill: KillSwitch::new() })
}

/// What the root's end means for the process.
pub(super) async fn conclude(report: oneshot::Receiver<Report>) -> RootExit {
    match report.await {
        Ok(Report { end: NodeEnd::Stopped, late, .. }) => RootExit::Stopped { late },
        Ok(Report { end: NodeEnd::Escalated(fault) | NodeEnd::GaveUp(fault), .. }) => {
            RootExit::Failed(fault)
        }
        Ok(Report { end: NodeEnd::Fatal(fault), .. }) => RootExit::Broken(fault),
        Err(_) => broken("the root supervisor broke"),
    }
}

fn broken(what: &str) -> RootExit {
    RootExit::Broken(Fault::internal(what))
}
