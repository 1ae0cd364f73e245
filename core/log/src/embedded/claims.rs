//! The writer's part that grants claims: which partition, which source epoch, or why not.
//!
//! In: a claim. Out: the record that grants it, staged. Promise: an origin has one partition of one stream, a lineage keeps
//! its partition when partitions are added, and a new generation's epoch is above every one its source had anywhere in
//! this log. Not here: what a claim does to an origin (`fold`).

use garam_proto::hash::partition_of;

use super::partition::Partition;
use super::writer::Writer;
use crate::api::{Claim, ClaimDenied, Claimed, LogError};
use crate::fold::{Record, Verdict};

impl Writer {
    /// The partition a claim belongs to: the origin's, else its lineage's, else the one its hash says.
    pub(crate) fn place_of(&self, claim: &Claim) -> Result<usize, LogError> {
        let unknown = || LogError::UnknownStream { stream: claim.stream.clone() };
        let number = *self.stream_numbers.get(&claim.stream).ok_or_else(unknown)?;
        let stream = self.streams.get(number).ok_or_else(unknown)?;
        if let Some(home) = self.registry.home(&claim.origin) {
            let other = self.partitions.get(home).filter(|home| home.stream != number);
            return match other {
                None => Ok(home),
                Some(other) => Err(LogError::Denied(ClaimDenied::OtherStream {
                    origin: claim.origin,
                    stream: other.shared.id.stream.clone(),
                })),
            };
        }
        // An origin that a partition knew and cannot tell any more must not begin a second life beside it.
        for &partition in &stream.partitions {
            let partition = self.partitions.get(partition);
            if let Some(Partition { live: Err(fault), known: None, .. }) = partition {
                return Err(fault.clone());
            }
        }
        if let Some(partition) = self.registry.lineage(number, claim.lineage) {
            return Ok(partition);
        }
        let index = partition_of(claim.lineage, stream.config.partitions);
        stream.partitions.get(index as usize).copied().ok_or_else(unknown)
    }

    pub(crate) fn claim(&mut self, number: usize, claim: Claim) -> Result<Claimed, LogError> {
        let partition = self.partitions.get(number).ok_or(LogError::Closed)?;
        let live = partition.live.as_ref().map_err(Clone::clone)?;
        let (stream, id) = (partition.stream, partition.shared.id.clone());
        let limit = self.streams.get(stream).map_or(0, |stream| stream.config.max_origins);
        let is_new = live.fold.get(&claim.origin).is_none();
        if is_new && live.fold.live() >= limit as usize {
            return Err(LogError::Denied(ClaimDenied::TooManyOrigins { partition: id, limit }));
        }
        let (agent, seen) = (claim.origin.agent, claim.source_epoch);
        let epoch = self.registry.next_epoch(agent, &claim.source, seen);
        let record = Record::Claim(Box::new(live.fold.claim_record(claim, epoch)));
        if let Verdict::Invalid(why) = live.fold.decide(&record) {
            return Err(LogError::Invalid { why: why.into() });
        }
        let (_, state) = self.stage(number, &record, &[])?;
        self.registry.learn(stream, number, &state);
        Ok(Claimed { partition: id, state: state.as_ref().clone() })
    }
}
