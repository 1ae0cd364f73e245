//! The writer's part that keeps streams inside their quotas: trimming, and saying "full".
//!
//! In: sizes, pins, the log clock. Out: removed segments; streams that take nothing until the next upkeep.
//! Promise: nothing is removed before trimming was allowed, nor anything a pin needs (`retention` decides); segments go
//! oldest first, each removal synced before the next, so that what is left has no hole.

use std::sync::atomic::Ordering;

use garam_proto::OriginId;

use super::retention::{self, Candidate, Limits};
use super::writer::Writer;

/// The part of its quota by which a stream may be overdrawn to make room.
const OVERDRAFT: u64 = 8;

impl Writer {
    /// Whether the stream may take one more entry; trims first where that helps.
    pub(crate) fn make_room(&mut self, stream: usize) -> Result<(), String> {
        let Some(state) = self.streams.get(stream) else { return Ok(()) };
        if let Some(why) = &state.full {
            return Err(why.clone());
        }
        if state.bytes < state.config.quota {
            return Ok(());
        }
        self.trim(stream);
        let Some(state) = self.streams.get(stream) else { return Ok(()) };
        if state.bytes < state.config.quota {
            return Ok(());
        }
        let why = format!(
            "its {} bytes reach the quota of {}, and {}",
            state.bytes,
            state.config.quota,
            self.who_pins(stream)
        );
        self.set_full(stream, why.clone());
        Err(why)
    }

    /// Whether entries of this origin are taken although the stream may be full: without them it would stay so.
    pub(crate) fn relieves(&self, stream: usize, origin: &OriginId) -> bool {
        self.streams.get(stream).is_some_and(|state| {
            let most = state.config.quota.saturating_add(state.config.quota / OVERDRAFT);
            state.config.relief.as_ref() == Some(origin) && !state.disk_full && state.bytes < most
        })
    }

    /// Removes every segment of the stream that age or quota gives up.
    pub(crate) fn trim(&mut self, stream: usize) {
        while let Some(number) = self.next_to_go(stream) {
            if !self.remove_oldest(number) {
                break;
            }
        }
        self.count_stream(stream);
    }

    pub(crate) fn set_full(&mut self, stream: usize, why: String) {
        if let Some(state) = self.streams.get_mut(stream) {
            let first = state.partitions.first().and_then(|&n| self.partitions.get(n));
            if first.is_some_and(|partition| partition.shared.full().is_none()) {
                tracing::warn!(stream = %state.config.name, why, "stream is full, its agents hold");
            }
            state.full = Some(why);
        }
        self.show_full(stream);
    }

    /// Shows in the statistics whether the stream is full.
    pub(crate) fn show_full(&self, stream: usize) {
        let Some(state) = self.streams.get(stream) else { return };
        // On a full disk only a write that succeeds tells that there is room again.
        if state.full.is_none() && state.disk_full {
            return;
        }
        for partition in state.partitions.iter().filter_map(|&n| self.partitions.get(n)) {
            partition.shared.set_full(state.full.clone());
        }
    }

    /// Counts the bytes of these partitions' streams anew.
    pub(crate) fn count_bytes(&mut self, partitions: &[usize]) {
        let mut streams: Vec<usize> =
            partitions.iter().filter_map(|&n| Some(self.partitions.get(n)?.stream)).collect();
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            self.count_stream(stream);
        }
    }

    pub(crate) fn count_stream(&mut self, stream: usize) {
        let Some(state) = self.streams.get_mut(stream) else { return };
        let partitions = state.partitions.iter().filter_map(|&n| self.partitions.get(n));
        state.bytes = partitions.map(|partition| partition.bytes()).sum();
    }

    fn next_to_go(&self, stream: usize) -> Option<usize> {
        let state = self.streams.get(stream)?;
        let limits = Limits {
            now_ms: self.clock.now_ms(&*self.env.time),
            retain_ms: state.config.retain_ms(),
            quota: state.config.quota,
        };
        retention::next_to_go(&self.candidates(stream), limits)
    }

    /// The stream's partitions that may lose segments.
    pub(crate) fn candidates(&self, stream: usize) -> Vec<Candidate> {
        if !self.directory.trimming.load(Ordering::Acquire) {
            return Vec::new();
        }
        let numbers = self.streams.get(stream).map_or(&[][..], |state| &state.partitions);
        let partitions = numbers.iter().filter_map(|&n| Some((n, self.partitions.get(n)?)));
        // A damaged partition keeps everything: somebody has to look at it.
        let sound = partitions
            .filter(|(_, partition)| partition.live.is_ok() && partition.shared.is_trimmable());
        let candidates = sound.map(|(number, partition)| Candidate {
            number,
            segments: partition.shared.segments().clone(),
            pin: partition.shared.lowest_pin().map(|(_, next)| next),
        });
        candidates.collect()
    }

    /// Removes a partition's oldest segment: first from what readers see, then from the disk.
    fn remove_oldest(&mut self, number: usize) -> bool {
        let Some(partition) = self.partitions.get(number) else { return false };
        let oldest = match partition.shared.segments().as_slice() {
            [oldest, next, ..] => (oldest.clone(), next.base),
            _ => return false,
        };
        if !self.count_given_up(&partition.shared, &oldest.0, oldest.1) {
            return false;
        }
        let segment = partition.shared.segments().remove(0);
        let dir = self.partition_dir(&partition.shared.id);
        let removed = self.env.fs.remove(&segment.path).and_then(|()| self.env.fs.sync_dir(&dir));
        if let Err(error) = removed {
            tracing::warn!(%error, file = %segment.path.display(), "cannot remove a segment, trying again later");
            partition.shared.segments().insert(0, segment);
            return false;
        }
        tracing::debug!(partition = %partition.shared.id, base = segment.base, "removed a segment");
        true
    }

    fn who_pins(&self, stream: usize) -> String {
        if !self.directory.trimming.load(Ordering::Acquire) {
            return "trimming has not been allowed yet".into();
        }
        let Some(state) = self.streams.get(stream) else { return String::new() };
        let partitions = state.partitions.iter().filter_map(|&n| self.partitions.get(n));
        let pins = partitions.filter_map(|partition| {
            let (reader, next) = partition.shared.lowest_pin()?;
            let behind = next < partition.shared.bounds().end;
            behind.then(|| format!("{reader} stands at {next} of {}", partition.shared.id))
        });
        match pins.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "what is left is not sealed yet: raise the quota".into(),
            pins => format!("{pins}: get that destination going or raise the quota"),
        }
    }
}
