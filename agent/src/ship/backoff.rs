//! How long to wait before the next connection: decorrelated jitter, so that a thousand agents do not return at once.
//!
//! Promise: between 100 ms and 30 s; grows while nothing works, begins anew after a session that got something done.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Backoff {
    last: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    pub fn new(random: fastrand::Rng) -> Self {
        Self { last: SHORTEST, random }
    }

    pub fn reset(&mut self) {
        self.last = SHORTEST;
    }

    /// The next pause: anything between the shortest and three times the last one.
    pub fn pause(&mut self) -> Duration {
        let high = (self.last * 3).min(LONGEST);
        let span = high.saturating_sub(SHORTEST).as_secs_f64();
        self.last = SHORTEST + Duration::from_secs_f64(span * self.random.f64());
        self.last
    }

    /// A pause after a refusal that only a person can end: one to two minutes.
    pub fn refused(&mut self) -> Duration {
        Duration::from_secs_f64(60.0 + 60.0 * self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_in_bounds_and_grow() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(7));
        let mut longest = Duration::ZERO;
        for _ in 0..1_000 {
            let pause = backoff.pause();
            assert!((SHORTEST..=LONGEST).contains(&pause), "{pause:?}");
            longest = longest.max(pause);
        }
        assert!(longest > Duration::from_secs(10));
        backoff.reset();
        assert!(backoff.pause() <= SHORTEST * 3);
    }
}
