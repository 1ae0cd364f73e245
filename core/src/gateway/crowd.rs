//! How many connections may be on their way in: all together, and of one address (of v6: one /64).
//!
//! ```text
//! accept ─► place (most in all, most of one address, a rate of new ones) ─► first byte ─► turn ─► handshake ─► session
//!               beyond: closed unanswered                    deadline        in order of coming, few at once
//! ```
//!
//! Promise: whoever has said nothing takes no turn; turns are given in the order of coming, and one address never has them all,
//! so that peers which stall in their handshakes keep nobody else waiting. Both ports stand on it. Not here: the handshake.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Addresses remembered; beyond it those at rest are forgotten.
const REMEMBERED: usize = 4096;

/// How much a port bears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections on their way in, over all addresses and of one.
    pub(crate) at_once: usize,
    pub(crate) at_once_each: u32,
    /// New connections of one address a second, and at first.
    pub(crate) a_second: f64,
    pub(crate) at_first: f64,
    /// Handshakes at work, over all addresses and of one.
    pub(crate) turns: usize,
    pub(crate) turns_each: usize,
}

/// Everybody on the way in at one port.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    bounds: Bounds,
    inside: Arc<Mutex<Inside>>,
    turns: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inside {
    now: usize,
    addresses: HashMap<IpAddr, Visits>,
}

#[derive(Debug)]
struct Visits {
    now: u32,
    left: f64,
    at: Instant,
    turns: Arc<Semaphore>,
}

/// A place on the way in; given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Crowd,
    address: IpAddr,
    turns: Arc<Semaphore>,
}

/// Leave to be worked on; given up when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Crowded {
    #[error("too many connections are on their way in")]
    All,
    #[error("too many connections of this address are on their way in")]
    Address,
    #[error("this address connects too often")]
    TooOften,
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silent {
    /// Closed, or cut, before a byte was said: a probe of the port.
    Gone,
    /// Still there, and nothing was said in time.
    Late,
}

impl Crowd {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, inside: Arc::default(), turns: Arc::new(Semaphore::new(bounds.turns)) }
    }

    /// Lets a connection in, or not.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, Crowded> {
        let (bounds, address, now) = (&self.bounds, household(address), Instant::now());
        let mut inside = self.lock();
        if inside.addresses.len() >= REMEMBERED {
            inside.addresses.retain(|_, v| v.now > 0 || v.grown(bounds, now) < bounds.at_first);
        }
        if inside.now >= bounds.at_once || inside.addresses.len() >= REMEMBERED * 2 {
            return Err(Crowded::All);
        }
        let visits = inside.addresses.entry(address).or_insert_with(|| Visits {
            now: 0,
            left: bounds.at_first,
            at: now,
            turns: Arc::new(Semaphore::new(bounds.turns_each)),
        });
        visits.left = visits.grown(bounds, now);
        visits.at = now;
        if visits.now >= bounds.at_once_each {
            return Err(Crowded::Address);
        }
        if visits.left < 1.0 {
            return Err(Crowded::TooOften);
        }
        visits.left -= 1.0;
        visits.now += 1;
        let turns = Arc::clone(&visits.turns);
        inside.now += 1;
        Ok(Place { crowd: self.clone(), address, turns })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the peer has begun to speak, which it must do within `deadline`, and then for its turn, however long.
    pub(crate) async fn turn(&self, tcp: &TcpStream, deadline: Duration) -> Result<Turn, Silent> {
        match timeout(deadline, tcp.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Err(Silent::Gone),
            Err(_) => return Err(Silent::Late),
        }
        // The semaphores are never closed.
        let of_address = Arc::clone(&self.turns).acquire_owned().await;
        let of_all = Arc::clone(&self.crowd.turns).acquire_owned().await;
        match (of_address, of_all) {
            (Ok(_of_address), Ok(_of_all)) => Ok(Turn { _of_address, _of_all }),
            _ => Err(Silent::Gone),
        }
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
    fn grown(&self, bounds: &Bounds, now: Instant) -> f64 {
        let since = now.duration_since(self.at).as_secs_f64();
        (self.left + since * bounds.a_second).min(bounds.at_first)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.crowd.lock();
        inside.now -= 1;
        if let Some(visits) = inside.addresses.get_mut(&self.address) {
            visits.now -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        at_once: 128,
        at_once_each: 16,
        a_second: 5.0,
        at_first: 50.0,
        turns: 3,
        turns_each: 2,
    };
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn one_address_takes_its_share_and_leaves_the_rest() {
        let crowd = Crowd::new(BOUNDS);
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held: Vec<_> = (0..16).map(|_| crowd.enter(greedy).unwrap()).collect();
        assert_eq!(crowd.enter(greedy).unwrap_err(), Crowded::Address);
        assert!(crowd.enter(other).is_ok());
        let held_v6: Vec<_> = (0..20)
            .filter_map(|host| crowd.enter(IpAddr::from([0x2001, 1, 2, 3, 0, 0, 0, host])).ok())
            .collect();
        assert_eq!(held_v6.len(), 16);
        drop(held);
        let burst = (0..200).filter(|_| crowd.enter(greedy).is_ok()).count();
        assert!((20..=40).contains(&burst), "{burst} of a burst of 200");
        assert_eq!(crowd.enter(greedy).unwrap_err(), Crowded::TooOften);
    }

    #[test]
    fn all_addresses_together_have_a_bound_too() {
        let crowd = Crowd::new(BOUNDS);
        let held: Vec<_> =
            (0..=255).map_while(|host| crowd.enter(IpAddr::from([10, 0, 1, host])).ok()).collect();
        assert_eq!(held.len(), 128);
        assert_eq!(crowd.enter(IpAddr::from([10, 0, 2, 1])).unwrap_err(), Crowded::All);
        drop(held);
        assert!(crowd.enter(IpAddr::from([10, 0, 2, 1])).is_ok(), "places are given up");
    }

    /// A connection that has said a byte, as the port sees it.
    async fn speaking() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn one_address_never_has_every_turn_and_waiting_is_no_error() {
        let crowd = Crowd::new(BOUNDS);
        let (tcp, _client) = speaking().await;
        let greedy: Vec<_> =
            (0..4).map(|_| crowd.enter(IpAddr::from([10, 0, 0, 1])).unwrap()).collect();
        let mut turns = Vec::new();
        for place in greedy.iter().take(2) {
            turns.push(place.turn(&tcp, PATIENCE).await.unwrap());
        }
        let mut third = Box::pin(greedy[2].turn(&tcp, Duration::from_millis(1)));
        let waits = timeout(Duration::from_millis(50), &mut third).await;
        assert!(waits.is_err(), "its address has its turns: it waits, longer than the deadline");
        let other = crowd.enter(IpAddr::from([10, 0, 0, 2])).unwrap();
        let _other = timeout(PATIENCE, other.turn(&tcp, PATIENCE)).await.unwrap().unwrap();
        drop(turns);
        assert!(timeout(PATIENCE, third).await.unwrap().is_ok(), "a turn is given on");
    }

    #[tokio::test]
    async fn whoever_says_nothing_takes_no_turn() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, peer) = listener.accept().await.unwrap();
        let place = Crowd::new(BOUNDS).enter(peer.ip()).unwrap();
        assert_eq!(place.turn(&tcp, Duration::from_millis(20)).await.unwrap_err(), Silent::Late);
        drop(client);
        assert_eq!(place.turn(&tcp, PATIENCE).await.unwrap_err(), Silent::Gone);
    }
}
