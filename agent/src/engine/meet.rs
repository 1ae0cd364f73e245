//! How origins are met: new files, and files the checkpoint knows.
//!
//! In: what the source found, checkpoint entries. Out: origins, with their generation where the checkpoint has it.
//! Promise (protocol §1): one file per origin; an exact match wins over one by content; what matches nothing is asked for
//! (`ask`). A file the checkpoint knows is also searched beside its old path, so that what was renamed out of
//! the globs while the agent was down is still read to its end.

use std::time::{Duration, Instant};

use garam_proto::message::{ClaimReason, GapReason};
use garam_proto::{Descriptor, Generation};

use super::Engine;
use super::origin::{First, Frontier, Id, Lost, Origin, Stage};
use crate::checkpoint::Entry;
use crate::source::{Fit, Handle, Known, Met};

/// How long an origin of the checkpoint may be absent before its unread rest counts as lost.
const MISSING: Duration = Duration::from_secs(300);

impl Engine {
    /// One search: new origins are matched with the checkpoint, the others are asked for.
    pub(super) fn search(&mut self, now: Instant) {
        let mut met = self.source.discover();
        let copies = met.iter().any(|met| self.source.is_final(met.handle));
        for fit in [Fit::Exact, Fit::ByContent] {
            met.retain(|met| !self.recall(met, fit, now));
        }
        for met in met {
            self.meet(met, now);
        }
        // A compressed file may be older than what was met before it.
        if copies && self.connection.is_some() {
            self.unordered.extend(self.origins.keys());
        }
        self.search_missing(now);
        self.wake_changed(now);
    }

    /// Takes in what was told of the folders.
    pub(super) fn listen(&mut self, now: Instant) {
        if self.source.listen() {
            self.search_at = self.search_at.min(self.rested_at);
        } else if !self.source.is_watched() {
            // What was told of until now may not be told of any more.
            let usual = (now + self.settings.discover).max(self.rested_at);
            self.search_at = self.search_at.min(usual);
        }
        self.wake_changed(now);
    }

    fn wake_changed(&mut self, now: Instant) {
        for handle in self.source.changed() {
            if let Some(id) = self.by_handle(handle) {
                self.wake_idle(id, now);
            }
        }
    }

    fn by_handle(&self, handle: Handle) -> Option<Id> {
        self.handles.get(&handle).copied()
    }

    /// An idle file has changed: it is looked at now rather than in its turn.
    fn wake_idle(&mut self, id: Id, now: Instant) {
        let idle = self
            .origins
            .get(&id)
            .is_some_and(|origin| origin.sent.is_empty() && origin.seen_end <= origin.cut.position);
        if idle && !self.waiting.contains(&id) {
            self.schedule.set(id, now);
        }
    }

    /// Continues an origin of the checkpoint, when this is it. True when the origin is taken care of.
    fn recall(&mut self, met: &Met, wanted: Fit, now: Instant) -> bool {
        for index in 0..self.missing.len() {
            let entry = &self.missing[index].0;
            let copy = self.source.is_final(met.handle) && entry.source == met.source;
            if entry.lost || !(copy || may_be(&entry.descriptor, &met.descriptor)) {
                continue;
            }
            let described = entry.described();
            let known = Known {
                descriptor: &described,
                mark: entry.mark,
                tail_hash: entry.tail_hash,
                seen: entry.seen,
                own: true,
            };
            match self.source.fit(met.handle, known) {
                Ok(fit) if fit == wanted => {
                    let (entry, _) = self.missing.swap_remove(index);
                    self.remember(met, entry, now);
                    return true;
                }
                // Its content was replaced while the agent was down: the old one ends, a new origin begins.
                Ok(Fit::Rewritten) if wanted == Fit::Exact => {
                    let (entry, _) = self.missing.swap_remove(index);
                    self.mourn(entry, GapReason::Truncated, now);
                    return false;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(path = %self.source.label(met.handle), %error, "cannot read file");
                }
            }
        }
        false
    }

