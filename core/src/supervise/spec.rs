//! What may run: tasks and branches of tasks, declared as data. Spawn, health, observe, stop and the printed tree are all
//! derived from one [`Spec`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::exit::Fault;
use super::task::Context;

/// A task's work. It ends with `Ok` when there is no more to do or when it was asked to stop.
pub type TaskFuture = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

/// Builds a new child from durable state only: called once for each generation, on the data runtime.
pub type Factory = Arc<dyn Fn(Context) -> TaskFuture + Send + Sync>;

/// Makes a [`Factory`] of a closure.
pub fn factory<F, W>(make: F) -> Factory
where
    F: Fn(Context) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), Fault>> + Send + 'static,
{
    Arc::new(move |context| Box::pin(make(context)))
}

/// One node of the tree.
#[derive(Debug, Clone)]
pub enum Spec {
    Task(Child),
    Branch(Branch),
}

/// A task of the data plane.
#[derive(Clone)]
pub struct Child {
    /// Unique among its siblings; without `/`.
    pub name: String,
    pub factory: Factory,
    pub restart: Restart,
    /// How long a graceful stop waits for it.
    pub shutdown: Duration,
    /// Without a sign of life for so long, and not waiting for anybody, it is stuck. `None`: never.
    pub progress_deadline: Option<Duration>,
    pub when_stuck: WhenStuck,
    /// Others stand on it: stopped only after all siblings that do not say so.
    pub stops_last: bool,
}

/// A supervisor with children of its own.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Unique among its siblings; without `/`.
    pub name: String,
    pub strategy: Strategy,
    pub intensity: Intensity,
    pub on_exceeded: OnExceeded,
    /// In the order in which they start, and in which data flows through them.
    pub children: Vec<Spec>,
    pub stops_last: bool,
}

/// Who else is restarted when a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody.
    OneForOne,
    /// Those declared after it.
    RestForOne,
    /// All siblings.
    OneForAll,
}

/// Which ends call for a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Any.
    Permanent,
    /// All but a finish.
    Transient,
    /// None: the child is removed from the tree when it ends.
    Temporary,
}

/// How many restarts are borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    pub max: u32,
    pub within: Duration,
}

/// What happens when the intensity is exceeded, or when a fault cannot heal by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExceeded {
    /// The branch ends, and its own supervisor decides; at the root, the process ends.
    Escalate,
    /// The unit of restart (the child in one-for-one, else the whole branch) is put aside until somebody resumes it.
    Park,
}

/// What happens to a task without progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStuck {
    /// It is killed and restarted like after a failure.
    Restart,
    /// The process ends: it holds something (a thread, a disk) that a new generation would fight over.
    EndProcess,
}

impl Child {
    /// A permanent task with ten seconds to stop and no progress deadline.
    pub fn new(name: impl Into<String>, factory: Factory) -> Self {
        Self {
            name: name.into(),
            factory,
            restart: Restart::Permanent,
            shutdown: Duration::from_secs(10),
            progress_deadline: None,
            when_stuck: WhenStuck::Restart,
            stops_last: false,
        }
    }
}

impl Spec {
    pub fn name(&self) -> &str {
        match self {
            Self::Task(child) => &child.name,
            Self::Branch(branch) => &branch.name,
        }
    }

    pub(super) fn restart(&self) -> Restart {
        match self {
            Self::Task(child) => child.restart,
            Self::Branch(_) => Restart::Permanent,
        }
    }

    pub(super) fn stops_last(&self) -> bool {
        match self {
            Self::Task(child) => child.stops_last,
            Self::Branch(branch) => branch.stops_last,
        }
    }

    /// A branch has no deadline of its own: those of its tasks bound it.
    pub(super) fn shutdown(&self) -> Option<Duration> {
        match self {
            Self::Task(child) => Some(child.shutdown),
            Self::Branch(_) => None,
        }
    }
}

impl Strategy {
    pub fn name(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::RestForOne => "rest_for_one",
            Self::OneForAll => "one_for_all",
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("progress_deadline", &self.progress_deadline)
            .finish_non_exhaustive()
    }
}
