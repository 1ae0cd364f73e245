//! What the engine knows, told to others: the checkpoint's entries and the status.
//!
//! Promise: an entry's mark is never ahead of an acknowledgement; a checkpoint is handed over at most once a second and one
//! at a time; while it cannot be written nothing new is read (what is on its way is still acknowledged), and reading goes
//! on by itself when writing works again. Per generation: `read + skipped + gap + unread = size`; the last ones that ended are kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garam_proto::{Descriptor, Generation};

use super::origin::{Id, Origin, Settled, Stage};
use super::{Engine, Event};
use crate::checkpoint::Entry;
use crate::source::spool::SpoolStatus;
use crate::status::{FileStatus, Status, Totals};

/// Why bytes are left out on purpose: they lie before the position where reading was to begin, or are holes.
const BEFORE_START: &str = "before_start";
const NUL: &str = "nul";
const EVERY: Duration = Duration::from_secs(1);
/// So many entries are written in a second at most.
const FILES_PER_SECOND: usize = 2000;
/// Ended generations whose account is kept for a while.
const FINISHED: usize = 64;
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Where the checkpoint stands.
#[derive(Debug)]
pub(super) struct Saving {
    dirty: bool,
    in_progress: bool,
    failing: bool,
    next: Instant,
    warn_at: Instant,
}

impl Saving {
    /// The first one is due at once, so that a folder that cannot be written is noticed before anything is read.
    pub(super) fn new(now: Instant) -> Self {
        Self { dirty: true, in_progress: false, failing: false, next: now, warn_at: now }
    }

    pub(super) fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Also when nothing changed: the agent is stopping.
    pub(super) fn force(&mut self) {
        self.dirty = true;
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.dirty && !self.in_progress
    }

    pub(super) fn due(&self, now: Instant) -> Instant {
        if self.dirty && !self.in_progress { self.next } else { now + EVERY }
    }
}

impl Engine {
    pub(super) fn save(&mut self, now: Instant) {
        let stopping = self.stopping.is_some() && !self.saved.failing;
        if !self.saved.dirty || self.saved.in_progress || (now < self.saved.next && !stopping) {
            return;
        }
        let entries = self.origins.values().filter_map(|origin| entry(origin)).collect::<Vec<_>>();
        let missing = self.missing.iter().map(|(entry, _)| entry.clone());
        let snapshot = entries.into_iter().chain(missing).collect();
        if self.snapshots.try_send(snapshot).is_ok() {
            self.saved.dirty = false;
            self.saved.in_progress = true;
        }
        // Of very many files not each second all: the core's marks are ahead of the checkpoint anyway.
        let many = u32::try_from(self.origins.len() / FILES_PER_SECOND).unwrap_or(u32::MAX);
        self.saved.next = now + EVERY * (1 + many.min(9));
    }

    pub(super) fn saved_checkpoint(&mut self, result: Result<(), String>, now: Instant) {
        self.saved.in_progress = false;
        let failed = self.saved.failing;
        match result {
            Ok(()) if failed => {
                tracing::info!("the checkpoint can be written again: reading goes on")
            }
            Ok(()) => {}
            Err(error) => {
                self.saved.dirty = true;
                if now >= self.saved.warn_at {
                    self.saved.warn_at = now + WARN_EVERY;
                    tracing::warn!(
                        error,
                        action = "make room or grant access in the state folder; reading pauses until then",
                        "cannot write checkpoint"
                    );
                }
                self.saved.failing = true;
                return;
            }
        }
        self.saved.failing = false;
    }

    pub(super) fn status(&self, now: Instant) -> Status {
        let mut files: Vec<FileStatus> = self.origins.values().map(|o| self.file(o, now)).collect();
        files.sort_by(|a, b| (&a.path, &a.generation).cmp(&(&b.path, &b.generation)));
        let unread_bytes = files.iter().map(|file| file.unread).sum();
        Status {
            agent: self.connection.as_ref().map(|c| c.agent.to_string()),
            host: self.settings.host.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            connected: self.connection.is_some(),
            core: self.connection.as_ref().map(|c| c.core.clone()),
            session: self.connection.as_ref().map(|c| c.session.to_string()),
            uptime_s: now.duration_since(self.started).as_secs(),
            totals: Totals { unread_bytes, ..self.totals.clone() },
            files,
            finished: self.finished.iter().cloned().collect(),
            spools: self.spools(),
        }
    }

    fn spools(&self) -> Vec<SpoolStatus> {
        let shipped = |source: &str| self.totals.records_acked_by.get(source).copied();
        let spools = self.source.spools().into_iter();
        spools
            .map(|spool| SpoolStatus { shipped: shipped(&spool.source).unwrap_or(0), ..spool })
            .collect()
    }