    fn remember(&mut self, met: &Met, entry: Entry, now: Instant) {
        if entry.generation == Generation::NIL {
            let met = Met { start: entry.start, ..met.clone() };
            self.meet(met, now);
            return;
        }
        let id = self.insert(met.clone(), now);
        let Some(origin) = self.origins.get_mut(&id) else { return };
        let frontier = Frontier { position: entry.mark, tail_hash: entry.tail_hash };
        origin.acked = frontier;
        origin.cut = frontier;
        let before = origin.lineage;
        origin.lineage = entry.lineage.or(before);
        self.lineages.join(id, before, origin.lineage);
        origin.source_epoch = entry.source_epoch;
        origin.stage = Stage::Unclaimed;
        if entry.stream == origin.stream {
            origin.generation = entry.generation;
            // A copy is found again by what it is, not by what its original was.
            if !self.source.is_final(met.handle) {
                origin.descriptor = entry.described();
            }
            origin.reason = ClaimReason::Known;
            origin.start = entry.start;
            origin.records_acked = entry.records_acked;
            origin.gap_bytes = entry.gap_bytes;
            origin.skipped_bytes = entry.skipped_bytes;
        } else {
            origin.generation = mint();
            origin.reason = ClaimReason::StreamChanged;
            origin.start = entry.mark;
        }
    }

    /// An origin whose content is gone: its unread rest is reported as a gap.
    fn mourn(&mut self, entry: Entry, reason: GapReason, now: Instant) {
        self.saved.mark_dirty();
        if entry.generation == Generation::NIL {
            return;
        }
        let end = entry.seen.max(entry.mark);
        let id = self.next_id();
        let frontier = Frontier { position: entry.mark, tail_hash: entry.tail_hash };
        let first = First {
            handle: None,
            source: entry.source.clone(),
            stream: entry.stream.clone(),
            descriptor: entry.described(),
            lineage_key: entry.descriptor.path.clone(),
            age: i128::from(entry.descriptor.birth_ns.unwrap_or(0)),
            max_record: 0,
            flush_partial: None,
            from: frontier,
        };
        let mut origin = Origin {
            generation: entry.generation,
            lineage: entry.lineage,
            reason: ClaimReason::Known,
            source_epoch: entry.source_epoch,
            start: entry.start,
            stage: Stage::Unclaimed,
            seen_end: end,
            lost: Some(Lost { end, reason }),
            records_acked: entry.records_acked,
            gap_bytes: entry.gap_bytes,
            skipped_bytes: entry.skipped_bytes,
            ..Origin::new(id, first, now)
        };
        if let Some(connection) = &self.connection {
            origin.name_lineage(connection.agent);
        }
        self.admit(id, origin);
        self.visit(id, now);
    }

    /// What the checkpoint knows and no search found: looked for by its inode, mourned when it stays away.
    fn search_missing(&mut self, now: Instant) {
        for index in (0..self.missing.len()).rev() {
            let (entry, since) = &self.missing[index];
            if entry.lost {
                let (entry, _) = self.missing.swap_remove(index);
                self.mourn(entry, GapReason::Truncated, now);
                continue;
            }
            if let Some(met) = self.source.seek(&entry.described()) {
                if !self.recall(&met, Fit::Exact, now) {
                    self.meet(met, now);
                }
            } else if now.duration_since(*since) >= MISSING
                && self.source.is_reachable(&entry.described())
            {
                let (entry, _) = self.missing.swap_remove(index);
                tracing::warn!(
                    path = %String::from_utf8_lossy(&entry.descriptor.path),
                    unread = %entry.seen.saturating_sub(entry.mark),
                    "a file disappeared while the agent was down"
                );
                self.mourn(entry, GapReason::Removed, now);
            }
        }
    }

