//! How a child ends, and why.

use std::error::Error as _;

use garam_stage::{Failure, FailureKind};

use super::policy;

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// No more to do.
    Finished,
    /// It was asked to stop, and did.
    Stopped,
    /// The one it hands its work to is gone: a consequence, seldom the cause.
    DownstreamGone(Fault),
    Failed(Fault),
    /// No progress within its deadline while waiting for nobody.
    Stuck,
    Panicked(String),
    /// Cut off by its kill switch.
    Killed,
}

/// What went wrong, for the supervisor to judge and the operator to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// `None` when nobody classified it; judged like a broken invariant.
    pub kind: Option<FailureKind>,
    pub what: String,
    /// What the operator may do.
    pub advice: &'static str,
    downstream_gone: bool,
    is_probed: bool,
}

/// How the whole tree ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootExit {
    /// Somebody asked for it. `late` names who had to be cut off.
    Stopped { late: Vec<String> },
    /// The root gave up: the process ends, so that the service manager starts a new one.
    Failed(Fault),
    /// A supervisor itself broke, or a child could be neither used nor ended: the process must end at once.
    Broken(Fault),
}

impl Fault {
    pub fn new(kind: Option<FailureKind>, what: impl Into<String>) -> Self {
        let advice = policy::policy(kind).advice;
        Self { kind, what: what.into(), advice, downstream_gone: false, is_probed: false }
    }

    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Some(FailureKind::Internal), what)
    }

    /// For what somebody else refuses and may grant meanwhile: while it is put aside it is tried again by itself.
    #[must_use]
    pub fn probed(self) -> Self {
        Self { advice: policy::advice_while_probed(self.kind), is_probed: true, ..self }
    }

    pub(super) fn is_probed(&self) -> bool {
        self.is_probed
    }

    /// For a task whose receiver has gone: makes the exit [`Exit::DownstreamGone`].
    pub fn downstream_gone(what: impl Into<String>) -> Self {
        Self { downstream_gone: true, ..Self::new(None, what) }
    }
}

impl From<Failure> for Fault {
    /// Keeps the kind, and the chain of sources as one line.
    fn from(failure: Failure) -> Self {
        // A failure's own text ends with its nearest source.
        let mut what = failure.to_string();
        let mut source = failure.source().and_then(|nearest| nearest.source());
        while let Some(deeper) = source {
            let text = deeper.to_string();
            if !what.ends_with(&text) {
                what = format!("{what}: {text}");
            }
            source = deeper.source();
        }
        Self::new(Some(failure.kind), what)
    }
}

impl Exit {
    pub(super) fn of(result: Result<(), Fault>) -> Self {
        match result {
            Ok(()) => Self::Finished,
            Err(fault) if fault.downstream_gone => Self::DownstreamGone(fault),
            Err(fault) => Self::Failed(fault),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::DownstreamGone(_) => "downstream_gone",
            Self::Failed(_) => "failed",
            Self::Stuck => "stuck",
            Self::Panicked(_) => "panicked",
            Self::Killed => "killed",
        }
    }

    /// The exit in words, for whoever did not expect it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Finished => Fault::internal("ended by itself although it must always run"),
            Self::Stopped => Fault::internal("stopped although nobody asked"),
            Self::DownstreamGone(fault) | Self::Failed(fault) => fault.clone(),
            Self::Stuck => Fault::internal("made no progress in time and waited for nobody"),
            Self::Panicked(message) => Fault::internal(format!("panicked: {message}")),
            Self::Killed => Fault::internal("was cut off"),
        }
    }

    /// The child's own fault, rather than the effect of somebody else's.
    pub(super) fn is_own_fault(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Stuck | Self::Panicked(_))
    }
}
