//! How origins are met: new files, files the checkpoint knows, files only the core knows.
//!
//! In: what the source found, checkpoint entries, candidates from `OpenAck`. Out: origins with a generation.
//! Promise (protocol §1): one file per origin; an exact match wins over one by content; what matches nothing gets a new
//! random generation. A file the checkpoint knows is also searched beside its old path, so that what was renamed out of
//! the globs while the agent was down is still read to its end.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use garam_proto::message::{
    Candidate, ClaimReason, GapReason, MAX_OPENS, Open, OpenAck, OpenQuery,
};
use garam_proto::{Descriptor, Generation, LineageId, Message};

use super::origin::{Frontier, Id, Lost, Origin, Stage};
use super::{Engine, Outbox};
use crate::checkpoint::Entry;
use crate::compress::Job;
use crate::source::{Fit, Known, Met};

/// How long an origin of the checkpoint may be absent before its unread rest counts as lost.
const MISSING: Duration = Duration::from_secs(300);
/// The most path bytes in one `Open`, so that it stays below the frame's header limit.
const OPEN_BYTES: usize = 64 * 1024;

impl Engine {
    /// One search: new origins are matched with the checkpoint, the others are asked for.
    pub(super) fn search(&mut self, now: Instant) {
        let mut met = self.source.discover();
        for fit in [Fit::Exact, Fit::ByContent] {
            met.retain(|met| !self.recall(met, fit, now));
        }
        for met in met {
            self.meet(met, now);
        }
        self.search_missing(now);
    }

