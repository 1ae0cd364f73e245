//! How much of the enrolment port one address (of v6: one /64) may take: a few connections at once, and a rate of new ones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Connections at once, over all addresses and of one.
const AT_ONCE: usize = 128;
const AT_ONCE_EACH: u32 = 16;
/// New connections of one address a second, and at first.
const A_SECOND: f64 = 5.0;
const AT_FIRST: f64 = 50.0;
/// Addresses remembered; beyond it those at rest are forgotten.
const REMEMBERED: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(super) struct Crowd {
    addresses: Arc<Mutex<HashMap<IpAddr, Visits>>>,
}

#[derive(Debug)]
struct Visits {
    now: u32,
    left: f64,
    at: Instant,
}

/// A place on the port; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    address: IpAddr,
}

impl Crowd {
    /// Lets a connection in, or not.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = household(address);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if addresses.len() >= REMEMBERED {
            addresses.retain(|_, visits| visits.now > 0 || visits.grown(now) < AT_FIRST);
        }
        let open: u32 = addresses.values().map(|visits| visits.now).sum();
        if open as usize >= AT_ONCE || addresses.len() >= REMEMBERED * 2 {
            return None;
        }
        let visits = addresses.entry(address).or_insert(Visits { now: 0, left: AT_FIRST, at: now });
        visits.left = visits.grown(now);
        visits.at = now;
        if visits.now >= AT_ONCE_EACH || visits.left < 1.0 {
            return None;
        }
        visits.left -= 1.0;
        visits.now += 1;
        Some(Place { crowd: self.clone(), address })
    }
}

/// Who has one v6 address has the whole /64.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() >> 64 << 64).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Visits {
    fn grown(&self, now: Instant) -> f64 {
        (self.left + now.duration_since(self.at).as_secs_f64() * A_SECOND).min(AT_FIRST)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.crowd.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(visits) = addresses.get_mut(&self.address) {
            visits.now -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_share_and_leaves_the_rest() {
        let crowd = Crowd::default();
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held: Vec<_> = std::iter::from_fn(|| crowd.enter(greedy)).take(1000).collect();
        assert_eq!(held.len(), AT_ONCE_EACH as usize);
        assert!(crowd.enter(other).is_some());
        let held_v6: Vec<_> = (0..20)
            .filter_map(|host| crowd.enter(IpAddr::from([0x2001, 1, 2, 3, 0, 0, 0, host])))
            .collect();
        assert_eq!(held_v6.len(), AT_ONCE_EACH as usize);
        drop(held);
        let burst = (0..200).filter(|_| crowd.enter(greedy).is_some()).count();
        assert!((20..=40).contains(&burst), "{burst} of a burst of 200");
    }
}
