//! Reading, sending and believing acknowledgements: one visit to one origin at a time.
//!
//! In: an origin that is due. Out: at most one job, and when to come back. Promise: a visit reads at most one block; a
//! file that is written is looked at every `linger`, an idle one less and less often; nothing is read while the window is
//! full, the stream held, the checkpoint unwritable, or an older origin of the lineage unfinished.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use garam_proto::message::{ClaimReason, Gap, GapReason, Retire};
use garam_proto::{BlockHeader, Codec, Generation, Message, OriginId};

use super::origin::{Frontier, Id, Lost, Sent, Stage};
use super::{Engine, Next, Outbox};
use crate::compress::{Job, RawBlock};
use crate::source::{Copied, CutLimits, Read, Seen};

const TROUBLE_RETRY: Duration = Duration::from_secs(1);
/// Between two turns on the way to a position that takes time to reach.
const NEARER: Duration = Duration::from_millis(2);
/// Until somebody else may be done.
const OTHERS_FIRST: Duration = Duration::from_millis(200);

impl Engine {
    pub(super) fn attend(&mut self, id: Id, now: Instant, outbox: &mut Outbox<'_>) -> Next {
        if let Some(next) = self.look(id, now) {
            return next;
        }
        if self.connection.is_none() || self.stopping.is_some() {
            return Next::At(now + self.interval(id, now));
        }
        let Some(origin) = self.origins.get(&id) else { return Next::Gone };
        match origin.stage {
            _ if origin.is_unborn() => Next::At(now + self.interval(id, now)),
            Stage::Asking => {
                self.asks.insert(id);
                Next::Answer
            }
            Stage::Held { until } if now < until => Next::At(until),
            Stage::Unclaimed | Stage::Held { .. } => self.claim(id, outbox),
            Stage::Claiming { .. } => Next::Answer,
            Stage::Open { .. } if origin.lost.is_some() => self.finish_lost(id, outbox),
            Stage::Open { .. } => self.read_on(id, now, outbox),
        }
    }

    /// Looks at the file; `Some` when the visit ends here.
    fn look(&mut self, id: Id, now: Instant) -> Option<Next> {
        let origin = self.origins.get_mut(&id)?;
        let handle = origin.handle?;
        match self.source.look(handle, origin.cut.position, origin.cut.tail_hash) {
            Ok(Seen::Live(look)) => {
                if look.end != origin.seen_end {
                    origin.last_change = now;
                    origin.seen_end = look.end;
                }
                origin.unlinked = look.unlinked;
                origin.left = look.left;
                origin.ended = look.ended;
                origin.troubled = false;
                origin.measure_lag(now);
                if origin.is_unborn() {
                    origin.exhausted_at = Some(now);
                }
                None
            }
            // Deleted before anybody was told of it: there is nothing to end.
            Ok(Seen::Broken(GapReason::Removed)) if origin.generation == Generation::NIL => {
                Some(Next::Gone)
            }
            Ok(Seen::Broken(GapReason::Removed)) if self.go_on_in_copy(id) => {
                Some(Next::At(now + TROUBLE_RETRY))
            }
            Ok(Seen::Broken(reason)) => {
                self.break_off(id, reason, now);
                Some(Next::At(now))
            }
            Err(error) => Some(self.trouble(id, &error, now)),
        }
    }

    fn trouble(&mut self, id: Id, error: &std::io::Error, now: Instant) -> Next {
        if let Some(origin) = self.origins.get_mut(&id)
            && !std::mem::replace(&mut origin.troubled, true)
        {
            tracing::warn!(file = origin.descriptor.label(), %error, "cannot read file, trying again");
        }
        Next::At(now + TROUBLE_RETRY)
    }