    /// Continues an origin of the checkpoint, when this is it. True when the origin is taken care of.
    fn recall(&mut self, met: &Met, wanted: Fit, now: Instant) -> bool {
        for index in 0..self.missing.len() {
            let entry = &self.missing[index].0;
            if entry.lost || !may_be(&entry.descriptor, &met.descriptor) {
                continue;
            }
            let described = entry.described();
            let known = Known {
                descriptor: &described,
                mark: entry.mark,
                tail_hash: entry.tail_hash,
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
        origin.lineage = entry.lineage.or(origin.lineage);
        origin.source_epoch = entry.source_epoch;
        origin.stage = Stage::Unclaimed;
        if entry.stream == origin.stream {
            origin.generation = entry.generation;
            origin.descriptor = entry.described();
            origin.reason = ClaimReason::Known;
            origin.start = entry.start;
            origin.records_acked = entry.records_acked;
            origin.gap_bytes = entry.gap_bytes;
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
        let mut origin = Origin {
            handle: None,
            source: entry.source.clone(),
            stream: entry.stream.clone(),
            generation: entry.generation,
            descriptor: entry.described(),
            lineage_key: entry.descriptor.path.clone(),
            lineage: entry.lineage,
            age: (i128::from(entry.descriptor.birth_ns.unwrap_or(0)), id),
            reason: ClaimReason::Known,
            source_epoch: entry.source_epoch,
            max_record: 0,
            start: entry.start,
            stage: Stage::Unclaimed,
            acked: frontier,
            cut: frontier,
            seen_end: end,
            sent: Default::default(),
            lost: Some(Lost { end, reason }),
            older: Vec::new(),
            met_at: now,
            exhausted_at: None,
            last_cut: None,
            last_change: now,
            unlinked: true,
            left: true,
            troubled: false,
            records_acked: entry.records_acked,
            gap_bytes: entry.gap_bytes,
        };
        if let Some(connection) = &self.connection {
            origin.name_lineage(connection.agent);
        }
        self.origins.insert(id, origin);
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
    fn insert(&mut self, met: Met, now: Instant) -> Id {
        let id = self.next_id();
        let tail_hash = match met.start {
            0 => 0,
            start => self.source.tail_hash(met.handle, start).unwrap_or(0),
        };
        let frontier = Frontier { position: met.start, tail_hash };
        let mut origin = Origin {
            handle: Some(met.handle),
            source: met.source,
            stream: met.stream,
            generation: Generation::NIL,
            descriptor: met.descriptor,
            lineage_key: met.lineage_key,
            lineage: None,
            age: (met.age, id),
            reason: ClaimReason::New,
            source_epoch: 0,
            max_record: met.max_record,
            start: met.start,
            stage: Stage::Asking,
            acked: frontier,
            cut: frontier,
            seen_end: met.start,
            sent: Default::default(),
            lost: None,
            older: Vec::new(),
            met_at: now,
            exhausted_at: None,
            last_cut: None,
            last_change: now,
            unlinked: false,
            left: false,
            troubled: false,
            records_acked: 0,
            gap_bytes: 0,
        };
        if let Some(connection) = &self.connection {
            origin.name_lineage(connection.agent);
        }
        self.origins.insert(id, origin);
        self.visit(id, now);
        id
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
                self.source.close(handle);
                return None;
            }
        };
        let origin = Origin {
            handle: Some(handle),
            source: before.source.clone(),
            stream: before.stream.clone(),
            generation: mint(),
            descriptor,
            lineage_key: before.lineage_key.clone(),
            lineage: before.lineage,
            age: (before.age.0, id),
            reason,
            source_epoch: before.source_epoch,
            max_record: before.max_record,
            start: from.position,
            stage: Stage::Unclaimed,
            acked: from,
            cut: from,
            seen_end: from.position,
            sent: Default::default(),
            lost: None,
            older: Vec::new(),
            met_at: now,
            exhausted_at: None,
            last_cut: None,
            last_change: now,
            unlinked: before.unlinked,
            left: before.left,
            troubled: false,
            records_acked: 0,
            gap_bytes: 0,
        };
        self.origins.insert(id, origin);
        self.order(&[id]);
        self.visit(id, now);
        self.saved.mark_dirty();
        Some(id)
    }

    /// Asks the core about everything that waits for it, in batches.
    pub(super) fn ask(&mut self, outbox: &mut Outbox<'_>) {
        while !self.asks.is_empty() && outbox.has_room() {
            let mut queries = Vec::new();
            let mut ids = Vec::new();
            let mut bytes = 0;
            while let Some(id) = self.asks.pop_first() {
                let Some(origin) = self.origins.get_mut(&id) else { continue };
                // The head may have grown since the file was met.
                if let Some(Ok(descriptor)) = origin.handle.map(|h| self.source.describe(h)) {
                    origin.descriptor = descriptor;
                }
                bytes += origin.descriptor.label().len() + 256;
                queries.push(OpenQuery {
                    stream: origin.stream.clone(),
                    source: origin.source.clone(),
                    descriptor: origin.descriptor.clone(),
                });
                ids.push(id);
                if queries.len() == MAX_OPENS || bytes >= OPEN_BYTES {
                    break;
                }
            }
            if queries.is_empty() {
                return;
            }
            let number = self.next_open;
            self.next_open += 1;
            self.asked.insert(number, ids);
            outbox.send(Job::Message(Message::from(Open { number, queries })));
        }
    }

    /// The core's answer: who is known is adopted, the others are new.
    pub(super) fn opened(&mut self, ack: OpenAck, now: Instant) {
        let Some(asked) = self.asked.remove(&ack.number) else { return };
        let mut taken: HashSet<Generation> = self.origins.values().map(|o| o.generation).collect();
        let mut open: Vec<(Id, Vec<Candidate>)> =
            asked.iter().copied().zip(ack.candidates).collect();
        open.retain(|(id, _)| self.origins.get(id).is_some_and(|o| o.stage == Stage::Asking));
        let mut adopted: HashMap<Id, Candidate> = HashMap::new();
        for wanted in [Fit::Exact, Fit::ByContent] {
            for (id, candidates) in &open {
                if adopted.contains_key(id) {
                    continue;
                }
                let chosen = candidates.iter().find(|candidate| {
                    !taken.contains(&candidate.generation) && self.fits(*id, candidate) == wanted
                });
                if let Some(candidate) = chosen {
                    taken.insert(candidate.generation);
                    adopted.insert(*id, candidate.clone());
                }
            }
        }
        for (id, candidates) in open {
            for candidate in &candidates {
                if taken.contains(&candidate.generation) {
                    continue;
                }
                if let Some(generation) = self.fetch_predecessor(id, candidate, now) {
                    taken.insert(generation);
                }
            }
            let Some(origin) = self.origins.get_mut(&id) else { continue };
            match adopted.remove(&id) {
                Some(candidate) => origin.adopt(candidate),
                None => origin.generation = mint(),
            }
            origin.stage = Stage::Unclaimed;
            self.visit(id, now);
        }
        self.order(&asked);
        self.saved.mark_dirty();
    }

    fn fits(&mut self, id: Id, candidate: &Candidate) -> Fit {
        let Some(handle) = self.origins.get(&id).and_then(|origin| origin.handle) else {
            return Fit::No;
        };
        self.source.fit(handle, known(candidate)).unwrap_or(Fit::No)
    }

    /// The core knows an older file of this path: when it lies beside it under another name and holds more than the core
    /// has, it is read first.
    fn fetch_predecessor(
        &mut self,
        of: Id,
        candidate: &Candidate,
        now: Instant,
    ) -> Option<Generation> {
        let stream = self.origins.get(&of)?.stream.clone();
        let met = self.source.seek(&candidate.descriptor)?;
        let handle = met.handle;
        let unread = self.source.fit(handle, known(candidate)).is_ok_and(|fit| fit == Fit::Exact)
            && self.source.look(handle, candidate.mark, candidate.tail_hash).is_ok_and(
                |seen| matches!(seen, crate::source::Seen::Live(look) if look.end > candidate.mark),
            );
        if !unread || met.stream != stream {
            self.source.close(handle);
            return None;
        }
        let id = self.insert(met, now);
        let origin = self.origins.get_mut(&id)?;
        origin.adopt(candidate.clone());
        origin.stage = Stage::Unclaimed;
        self.order(&[id]);
        Some(candidate.generation)
    }

    /// Finds who must be read before each of these: the older origins of its lineage.
    pub(super) fn order(&mut self, ids: &[Id]) {
        let mut lineages: HashMap<LineageId, Vec<(i128, Id)>> = HashMap::new();
        for origin in self.origins.values() {
            if let Some(lineage) = origin.lineage {
                lineages.entry(lineage).or_default().push(origin.age);
            }
        }
        for id in ids {
            let Some(origin) = self.origins.get_mut(id) else { continue };
            let Some(all) = origin.lineage.and_then(|lineage| lineages.get(&lineage)) else {
                continue;
            };
            origin.older = all.iter().filter(|age| **age < origin.age).map(|age| age.1).collect();
        }
    }

    fn next_id(&mut self) -> Id {
        self.next_id += 1;
        Id(self.next_id)
    }
}

impl Origin {
    fn adopt(&mut self, candidate: Candidate) {
        let frontier = Frontier { position: candidate.mark, tail_hash: candidate.tail_hash };
        self.generation = candidate.generation;
        self.descriptor = candidate.descriptor;
        self.lineage = Some(candidate.lineage);
        self.reason = ClaimReason::Known;
        self.start = 0;
        self.acked = frontier;
        self.cut = frontier;
        self.seen_end = self.seen_end.max(frontier.position);
    }
}

fn known(candidate: &Candidate) -> Known<'_> {
    Known {
        descriptor: &candidate.descriptor,
        mark: candidate.mark,
        tail_hash: candidate.tail_hash,
        own: false,
    }
}

/// A cheap look before files are read: the same inode or the same path.
fn may_be(registered: &garam_proto::FileDescriptor, now: &Descriptor) -> bool {
    let Descriptor::File(now) = now else { return false };
    registered.inode == now.inode || registered.path == now.path
}

/// A new random generation. A kernel without random numbers cannot run TLS either.
fn mint() -> Generation {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
    // Nil means "none yet".
    bytes[0] |= 1;
    Generation(bytes)
}
