//! Which lives of the input a run continues, and up to where they say the same.
//!
//! In: the input's incarnation and its ancestors. Out: whether an offset that was noted in an earlier life still means the
//! same entry. Promise: nothing at or above a branch is taken for shared. Not here: fingerprints, which prove it (`start`).

use garam_log::{Bounds, Log};
use garam_proto::{Incarnation, LogOffset, PartitionId};
use garam_stage::{Failure, QuarantinedRecord};

use crate::error::FlowError;

/// Incarnations, the newest first, each with the offset below which it is shared.
#[derive(Debug, Clone)]
pub(crate) struct Lives(Vec<(Incarnation, LogOffset)>);

impl Lives {
    pub(crate) fn of(log: &dyn Log, input: &PartitionId) -> Result<Self, Failure> {
        let doing = "find the log's bounds";
        let Bounds { incarnation, .. } = log.bounds(input).map_err(FlowError::log(doing))?;
        let ancestors = log.ancestors(input).map_err(FlowError::log(doing))?;
        let older = ancestors.iter().map(|ancestor| (ancestor.incarnation, ancestor.until));
        Ok(Self(std::iter::once((incarnation, LogOffset(u64::MAX))).chain(older).collect()))
    }

    /// How many lives ago, and up to where its entries are shared; `None` for a life of another log.
    pub(crate) fn find(&self, incarnation: Incarnation) -> Option<(usize, LogOffset)> {
        let age = self.0.iter().position(|(life, _)| *life == incarnation)?;
        self.0.get(age).map(|(_, until)| (age, *until))
    }

    /// Whether a record put aside is one that will be met again from `next` on.
    pub(crate) fn binds(&self, record: &QuarantinedRecord, next: LogOffset) -> bool {
        let shared = self.find(record.incarnation);
        record.offset >= next.0 && shared.is_some_and(|(_, until)| record.offset < until.0)
    }

    /// How many branches there were.
    pub(crate) fn branches(&self) -> usize {
        self.0.len() - 1
    }
}
