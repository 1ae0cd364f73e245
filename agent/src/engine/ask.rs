//! What only the core knows: asked for files the checkpoint does not have.
//!
//! In: origins in the stage of asking, candidates from `OpenAck`. Out: origins with a generation. Promise (protocol §1):
//! asked in batches, and only when there is something to read; an exact match wins over one by content, each candidate is
//! checked by reading the file back; what matches nothing gets a new random generation. An older file of the same path
//! that lies beside it under another name is read first.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use garam_proto::message::{Candidate, ClaimReason, MAX_OPENS, Open, OpenAck, OpenQuery};
use garam_proto::{Generation, Message};

use super::meet::mint;
use super::origin::{Frontier, Id, Origin, Stage};
use super::{Engine, Outbox};
use crate::compress::Job;
use crate::source::{Fit, Known, Seen};

/// The most path bytes in one `Open`, so that it stays below the frame's header limit.
const OPEN_BYTES: usize = 64 * 1024;

impl Engine {
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
                let sought = origin.handle.and_then(|h| self.source.sought(h).ok());
                bytes += origin.descriptor.label().len() + 256;
                queries.push(OpenQuery {
                    stream: origin.stream.clone(),
                    source: origin.source.clone(),
                    descriptor: sought.unwrap_or_else(|| origin.descriptor.clone()),
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
        let mut taken = self.taken_of(&ack.candidates);
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
                Some(candidate) => {
                    let copy = origin.handle.filter(|handle| self.source.is_final(*handle));
                    let own = copy.map(|_| origin.descriptor.clone());
                    let before = origin.lineage;
                    origin.adopt(candidate);
                    self.lineages.join(id, before, origin.lineage);
                    // A copy is found again by what it is, not by what its original was.
                    origin.descriptor = own.unwrap_or_else(|| origin.descriptor.clone());
                }
                None => origin.generation = mint(),
            }
            origin.stage = Stage::Unclaimed;
            self.visit(id, now);
        }
        self.unordered.extend(asked);
        self.saved.mark_dirty();
    }

    /// Which of these generations an origin has already.
    fn taken_of(&self, candidates: &[Vec<Candidate>]) -> HashSet<Generation> {
        let offered: HashSet<Generation> =
            candidates.iter().flatten().map(|candidate| candidate.generation).collect();
        if offered.is_empty() {
            return offered;
        }
        let known = self.origins.values().map(|origin| origin.generation);
        known.filter(|generation| offered.contains(generation)).collect()
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
            && self
                .source
                .look(handle, candidate.mark, candidate.tail_hash)
                .is_ok_and(|seen| matches!(seen, Seen::Live(look) if look.end > candidate.mark));
        if !unread || met.stream != stream {
            self.source.close(handle);
            return None;
        }
        let id = self.insert(met, now);
        let origin = self.origins.get_mut(&id)?;
        let before = origin.lineage;
        origin.adopt(candidate.clone());
        self.lineages.join(id, before, origin.lineage);
        origin.stage = Stage::Unclaimed;
        self.unordered.insert(id);
        Some(candidate.generation)
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
        seen: candidate.mark,
        own: false,
    }
}