    /// Counts what a mark settled.
    pub(super) fn account(&mut self, id: Id, settled: &Settled) {
        let totals = &mut self.totals;
        totals.records_acked += settled.records;
        totals.bytes_acked += settled.bytes;
        totals.gap_bytes += settled.gap;
        if settled.records > 0
            && let Some(origin) = self.origins.get(&id)
        {
            let source = origin.source.to_string();
            *totals.records_acked_by.entry(source).or_default() += settled.records;
        }
        if settled.skipped > 0 {
            *totals.skipped_by.entry(NUL.into()).or_default() += settled.skipped;
        }
        if settled.gap > 0 {
            let reason = self.origins.get(&id).map_or("unknown", |origin| origin.gap_reason());
            *totals.gap_by.entry(reason.into()).or_default() += settled.gap;
        }
        self.saved.mark_dirty();
    }

    /// Keeps the account of a generation that ends.
    pub(super) fn conclude(&mut self, id: Id, now: Instant) {
        let ended = self.origins.get(&id).filter(|origin| origin.generation != Generation::NIL);
        let Some(origin) = ended else { return };
        let account = FileStatus { state: "finished".into(), ..self.file(origin, now) };
        if self.finished.len() == FINISHED {
            self.finished.pop_front();
        }
        self.finished.push_back(account);
    }

    fn file(&self, origin: &Origin, now: Instant) -> FileStatus {
        let path = origin
            .handle
            .map(|handle| self.source.label(handle))
            .unwrap_or_else(|| origin.descriptor.label());
        let end = origin.seen_end.max(origin.cut.position);
        let pending_gap: u64 = origin.sent.iter().map(|sent| sent.gap).sum();
        let bytes = |length: u128| u64::try_from(length).unwrap_or(u64::MAX);
        let gap = origin.gap_bytes + pending_gap;
        let holes = origin.skipped_bytes + origin.sent.iter().map(|sent| sent.skipped).sum::<u64>();
        let skipped_by = reasons([(BEFORE_START, bytes(origin.start)), (NUL, holes)]);
        FileStatus {
            path,
            source: origin.source.to_string(),
            stream: origin.stream.to_string(),
            generation: origin.generation.to_string(),
            state: self.state(origin).into(),
            start: bytes(origin.start),
            size: bytes(end),
            read: bytes(origin.cut.position.saturating_sub(origin.start))
                .saturating_sub(gap + holes),
            acked: bytes(origin.acked.position.saturating_sub(origin.start))
                .saturating_sub(origin.gap_bytes),
            gap,
            unread: bytes(end - origin.cut.position),
            skipped: skipped_by.values().sum(),
            skipped_by,
            gap_by: reasons([(origin.gap_reason(), gap)]),
            lag_bytes: bytes(end.saturating_sub(origin.acked.position)),
            lag_s: origin.behind_since.map_or(0, |since| now.duration_since(since).as_secs()),
            records_acked: origin.records_acked,
        }
    }

    fn state(&self, origin: &Origin) -> &'static str {
        match origin.stage {
            _ if origin.troubled => "unreadable",
            _ if origin.lost.is_some() => "lost",
            _ if self.connection.is_none() => "offline",
            Stage::Asking => "asking",
            Stage::Unclaimed | Stage::Claiming { .. } => "claiming",
            Stage::Held { .. } => "held",
            Stage::Open { .. } if self.saved.failing => "paused",
            Stage::Open { partition, .. }
                if self.windows.held(&origin.stream, partition).is_some() =>
            {
                "held"
            }
            Stage::Open { .. } if !origin.older.is_empty() => "waiting",
            Stage::Open { .. } if origin.unlinked => "unlinked",
            Stage::Open { .. } if origin.left => "rotated",
            Stage::Open { .. } => "reading",
        }
    }
}

fn reasons<const N: usize>(parts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    parts.into_iter().filter(|(_, bytes)| *bytes > 0).map(|(why, n)| (why.into(), n)).collect()
}

/// What is remembered of an origin: nothing while neither core nor configuration decided anything about it.
pub(super) fn entry(origin: &Origin) -> Option<Entry> {
    if origin.generation == Generation::NIL && origin.start == 0 {
        return None;
    }
    let Descriptor::File(descriptor) = &origin.descriptor else { return None };
    Some(Entry {
        generation: origin.generation,
        source: origin.source.clone(),
        stream: origin.stream.clone(),
        lineage: origin.lineage,
        descriptor: descriptor.clone(),
        start: origin.start,
        mark: origin.acked.position,
        tail_hash: origin.acked.tail_hash,
        seen: origin.lost.map_or(origin.seen_end, |lost| lost.end).max(origin.acked.position),
        lost: origin.lost.is_some(),
        source_epoch: origin.source_epoch,
        records_acked: origin.records_acked,
        gap_bytes: origin.gap_bytes,
        skipped_bytes: origin.skipped_bytes,
    })
}

impl From<Result<(), crate::checkpoint::CheckpointError>> for Event {
    fn from(result: Result<(), crate::checkpoint::CheckpointError>) -> Self {
        Self::Saved(result.map_err(|error| error.to_string()))
    }
}