    /// The content that was being read is gone: what was seen and not shipped of it is a gap, and the file begins anew.
    pub(super) fn break_off(&mut self, id: Id, reason: GapReason, now: Instant) {
        let Some(origin) = self.origins.get_mut(&id) else { return };
        if origin.generation == Generation::NIL {
            // Never claimed: nobody knows the old content, there is nothing to end.
            origin.start = 0;
            origin.acked = Frontier::default();
            origin.cut = Frontier::default();
            origin.seen_end = 0;
            return;
        }
        let end = origin.seen_end.max(origin.cut.position);
        let unread = end - origin.cut.position;
        tracing::info!(
            file = origin.descriptor.label(), %unread, reason = reason.name(),
            "the content that was being read is gone"
        );
        origin.lost = Some(Lost { end, reason });
        self.succeed(id, Frontier::default(), ClaimReason::New, now);
        self.visit(id, now);
    }

    /// Reports what is lost of an origin and lets it go once that is acknowledged.
    fn finish_lost(&mut self, id: Id, outbox: &mut Outbox<'_>) -> Next {
        let Some(origin) = self.origins.get_mut(&id) else { return Next::Gone };
        let (Some(lost), Some((slot, answer, _))) = (origin.lost, origin.slot()) else {
            return Next::Answer;
        };
        let from = origin.cut.position;
        if from < lost.end {
            let gap = u64::try_from(lost.end - from).unwrap_or(u64::MAX);
            let to = Frontier { position: lost.end, tail_hash: 0 };
            tracing::warn!(
                file = origin.descriptor.label(),
                bytes = gap,
                reason = lost.reason.name(),
                "bytes were lost before they could be read"
            );
            origin.sent.push_back(Sent { to, charge: 0, records: 0, gap, skipped: 0 });
            origin.cut = to;
            outbox.send(Job::Message(Message::from(Gap {
                slot,
                answer,
                from,
                to: lost.end,
                at_least: false,
                reason: lost.reason,
            })));
            return Next::Answer;
        }
        if !origin.sent.is_empty() {
            return Next::Answer;
        }
        let mark = origin.acked.position;
        outbox.send(Job::Message(Message::from(Retire { slot, answer, mark })));
        Next::Gone
    }

    fn read_on(&mut self, id: Id, now: Instant, outbox: &mut Outbox<'_>) -> Next {
        if self.saved.is_failing() {
            return Next::At(now + TROUBLE_RETRY);
        }
        let awaits = |handle| self.source.awaits(handle);
        if self.origins.get(&id).and_then(|origin| origin.handle).is_some_and(awaits)
            || self.waits_for_older(id)
        {
            return Next::At(now + self.settings.linger.max(Duration::from_millis(5)));
        }
        let Some(origin) = self.origins.get_mut(&id) else { return Next::Gone };
        let Some(handle) = origin.handle else { return Next::Answer };
        let Some((slot, answer, partition)) = origin.slot() else { return Next::Answer };
        let unread = origin.seen_end.saturating_sub(origin.cut.position);
        let quiet = now.duration_since(origin.last_change);
        let patience = self.settings.quiet * if origin.unlinked { 5 } else { 1 };
        let over = origin.ended || (origin.left && quiet >= patience);
        if unread > 0 && self.source.lost_from(handle).is_some_and(|at| origin.cut.position >= at) {
            return self.pass_damage(id, outbox);
        }
        if unread == 0 {
            origin.exhausted_at = Some(now);
            if over && origin.sent.is_empty() {
                return self.let_go(id, now, outbox);
            }
            return Next::At(now + self.interval(id, now));
        }
        if !self.windows.has_room(&origin.stream, partition, self.settings.block_size as u64) {
            return Next::Window;
        }
        // Waits for a fuller block, but only when the last one was just cut: a lone line leaves at once.
        let ripe = origin.last_cut.map(|at| at + self.windows.linger(&origin.stream, partition));
        if let Some(ripe) = ripe.filter(|&ripe| now < ripe)
            && unread < self.settings.block_size as u128
        {
            return Next::At(ripe);
        }
        if let Some(at) = self.rate.wait(now) {
            return Next::At(at);
        }
        let Some(connection) = &self.connection else { return Next::Answer };
        let over = over || self.source.is_final(handle);
        let flush = over || origin.flush_partial.is_some_and(|after| quiet >= after);
        let limits = CutLimits {
            block_size: self.settings.block_size,
            max_record: origin.max_record.min(connection.max_record),
            flush,
            over,
        };
        let mut raw = self.pool.take();
        let Frontier { position, tail_hash } = origin.cut;
        let cut = match self.source.read(handle, position, tail_hash, &limits, &mut raw) {
            Ok(Read::Block(cut)) => cut,
            other => {
                self.pool.give(raw);
                return match other {
                    Ok(Read::Broken(reason)) => {
                        self.break_off(id, reason, now);
                        Next::At(now)
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Next::At(now + NEARER),
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        Next::At(now + OTHERS_FIRST)
                    }
                    Err(error) => self.trouble(id, &error, now),
                    _ => {
                        // A record that may still grow will be shipped after a while: the successor waits for it.
                        if flush || origin.flush_partial.is_none() {
                            origin.exhausted_at = Some(now);
                        }
                        Next::At(now + self.interval(id, now))
                    }
                };
            }
        };
        let charge = raw.len() as u64;
        self.windows.charge(&origin.stream, partition, charge);
        let to = Frontier { position: cut.to, tail_hash: cut.tail_hash };
        origin.sent.push_back(Sent { to, charge, records: 0, gap: 0, skipped: cut.skipped });
        origin.cut = to;
        origin.seen_end = origin.seen_end.max(cut.to);
        origin.last_cut = Some(now);
        origin.exhausted_at = None;
        let source_bytes = u64::try_from(cut.to - position).unwrap_or(u64::MAX);
        self.totals.bytes_read += source_bytes;
        self.totals.characters_replaced += self.source.replaced();
        self.rate.spend(source_bytes, now);
        let header = BlockHeader {
            origin: OriginId { agent: connection.agent, generation: origin.generation },
            session: connection.session,
            from: position,
            to: cut.to,
            records: 0,
            kind: cut.kind,
            flags: cut.flags,
            codec: Codec::None,
            raw_len: 0,
            payload_len: 0,
            payload_crc: 0,
            ingest_time_us: 0,
            tail_hash: cut.tail_hash,
            resume: cut.resume,
        };
        let block = RawBlock { slot, answer, header, records: cut.records, raw };
        outbox.send(Job::Block(block));
        Next::At(now)
    }

