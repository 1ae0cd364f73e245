//! The rate limit: how many raw bytes per second are read, over all files.
//!
//! Promise: over any longer time never more than the rate plus one second's worth and one block; without a limit it costs
//! nothing. A debt is paid before the next block, so blocks need no size below the rate.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    per_second: Option<u64>,
    /// Until when what was read is paid for.
    paid_until: Instant,
}

impl Rate {
    pub(super) fn new(per_second: Option<u64>, now: Instant) -> Self {
        Self { per_second, paid_until: now }
    }

    /// When the next block may be read; `None`: now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        (self.per_second.is_some() && self.paid_until > now).then_some(self.paid_until)
    }

    pub(super) fn spend(&mut self, bytes: u64, now: Instant) {
        let Some(rate) = self.per_second.filter(|rate| *rate > 0) else { return };
        let saved = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        self.paid_until = self.paid_until.max(saved) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_rate_and_what_was_saved() {
        let start = Instant::now();
        let mut rate = Rate::new(Some(1_000), start);
        let mut now = start;
        let mut read = 0;
        while now < start + Duration::from_secs(100) {
            match rate.wait(now) {
                Some(at) => now = at,
                None => {
                    rate.spend(700, now);
                    read += 700;
                }
            }
        }
        assert!((99_000..=102_000).contains(&read), "{read}");
        assert_eq!(Rate::new(None, start).wait(start), None);
    }
}
