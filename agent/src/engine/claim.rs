//! Claims and what the core's marks mean.
//!
//! In: `ClaimAck`, `Reposition`. Out: where reading goes on. Promise (protocol §1, §2): the answered mark wins over the
//! agent's own frontier, but only in content that agrees with its tail hash. Lower: read again from there. Higher: skip
//! forward. Other content: a new generation, from the own frontier where that still verifies (`branched`), else the old
//! content is gone and what was not shipped of it is a gap.

use std::time::{Duration, Instant};

use garam_proto::Message;
use garam_proto::message::{Claim, ClaimAck, ClaimOutcome, ClaimReason, GapReason, Reposition};

use super::origin::{Frontier, Id, Stage};
use super::{Engine, Next, Outbox};
use crate::compress::Job;
use crate::source::Tail;

const HELD_RETRY: Duration = Duration::from_secs(5);
const DENIED_RETRY: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) fn claim(&mut self, id: Id, outbox: &mut Outbox<'_>) -> Next {
        let Some(origin) = self.origins.get_mut(&id) else { return Next::Gone };
        let Some(lineage) = origin.lineage else { return Next::Answer };
        // Registered with the head it has now: it may have been empty when it was met.
        if origin.reason == ClaimReason::New
            && let Some(Ok(descriptor)) = origin.handle.map(|handle| self.source.describe(handle))
        {
            origin.descriptor = descriptor;
        }
        self.next_slot += 1;
        let slot = self.next_slot;
        origin.stage = Stage::Claiming { slot };
        self.slots.insert(slot, id);
        outbox.send(Job::Message(Message::from(Claim {
            slot,
            stream: origin.stream.clone(),
            source: origin.source.clone(),
            generation: origin.generation,
            descriptor: origin.descriptor.clone(),
            lineage,
            from: origin.start,
            reason: origin.reason,
            source_epoch: origin.source_epoch,
        })));
        Next::Answer
    }

    pub(super) fn claimed(&mut self, ack: ClaimAck, now: Instant) {
        let Some(&id) = self.slots.get(&ack.slot) else { return };
        let Some(origin) = self.origins.get_mut(&id) else { return };
        if origin.stage != (Stage::Claiming { slot: ack.slot }) {
            return;
        }
        let (why, pause) = match ack.outcome {
            ClaimOutcome::Granted { mark, tail_hash, partition, source_epoch, .. } => {
                origin.source_epoch = source_epoch;
                origin.stage = Stage::Open { slot: ack.slot, answer: ack.answer, partition };
                origin.reason = ClaimReason::Known;
                self.continue_at(id, Frontier { position: mark, tail_hash }, now);
                return;
            }
            ClaimOutcome::Held { why } => (why, HELD_RETRY),
            ClaimOutcome::Denied { why } => (why, DENIED_RETRY),
        };
        tracing::warn!(
            file = origin.descriptor.label(), stream = %origin.stream, why, retry_in = ?pause,
            "the core does not take this file now"
        );
        self.slots.remove(&ack.slot);
        origin.stage = Stage::Held { until: now + pause };
        self.schedule.set(id, now + pause);
    }

    pub(super) fn repositioned(&mut self, reposition: Reposition, now: Instant) {
        let Some(&id) = self.slots.get(&reposition.slot) else { return };
        let Some(origin) = self.origins.get_mut(&id) else { return };
        let Stage::Open { slot, answer, partition } = origin.stage else { return };
        if reposition.answer <= answer {
            return;
        }
        origin.stage = Stage::Open { slot, answer: reposition.answer, partition };
        let mark = Frontier { position: reposition.mark, tail_hash: reposition.tail_hash };
        self.continue_at(id, mark, now);
        self.wake_waiting(now);
    }

    /// The core says how far it has the origin: reading goes on there, if that is the same content.
    fn continue_at(&mut self, id: Id, mark: Frontier, now: Instant) {
        let Some(origin) = self.origins.get_mut(&id) else { return };
        let settled = origin.settle(mark.position);
        let rest: u64 = origin.sent.drain(..).map(|sent| sent.charge).sum();
        if let Some((_, _, partition)) = origin.slot() {
            self.windows.release(&origin.stream, partition, settled.charge + rest);
        }
        self.account(id, &settled);
        let Some(origin) = self.origins.get_mut(&id) else { return };
        let own = origin.acked;
        let label = origin.descriptor.label();
        let Some(handle) = origin.handle else {
            origin.acked = mark;
            origin.cut = mark;
            self.visit(id, now);
            return;
        };
        if mark.position != own.position {
            tracing::info!(file = label, own = %own.position, mark = %mark.position, "the core's mark differs");
        }
        match verify(&mut *self.source, handle, own, mark, origin.start) {
            Ok(Some(tail_hash)) => {
                let frontier = Frontier { position: mark.position, tail_hash };
                origin.acked = frontier;
                origin.cut = frontier;
                origin.seen_end = origin.seen_end.max(mark.position);
                self.visit(id, now);
            }
            Ok(None) => self.part_ways(id, own, mark, now),
            Err(error) => {
                // Unreadable now; the claim is made again, and with it this decision.
                tracing::warn!(file = label, %error, "cannot read file back, trying again");
                origin.stage = Stage::Held { until: now + HELD_RETRY };
                self.schedule.set(id, now + HELD_RETRY);
            }
        }
    }

    /// What the core holds of this origin is not what the file holds.
    fn part_ways(&mut self, id: Id, own: Frontier, mark: Frontier, now: Instant) {
        let Some(origin) = self.origins.get_mut(&id) else { return };
        let Some(handle) = origin.handle else { return };
        let label = origin.descriptor.label();
        let own_holds = own.position > 0
            && matches!(
                self.source.check_tail(handle, own.position, own.tail_hash),
                Ok(Tail::Same)
            );
        if own_holds {
            tracing::warn!(
                file = label, from = %own.position, mark = %mark.position,
                "the core holds other content for this file (host snapshot or clone?): a new generation begins"
            );
            self.succeed(id, own, ClaimReason::Branched, now);
            self.forget(id);
        } else {
            if let Some(origin) = self.origins.get_mut(&id) {
                origin.acked = mark;
                origin.cut = mark;
            }
            self.break_off(id, GapReason::Truncated, now);
        }
    }
}

/// The tail hash at the mark as the file has it, when that agrees with the core's; `None` when it does not.
fn verify(
    source: &mut dyn crate::source::Source,
    handle: crate::source::Handle,
    own: Frontier,
    mark: Frontier,
    start: u128,
) -> std::io::Result<Option<u64>> {
    // The core has no hash where nothing of this origin was shipped yet.
    let unknown = mark.tail_hash == 0 && mark.position > 0;
    let same_place = mark.position == own.position;
    if unknown && same_place && own.tail_hash != 0 {
        let holds = source.check_tail(handle, own.position, own.tail_hash)? == Tail::Same;
        return Ok(holds.then_some(own.tail_hash));
    }
    if unknown && (same_place || mark.position == start) {
        return match source.tail_hash(handle, mark.position) {
            Ok(tail_hash) => Ok(Some(tail_hash)),
            Err(_) => Ok(None),
        };
    }
    let holds = source.check_tail(handle, mark.position, mark.tail_hash)? == Tail::Same;
    Ok(holds.then_some(mark.tail_hash))
}