    /// The file is gone for good, or out of reach of the globs, and the core has all of it.
    fn let_go(&mut self, id: Id, now: Instant, outbox: &mut Outbox<'_>) -> Next {
        let Some(origin) = self.origins.get_mut(&id) else { return Next::Gone };
        let Some((slot, answer, _)) = origin.slot() else { return Next::Answer };
        let position = origin.acked.position;
        match origin.handle.map(|handle| self.source.take_copy(handle, position)) {
            Some(Copied::Later) => return Next::At(now + TROUBLE_RETRY),
            Some(Copied::Taken(descriptor)) => {
                origin.descriptor = descriptor;
                self.saved.mark_dirty();
                return Next::At(now);
            }
            Some(Copied::No) | None => {}
        }
        if origin.ended
            && let Some(Err(error)) = origin.handle.map(|handle| self.source.finished(handle))
        {
            return self.trouble(id, &error, now);
        }
        tracing::info!(
            file = origin.descriptor.label(),
            unlinked = origin.unlinked,
            "file is done"
        );
        if origin.unlinked || origin.ended {
            let mark = origin.acked.position;
            outbox.send(Job::Message(Message::from(Retire { slot, answer, mark })));
        }
        Next::Gone
    }

    /// Whether a compressed copy took the place of a file that cannot be read any more, or may yet do so.
    pub(super) fn go_on_in_copy(&mut self, id: Id) -> bool {
        let Some(origin) = self.origins.get_mut(&id) else { return false };
        let Some(handle) = origin.handle else { return false };
        match self.source.take_copy(handle, origin.cut.position) {
            Copied::Taken(descriptor) => {
                origin.descriptor = descriptor;
                origin.unlinked = false;
                self.saved.mark_dirty();
                true
            }
            Copied::Later => true,
            Copied::No => false,
        }
    }

