//! What an agent may do: streams, bytes a second, its largest record. All by its policy, which is named in its record or, where
//! there is none, in its certificate; never by what it says.

use std::sync::Arc;
use std::time::Duration;

use garam_proto::StreamName;
use tokio::time::Instant;

use crate::config::PolicyPlan;

/// The longest an agent is left waiting at a time, so that its pings are answered in between.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// An agent's rights. Without a policy: everything the core can do.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    policy: Option<Arc<PolicyPlan>>,
}

impl Rights {
    pub(super) fn of(policy: Option<Arc<PolicyPlan>>) -> Self {
        Self { policy }
    }

    pub fn may_write(&self, stream: &StreamName) -> bool {
        self.policy.as_ref().is_none_or(|policy| policy.streams.is_match(stream.as_str()))
    }

    /// The policy's name, for people.
    pub fn name(&self) -> &str {
        self.policy.as_ref().map_or("(none)", |policy| &policy.name)
    }

    /// The largest record, where the core as a whole takes `most`.
    pub fn max_record(&self, most: u32) -> u32 {
        self.policy.as_ref().and_then(|policy| policy.max_record).unwrap_or(most).min(most)
    }

    pub fn pace(&self) -> Pace {
        let rate = self.policy.as_ref().and_then(|policy| policy.rate);
        Pace { rate, free_at: Instant::now() }
    }
}

/// How fast an agent may send: what it sent too early is waited for before the next frame is read.
#[derive(Debug)]
pub struct Pace {
    rate: Option<u64>,
    /// When everything that was sent fits the rate.
    free_at: Instant,
}

impl Pace {
    pub fn sent(&mut self, bytes: u32) {
        let Some(rate) = self.rate else { return };
        let takes = Duration::from_secs_f64(f64::from(bytes) / rate as f64);
        self.free_at = self.free_at.max(Instant::now()) + takes;
    }

    /// Until when the next frame is left unread, if it is. A second's worth may go ahead.
    pub fn resume_at(&self) -> Option<Instant> {
        self.rate?;
        let now = Instant::now();
        let wait = self.free_at.saturating_duration_since(now + Duration::from_secs(1));
        (!wait.is_zero()).then(|| now + wait.min(LONGEST_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_may_go_ahead_and_no_wait_is_longer_than_a_ping_can_bear() {
        let mut pace = Pace { rate: Some(1000), free_at: Instant::now() };
        pace.sent(1000);
        assert_eq!(pace.resume_at(), None);
        pace.sent(500);
        assert_eq!(pace.resume_at().unwrap() - Instant::now(), Duration::from_millis(500));
        pace.sent(1_000_000);
        assert_eq!(pace.resume_at().unwrap() - Instant::now(), LONGEST_WAIT);
        tokio::time::advance(Duration::from_secs(2000)).await;
        assert_eq!(pace.resume_at(), None);
    }
}
