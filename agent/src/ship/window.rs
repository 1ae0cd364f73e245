//! How many unacknowledged payload bytes may be on their way, per stream and partition.
//!
//! In: limits from `Welcome`, `Throttle` and `Hold`, charges from the engine. Out: whether there is room.
//! Promise: a held or full partition says nothing about any other; one block is always let through an empty window, so a
//! record larger than the window cannot stall its stream. A block is charged with its raw size until its compressed size
//! is known, so the window is never exceeded in between.

use std::collections::HashMap;
use std::time::Duration;

use garam_proto::StreamName;
use garam_proto::message::{Hold, Throttle};

type Place = (StreamName, Option<u32>);

#[derive(Debug, Default)]
pub struct Windows {
    /// The session's limit where no throttle says otherwise.
    limit: u64,
    linger: Duration,
    throttled: HashMap<Place, (u64, Duration)>,
    held: HashMap<Place, String>,
    in_flight: HashMap<(StreamName, u32), u64>,
}

impl Windows {
    /// A new session: nothing is on its way, nothing held.
    pub fn begin(limit: u64, linger: Duration) -> Self {
        Self { limit: limit.max(1), linger, ..Self::default() }
    }

    /// Takes a new limit, never above the configured one; the core may only raise the linger.
    pub fn throttle(&mut self, throttle: &Throttle) {
        let linger = Duration::from_millis(throttle.linger_ms.into()).min(Duration::from_secs(60));
        let place = (throttle.stream.clone(), throttle.partition);
        let window = u64::from(throttle.window).clamp(1, self.limit);
        self.throttled.insert(place, (window, linger.max(self.linger)));
    }

    pub fn hold(&mut self, hold: &Hold) {
        let place = (hold.stream.clone(), hold.partition);
        if hold.held {
            self.held.insert(place, hold.why.clone());
        } else {
            self.held.remove(&place);
        }
    }

    /// Why nothing may be read for this partition now, if so.
    pub fn held(&self, stream: &StreamName, partition: u32) -> Option<&str> {
        let whole = self.held.get(&(stream.clone(), None));
        whole.or_else(|| self.held.get(&(stream.clone(), Some(partition)))).map(String::as_str)
    }

    pub fn linger(&self, stream: &StreamName, partition: u32) -> Duration {
        self.limits(stream, partition).1
    }

    /// Whether a block of this raw size may be read.
    pub fn has_room(&self, stream: &StreamName, partition: u32, bytes: u64) -> bool {
        if self.held(stream, partition).is_some() {
            return false;
        }
        let in_flight = self.in_flight.get(&(stream.clone(), partition)).copied().unwrap_or(0);
        in_flight == 0 || in_flight + bytes <= self.limits(stream, partition).0
    }

    pub fn charge(&mut self, stream: &StreamName, partition: u32, bytes: u64) {
        *self.in_flight.entry((stream.clone(), partition)).or_default() += bytes;
    }

    pub fn release(&mut self, stream: &StreamName, partition: u32, bytes: u64) {
        if let Some(in_flight) = self.in_flight.get_mut(&(stream.clone(), partition)) {
            *in_flight = in_flight.saturating_sub(bytes);
        }
    }

    fn limits(&self, stream: &StreamName, partition: u32) -> (u64, Duration) {
        let exact = self.throttled.get(&(stream.clone(), Some(partition)));
        let whole = || self.throttled.get(&(stream.clone(), None));
        exact.or_else(whole).copied().unwrap_or((self.limit, self.linger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    #[test]
    fn a_full_window_stops_its_own_partition_only() {
        let (a, b) = (stream("a"), stream("b"));
        let mut windows = Windows::begin(100, Duration::ZERO);
        windows.charge(&a, 0, 90);
        assert!(windows.has_room(&a, 0, 10));
        assert!(!windows.has_room(&a, 0, 11));
        assert!(windows.has_room(&a, 1, 11));
        assert!(windows.has_room(&b, 0, 11));
        windows.release(&a, 0, 1);
        assert!(windows.has_room(&a, 0, 11));
    }

    #[test]
    fn an_empty_window_lets_one_large_block_through() {
        let a = stream("a");
        let mut windows = Windows::begin(100, Duration::ZERO);
        assert!(windows.has_room(&a, 0, 1_000));
        windows.charge(&a, 0, 1_000);
        assert!(!windows.has_room(&a, 0, 1));
    }

    #[test]
    fn hold_and_throttle_apply_to_what_they_name() {
        let (a, b) = (stream("a"), stream("b"));
        let mut windows = Windows::begin(100, Duration::from_millis(20));
        let hold =
            |partition, held| Hold { stream: stream("a"), partition, held, why: "full".into() };
        windows.hold(&hold(None, true));
        assert_eq!(windows.held(&a, 3), Some("full"));
        assert!(!windows.has_room(&a, 3, 1) && windows.has_room(&b, 3, 1));
        windows.hold(&hold(None, false));
        windows.hold(&hold(Some(1), true));
        assert!(windows.has_room(&a, 0, 1) && !windows.has_room(&a, 1, 1));
        let throttle = Throttle { stream: stream("b"), partition: None, window: 10, linger_ms: 5 };
        windows.throttle(&throttle);
        windows.charge(&b, 0, 5);
        assert!(!windows.has_room(&b, 0, 6));
        assert_eq!(windows.linger(&b, 0), Duration::from_millis(20), "the core may only raise it");
    }
}