    /// What cannot be read for ever is a gap; the origin stays, so that it is known at the next start.
    fn pass_damage(&mut self, id: Id, outbox: &mut Outbox<'_>) -> Next {
        let Some(origin) = self.origins.get_mut(&id) else { return Next::Gone };
        let Some((slot, answer, _)) = origin.slot() else { return Next::Answer };
        let (from, to) = (origin.cut.position, origin.seen_end);
        let gap = u64::try_from(to - from).unwrap_or(u64::MAX);
        tracing::warn!(
            file = origin.descriptor.label(),
            bytes = gap,
            "the end of a damaged compressed file is lost"
        );
        let to = Frontier { position: to, tail_hash: 0 };
        origin.sent.push_back(Sent { to, charge: 0, records: 0, gap, skipped: 0 });
        origin.cut = to;
        origin.damaged = true;
        outbox.send(Job::Message(Message::from(Gap {
            slot,
            answer,
            from,
            to: to.position,
            at_least: false,
            reason: GapReason::Truncated,
        })));
        Next::Answer
    }

    fn waits_for_older(&mut self, id: Id) -> bool {
        let Some(origin) = self.origins.get(&id) else { return false };
        let waits: Vec<Id> = origin
            .older
            .iter()
            .filter(|older| self.origins.get(older).is_some_and(|o| !o.has_ended(origin.met_at)))
            .copied()
            .collect();
        let blocked = !waits.is_empty();
        if let Some(origin) = self.origins.get_mut(&id) {
            origin.older = waits;
        }
        blocked
    }

    pub(super) fn compressed(
        &mut self,
        slot: u32,
        answer: u64,
        to: u128,
        payload_len: u64,
        records: u32,
    ) {
        self.totals.records_read += u64::from(records);
        let Some(origin) = self.slots.get(&slot).and_then(|id| self.origins.get_mut(id)) else {
            return;
        };
        let Some((_, current, partition)) = origin.slot().filter(|s| s.1 == answer) else { return };
        debug_assert_eq!(current, answer);
        let Some(sent) = origin.sent.iter_mut().find(|sent| sent.to.position == to) else { return };
        sent.records = records;
        let less = sent.charge.saturating_sub(payload_len);
        sent.charge -= less;
        self.windows.release(&origin.stream, partition, less);
    }

    pub(super) fn acknowledged(&mut self, slot: u32, mark: u128, now: Instant) {
        let Some(&id) = self.slots.get(&slot) else { return };
        let Some(origin) = self.origins.get_mut(&id) else { return };
        let Some((_, _, partition)) = origin.slot() else { return };
        if mark > origin.cut.position {
            tracing::warn!(
                file = origin.descriptor.label(), %mark, sent = %origin.cut.position,
                "the core acknowledges more than was sent, ignored"
            );
            return;
        }
        let settled = origin.settle(mark);
        origin.measure_lag(now);
        self.windows.release(&origin.stream, partition, settled.charge);
        let over = origin.lost.is_some() && origin.sent.is_empty();
        self.account(id, &settled);
        if over {
            self.visit(id, now);
        }
    }

    /// How long until the next look: hot files soon, idle ones less and less often.
    fn interval(&self, id: Id, now: Instant) -> Duration {
        let Some(origin) = self.origins.get(&id) else { return self.settings.poll };
        if origin.lost.is_some() {
            return TROUBLE_RETRY;
        }
        let quiet = now.duration_since(origin.last_change);
        let poll = self.settings.poll;
        // What is held back of it (a line without end, a group that may grow) is given up after a time, which nobody tells.
        let held_back = origin.seen_end > origin.cut.position;
        let told = !origin.left && !origin.unlinked && !held_back && self.source.is_watched();
        match quiet.as_secs() {
            0..2 => poll.min(self.settings.linger.max(Duration::from_millis(10))),
            _ if origin.handle.is_some_and(|handle| self.source.grows_unseen(handle)) => poll,
            2..30 if told => poll * 10,
            2..30 => poll,
            _ if origin.left || origin.unlinked => {
                poll.max((poll * 10).min(Duration::from_secs(1)))
            }
            // Told when it changes; should that fail, a search sees it.
            _ if told => poll.max((poll * 600).min(Duration::from_secs(60))),
            // A search looks at it as well, and more often.
            _ => poll.max((poll * 100).min(Duration::from_secs(10))),
        }
    }
}
