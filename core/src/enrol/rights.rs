//! What an agent may do: streams, bytes a second, its largest record. All by its policy, which is named in its record or, where
//! there is none, in its certificate; never by what it says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use garam_proto::{AgentId, StreamName};
use tokio::time::Instant;

use crate::config::PolicyPlan;

/// The longest an agent is left waiting at a time, so that its pings are answered in between.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Agents whose pace is remembered; beyond it those are forgotten that are not connected and owe nothing.
const REMEMBERED: usize = 4096;

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

    fn rate(&self) -> Option<u64> {
        self.policy.as_ref().and_then(|policy| policy.rate)
    }
}

/// The policies of the configuration, as it is now.
#[derive(Debug, Default)]
pub struct Policies {
    by_name: RwLock<BTreeMap<String, Arc<PolicyPlan>>>,
}

impl Policies {
    pub(super) fn new(policies: &[PolicyPlan]) -> Self {
        let made = Self::default();
        made.set(policies);
        made
    }

    /// Takes others, for sessions that begin from now on.
    pub fn set(&self, policies: &[PolicyPlan]) {
        let named = policies.iter().map(|policy| (policy.name.clone(), Arc::new(policy.clone())));
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = named.collect();
    }

    /// What a policy's agents may do; `None` when there is none of the name.
    pub(super) fn rights(&self, name: &str) -> Option<Rights> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name).map(|policy| Rights::of(Some(Arc::clone(policy))))
    }
}

/// The pace of every agent that has one: a new session goes on with what the one before it sent too early.
#[derive(Debug, Default)]
pub struct Paces {
    known: Mutex<HashMap<AgentId, Arc<Mutex<Instant>>>>,
}

impl Paces {
    pub fn of(&self, agent: AgentId, rights: &Rights) -> Pace {
        let (rate, now) = (rights.rate(), Instant::now());
        let fresh = || Arc::new(Mutex::new(now));
        if rate.is_none() {
            return Pace { rate, free_at: fresh() };
        }
        let mut known = lock(&self.known);
        if known.len() >= REMEMBERED {
            known.retain(|_, at| Arc::strong_count(at) > 1 || *lock(at) > now);
        }
        let free_at = known.entry(agent).or_insert_with(fresh);
        Pace { rate, free_at: Arc::clone(free_at) }
    }
}

/// How fast an agent may send: what it sent too early is waited for before the next frame is read.
#[derive(Debug)]
pub struct Pace {
    rate: Option<u64>,
    /// When everything that was sent fits the rate.
    free_at: Arc<Mutex<Instant>>,
}

impl Pace {
    pub fn sent(&self, bytes: u32) {
        let Some(rate) = self.rate else { return };
        let takes = Duration::from_secs_f64(f64::from(bytes) / rate as f64);
        let mut free_at = lock(&self.free_at);
        *free_at = (*free_at).max(Instant::now()) + takes;
    }

    /// Until when the next frame is left unread, if it is. A second's worth may go ahead.
    pub fn resume_at(&self) -> Option<Instant> {
        self.rate?;
        let now = Instant::now();
        let wait = lock(&self.free_at).saturating_duration_since(now + Duration::from_secs(1));
        (!wait.is_zero()).then(|| now + wait.min(LONGEST_WAIT))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_session_goes_on_with_the_pace_of_the_one_before() {
        let policy = PolicyPlan {
            name: "slow".into(),
            globs: Vec::new(),
            streams: globset::GlobSet::empty(),
            rate: Some(1000),
            max_record: None,
        };
        let (paces, rights) = (Paces::default(), Rights::of(Some(Arc::new(policy))));
        paces.of(AgentId([1; 16]), &rights).sent(3000);
        let waits = |agent| paces.of(AgentId([agent; 16]), &rights).resume_at();
        assert_eq!(waits(1).unwrap() - Instant::now(), Duration::from_secs(2));
        assert_eq!(waits(2), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_may_go_ahead_and_no_wait_is_longer_than_a_ping_can_bear() {
        let pace = Pace { rate: Some(1000), free_at: Arc::new(Mutex::new(Instant::now())) };
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
