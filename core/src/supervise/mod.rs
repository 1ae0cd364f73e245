//! The one place that starts, watches, restarts, parks and stops everything that runs in the core.
//!
//! In: a [`Spec`] (the tree as one literal, see [`tree`]) whose tasks are made by factories, and the handle of the data
//! runtime. Out: a running tree, its [`Snapshot`], and in the end a [`RootExit`]. Promise: no child ends unseen: a panic,
//! an error, a stall and a quiet end each become a named [`Exit`]; a restarted child is built anew by its factory, never
//! revived; a child that keeps failing is parked or escalated, as its branch says, and never retried without pause;
//! there are never two generations of a child at once.
//! Not here: what a child does (its room), what the tree's tasks are made of (`app`), retries inside a task.
//!
//! Two runtimes: supervisors are actix actors on a control thread of their own; tasks run on the data runtime. So a busy
//! data runtime delays no decision, and a decision delays no data. actix's own `Supervisor` is not used: it cannot see a
//! panic, keeps the old state on restart and knows no back-off.
//!
//! Reading order: [`spec`] (what may run) → [`tree`] (what does run) → `exit` (how it ends) → [`policy`] (what that
//! means) → `restarts` (how often, how soon) → `node` (decides) → `supervisor` (acts) → `task`, [`kill`], [`progress`]
//! (what a task holds) → [`snapshot`] (what is seen) → `handle` (how others reach it).

mod exit;
mod handle;
pub mod kill;
mod node;
pub mod policy;
pub mod progress;
mod restarts;
pub mod snapshot;
pub mod spec;
mod supervisor;
mod task;
pub mod tree;

#[cfg(test)]
mod tests;

pub use exit::{Exit, Fault, RootExit};
pub use handle::{ControlError, Supervision, SupervisionHandle};
pub use kill::KillSwitch;
pub use policy::Retry;
pub use progress::{Progress, WaitingGuard};
pub use snapshot::{Snapshot, State, render};
pub use spec::{
    Branch, Child, Factory, Intensity, OnExceeded, Restart, Spec, Strategy, TaskFuture, WhenStuck,
    factory,
};
pub use task::Context;
pub use tree::{Patience, PipelineRoom, Rooms, pipeline, tree};

/// How to stop: in order and with deadlines, or at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Children are asked in the order in which data flows, each within its own deadline.
    Graceful,
    /// Everything is cut off; what was in flight is replayed at the next start.
    Immediate,
}