    /// An origin that the agent has no state for.
    pub(super) fn meet(&mut self, met: Met, now: Instant) {
        tracing::info!(
            path = %self.source.label(met.handle), source = %met.source, stream = %met.stream,
            start = %met.start, "met file"
        );
        self.insert(met, now);
        self.saved.mark_dirty();
    }

    /// Adds an origin in the stage of asking.
    pub(super) fn insert(&mut self, met: Met, now: Instant) -> Id {
        let id = self.next_id();
        let tail_hash = match met.start {
            0 => 0,
            start => self.source.tail_hash(met.handle, start).unwrap_or(0),
        };
        let first = First {
            handle: Some(met.handle),
            source: met.source,
            stream: met.stream,
            descriptor: met.descriptor,
            lineage_key: met.lineage_key,
            age: met.age,
            max_record: met.max_record,
            flush_partial: met.flush_partial,
            from: Frontier { position: met.start, tail_hash },
        };
        let mut origin = Origin::new(id, first, now);
        if let Some(connection) = &self.connection {
            origin.name_lineage(connection.agent);
        }
        self.admit(id, origin);
        self.visit(id, now);
        id
    }

    fn admit(&mut self, id: Id, origin: Origin) {
        if let Some(handle) = origin.handle {
            self.handles.insert(handle, id);
        }
        self.lineages.join(id, None, origin.lineage);
        self.origins.insert(id, Box::new(origin));
    }

    /// A new generation of a file whose content was replaced, or of which the core holds something else.
    pub(super) fn succeed(
        &mut self,
        old: Id,
        from: Frontier,
        reason: ClaimReason,
        now: Instant,
    ) -> Option<Id> {
        let id = self.next_id();
        let before = self.origins.get_mut(&old)?;
        let handle = before.handle.take()?;
        let descriptor = match self.source.describe(handle) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                tracing::warn!(path = before.descriptor.label(), %error, "cannot read file");
                self.handles.remove(&handle);
                self.source.close(handle);
                return None;
            }
        };
        let first = First {
            handle: Some(handle),
            source: before.source.clone(),
            stream: before.stream.clone(),
            descriptor,
            lineage_key: before.lineage_key.clone(),
            age: before.age.0,
            max_record: before.max_record,
            flush_partial: before.flush_partial,
            from,
        };
        let origin = Origin {
            generation: mint(),
            lineage: before.lineage,
            reason,
            source_epoch: before.source_epoch,
            stage: Stage::Unclaimed,
            unlinked: before.unlinked,
            left: before.left,
            ..Origin::new(id, first, now)
        };
        self.admit(id, origin);
        self.unordered.insert(id);
        self.visit(id, now);
        self.saved.mark_dirty();
        Some(id)
    }

    /// Finds who must be read before each of those that are new to their lineage: its older origins. Those are looked at once more
    /// now: an idle one would let the others wait until its turn.
    pub(super) fn order(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.unordered) {
            let Some(origin) = self.origins.get(&id) else { continue };
            let Some(lineage) = origin.lineage else { continue };
            let is_older = |other: &Id| self.origins.get(other).is_some_and(|o| o.age < origin.age);
            let older: Vec<Id> = self.lineages.members(lineage).filter(is_older).collect();
            if let Some(origin) = self.origins.get_mut(&id) {
                origin.older.clone_from(&older);
            }
            older.into_iter().for_each(|older| self.wake_idle(older, now));
        }
    }

    fn next_id(&mut self) -> Id {
        self.next_id += 1;
        Id(self.next_id)
    }
}

/// A cheap look before files are read: the same inode or the same path.
fn may_be(registered: &garam_proto::FileDescriptor, now: &Descriptor) -> bool {
    let Descriptor::File(now) = now else { return false };
    registered.inode == now.inode || registered.path == now.path
}

/// A new random generation. A kernel without random numbers cannot run TLS either.
pub(super) fn mint() -> Generation {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
    // Nil means "none yet".
    bytes[0] |= 1;
    Generation(bytes)
}
