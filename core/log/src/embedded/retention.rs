//! Which sealed segments may go: pure decisions over a stream's segments, its readers' pins, its age and quota.
//!
//! In: per partition its segments (oldest first) and its lowest pin; the log clock; `retain` and `quota`. Out: the next
//! segment to remove, or who is in the way. Promise: a segment that holds an entry at or above the lowest pin never goes,
//! whatever the quota says; the newest segment of a partition never goes; the oldest goes first.
//! Not here: removing files (`writer`), whether trimming is allowed at all (`EmbeddedLog::allow_trimming`).

use garam_proto::LogOffset;

use super::shared::SegmentInfo;

/// One partition of the stream, as far as trimming is concerned.
pub(crate) struct Candidate {
    /// Which partition this is for the writer.
    pub number: usize,
    /// Oldest first; the last one is active.
    pub segments: Vec<SegmentInfo>,
    /// Nothing at or above this may go.
    pub pin: Option<LogOffset>,
}

/// What a stream may keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub now_ms: u64,
    pub retain_ms: u64,
    pub quota: u64,
}

/// The partition whose oldest segment goes next, if any may.
pub(crate) fn next_to_go(stream: &[Candidate], limits: Limits) -> Option<usize> {
    let bytes: u64 = stream.iter().flat_map(|c| &c.segments).map(|s| s.bytes).sum();
    let free = stream.iter().filter_map(|candidate| {
        let sealed_at_ms = candidate.oldest_free()?;
        Some((sealed_at_ms, candidate.number))
    });
    let (sealed_at_ms, number) = free.min()?;
    let expired = sealed_at_ms.saturating_add(limits.retain_ms) < limits.now_ms;
    (expired || bytes >= limits.quota).then_some(number)
}

/// The partition whose oldest segment its readers have held for longest, and from where they would have to stand.
pub(crate) fn most_held(stream: &[Candidate]) -> Option<(usize, u64)> {
    let held = stream.iter().filter_map(|candidate| {
        let [_, next, ..] = candidate.segments.as_slice() else { return None };
        let needed = candidate.pin.is_some_and(|pin| pin.0 < next.base);
        needed.then_some((next.clock_ms, candidate.number, next.base))
    });
    held.min().map(|(_, number, base)| (number, base))
}

impl Candidate {
    /// When the oldest segment was sealed, if no reader needs it.
    fn oldest_free(&self) -> Option<u64> {
        let [_, next, ..] = self.segments.as_slice() else { return None };
        let needed = self.pin.is_some_and(|pin| pin.0 < next.base);
        (!needed).then_some(next.clock_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: usize, pin: Option<u64>, bases_and_ages: &[(u64, u64)]) -> Candidate {
        let segments = bases_and_ages.iter().map(|&(base, clock_ms)| SegmentInfo {
            base,
            path: "x".into(),
            bytes: 100,
            clock_ms,
        });
        Candidate { number, segments: segments.collect(), pin: pin.map(LogOffset) }
    }

    fn check(stream: &[Candidate], now_ms: u64, quota: u64, expect: Option<usize>) {
        let limits = Limits { now_ms, retain_ms: 1000, quota };
        assert_eq!(next_to_go(stream, limits), expect);
    }

    #[test]
    fn retain_keeps_what_is_young_and_a_pin_what_is_needed() {
        let segments = [(0, 0), (10, 500), (20, 900)];
        check(&[partition(0, None, &segments)], 1500, 1000, None);
        check(&[partition(0, None, &segments)], 1501, 1000, Some(0));
        check(&[partition(0, Some(9), &segments)], 9999, 1000, None);
        check(&[partition(0, Some(10), &segments)], 9999, 1000, Some(0));
    }

    #[test]
    fn the_quota_beats_retain_but_not_a_pin_and_takes_the_oldest_first() {
        let old = [(0, 0), (10, 500), (20, 900)];
        let older = [(0, 0), (7, 400)];
        check(&[partition(0, None, &old)], 0, 299, Some(0));
        check(&[partition(0, Some(3), &old)], 0, 299, None);
        check(&[partition(0, None, &old), partition(1, None, &older)], 0, 400, Some(1));
        check(&[partition(0, None, &old), partition(1, Some(0), &older)], 0, 400, Some(0));
    }

    #[test]
    fn the_newest_segment_stays() {
        check(&[partition(0, None, &[(0, 0)])], u64::MAX, 0, None);
    }
}
