//! How many payload bytes may be in the core at once: an agent's share, all agents together, and blocks that still arrive in parts.
//!
//! ```text
//! whole in its frame            ─► share ─► all ─► the log ─► durable: given back
//! in parts   share ─► arriving ─► … ─► last part ─► all, arriving given back ─► the log ─► durable
//! ```
//!
//! Promise: what holds bytes of `all` depends on no peer any more, only on the disk, so a peer that stops in the middle of a block keeps
//! nobody waiting but those who also send in parts, and them not beyond its deadline. A wait is in the order of coming.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::GatewayConfig;

/// One permit stands for this many payload bytes, so that counts fit a semaphore.
const UNIT: u64 = 1024;
/// The share of one agent when the configuration says nothing.
const SHARE: u64 = 64 * 1024 * 1024;
/// What part of all bytes may still be arriving in parts.
const ARRIVING: u64 = 4;

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Permits {
    all: Arc<Semaphore>,
    arriving: Arc<Semaphore>,
    share: u64,
}

/// What one session has.
#[derive(Debug, Clone)]
pub(super) struct Share {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    arriving: Arc<Semaphore>,
}

/// Bytes of a whole payload; given back when dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Bytes of a payload whose parts are still to come; given back when dropped.
#[derive(Debug)]
pub(super) struct Arriving {
    own: OwnedSemaphorePermit,
    units: u32,
    _arriving: OwnedSemaphorePermit,
}

impl Permits {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        let all = config.max_in_flight.as_u64();
        let largest = config.window.as_u64().max(config.max_record.as_u64());
        let share =
            config.max_in_flight_per_agent.map_or(SHARE.max(largest), |share| share.as_u64());
        Self {
            all: semaphore(all),
            arriving: semaphore((all / ARRIVING).max(config.max_record.as_u64())),
            share: share.min(all),
        }
    }

    pub(super) fn share(&self) -> Share {
        Share {
            own: semaphore(self.share),
            all: Arc::clone(&self.all),
            arriving: Arc::clone(&self.arriving),
        }
    }
}

impl Share {
    /// Waits until a payload of `bytes`, which is here, may be in flight. `None` never comes: nothing closes a pool.
    pub(super) async fn take(&self, bytes: u32) -> Option<InFlight> {
        let units = units(bytes);
        let own = Arc::clone(&self.own).acquire_many_owned(units).await.ok()?;
        let all = Arc::clone(&self.all).acquire_many_owned(units).await.ok()?;
        Some(InFlight { _own: own, _all: all })
    }

    /// Waits until a payload of `bytes` may begin to arrive.
    pub(super) async fn expect(&self, bytes: u32) -> Option<Arriving> {
        let units = units(bytes);
        let own = Arc::clone(&self.own).acquire_many_owned(units).await.ok()?;
        let arriving = Arc::clone(&self.arriving).acquire_many_owned(units).await.ok()?;
        Some(Arriving { own, units, _arriving: arriving })
    }

    /// Waits until a payload whose last part has come may be in flight.
    pub(super) async fn arrived(&self, arriving: Arriving) -> Option<InFlight> {
        let all = Arc::clone(&self.all).acquire_many_owned(arriving.units).await.ok()?;
        Some(InFlight { _own: arriving.own, _all: all })
    }
}

fn units(bytes: u32) -> u32 {
    u32::try_from(u64::from(bytes).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn semaphore(bytes: u64) -> Arc<Semaphore> {
    let permits = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytesize::ByteSize;
    use tokio::time::timeout;

    use super::*;

    const MIB: u32 = 1024 * 1024;

    fn permits() -> Permits {
        Permits::new(&GatewayConfig {
            window: ByteSize::mib(1),
            max_record: ByteSize::mib(2),
            max_in_flight: ByteSize::mib(8),
            max_in_flight_per_agent: Some(ByteSize::mib(4)),
            ..GatewayConfig::default()
        })
    }

    async fn waits<T>(taking: impl Future<Output = T>) -> bool {
        timeout(Duration::from_millis(20), taking).await.is_err()
    }

    #[tokio::test]
    async fn an_agent_takes_its_share_and_leaves_the_rest() {
        let permits = permits();
        let (greedy, other) = (permits.share(), permits.share());
        let held = greedy.take(4 * MIB).await.unwrap();
        assert!(waits(greedy.take(1)).await, "its share is taken");
        let others = other.take(4 * MIB).await.unwrap();
        let third = permits.share();
        assert!(waits(third.take(1)).await, "all is taken");
        drop(held);
        assert!(!waits(third.take(4 * MIB)).await);
        drop(others);
    }

    #[tokio::test]
    async fn blocks_that_never_end_keep_no_whole_block_waiting() {
        let permits = permits();
        let (slow, other) = (permits.share(), permits.share());
        let begun = slow.expect(2 * MIB).await.unwrap();
        assert!(waits(other.expect(MIB)).await, "only so much may arrive in parts");
        let whole =
            [other.take(4 * MIB).await.unwrap(), permits.share().take(4 * MIB).await.unwrap()];
        let mut arrived = Box::pin(slow.arrived(begun));
        assert!(waits(&mut arrived).await, "all is taken");
        drop(whole);
        assert!(!waits(arrived).await);
        assert!(!waits(other.expect(MIB)).await, "what has arrived makes room");
    }
}
