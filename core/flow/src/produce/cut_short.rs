//! A batch that a crash cut short, and that its own plan must finish.

use garam_proto::{LogOffset, StreamName};
use garam_stage::{Failure, FailureKind, PlanId};

/// Some of the records that a plan makes of these entries are in the output stream already; another plan may not go on there.
/// It is the source of the failure that a flow ends with; a flow with this plan and [`FlowConfig::until`](crate::FlowConfig) at
/// `end` finishes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plan {:016x} made them, and the plan is {:016x} now", .made_by.0, .now.0)]
pub struct CutShort {
    pub stream: StreamName,
    /// The first entry that is not finished.
    pub next: LogOffset,
    /// Behind the last one.
    pub end: LogOffset,
    pub made_by: PlanId,
    pub now: PlanId,
}

impl CutShort {
    /// Whether this is why a flow ended.
    pub fn behind(failure: &Failure) -> Option<&Self> {
        failure.source.as_ref()?.downcast_ref()
    }
}

impl From<CutShort> for Failure {
    fn from(cut: CutShort) -> Self {
        let CutShort { stream, next, end, .. } = &cut;
        let what = format!(
            "the batch from offset {next} on was cut short when the core ended: up to {end} some of its records are in stream \
             {stream} already"
        );
        Failure::new(FailureKind::Cursor, what).because(cut)
    }
}
