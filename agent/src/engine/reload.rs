//! A new configuration while the agent runs, and bytes that deleted files keep on the disk.
//!
//! In: a checked plan; the look at each file. Out: origins that go on, are met anew, or are let go. Promise: nobody's
//! position moves: a file whose table, stream or globs changed goes back to where the checkpoint would have it and is
//! met again from there; a file no table names any more is let go, with its position kept. Beyond
//! `hold_unlinked` the unread rest of the oldest deleted file is given up as a gap of exactly what was seen.

use std::time::Instant;

use garam_proto::Codec;
use garam_proto::message::GapReason;

use super::origin::{Id, Lost};
use super::{Engine, Outbox, Settings, ledger, rate::Rate};
use crate::compress::Job;
use crate::source::file::FileSet;

/// What may change while the agent runs.
#[derive(Debug)]
pub struct Reload {
    pub settings: Settings,
    pub files: Vec<FileSet>,
    pub codec: Codec,
    pub level: i32,
}

impl Engine {
    pub(super) fn reload(&mut self, reload: Reload, now: Instant) {
        self.rate = Rate::new(reload.settings.rate, now);
        self.settings = reload.settings;
        self.codec = Some((reload.codec, reload.level));
        self.source.reload(reload.files);
        let all: Vec<Id> = self.origins.keys().copied().collect();
        let (mut kept, mut gone) = (0, 0);
        for id in all {
            if self.stays(id) {
                kept += 1;
            } else {
                gone += 1;
                self.step_back(id, now);
            }
        }
        tracing::info!(kept, changed = gone, "configuration read again");
        self.search_at = now;
        self.saved.mark_dirty();
    }

    /// Whether the origin is read as before; takes over what may change in place.
    fn stays(&mut self, id: Id) -> bool {
        let Some(origin) = self.origins.get_mut(&id) else { return true };
        let Some(handle) = origin.handle else { return true };
        let Some(place) = self.source.place(handle) else { return false };
        if place.source != origin.source || place.stream != origin.stream {
            return false;
        }
        origin.max_record = place.max_record;
        origin.flush_partial = place.flush_partial;
        true
    }

    /// Forgets an origin as a stop would: what the checkpoint holds of it remains.
    fn step_back(&mut self, id: Id, now: Instant) {
        if let Some(entry) = self.origins.get(&id).and_then(|origin| ledger::entry(origin)) {
            self.missing.push((entry, now));
        }
        self.forget(id);
    }

    /// Tells the compressor about another codec.
    pub(super) fn announce_codec(&mut self, outbox: &mut Outbox<'_>) {
        if outbox.has_room()
            && let Some((codec, level)) = self.codec.take()
        {
            outbox.send(Job::Codec(codec, level));
        }
    }

    /// Gives up deleted files, oldest first, until what they keep on the disk fits.
    pub(super) fn give_up_deleted(&mut self, now: Instant) {
        let mut pinned: Vec<(u64, (i128, Id), Id)> = self
            .origins
            .iter()
            .filter(|(_, origin)| origin.unlinked && origin.handle.is_some())
            .filter(|(_, origin)| origin.seen_end > origin.cut.position)
            .map(|(id, origin)| {
                (u64::try_from(origin.seen_end).unwrap_or(u64::MAX), origin.age, *id)
            })
            .collect();
        let mut total: u64 = pinned.iter().map(|(bytes, ..)| *bytes).sum();
        if total <= self.settings.hold_unlinked {
            return;
        }
        pinned.sort_by_key(|(_, age, _)| *age);
        for (bytes, _, id) in pinned {
            if total <= self.settings.hold_unlinked {
                return;
            }
            total -= bytes;
            if self.go_on_in_copy(id) {
                continue;
            }
            let Some(origin) = self.origins.get_mut(&id) else { continue };
            tracing::warn!(
                file = origin.descriptor.label(),
                unread = %origin.seen_end.saturating_sub(origin.cut.position),
                limit = self.settings.hold_unlinked,
                action = "raise ship.hold_unlinked, or rotate less while the core cannot take the data",
                "deleted files hold too much of the disk: giving one up, its unread rest is a gap"
            );
            origin.lost = Some(Lost { end: origin.seen_end, reason: GapReason::Removed });
            if let Some(handle) = origin.handle.take() {
                self.handles.remove(&handle);
                self.source.close(handle);
            }
            self.saved.mark_dirty();
            self.visit(id, now);
        }
    }
}
