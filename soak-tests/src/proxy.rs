//! A TCP proxy between agent and core, or core and database, whose link can be cut, stalled, slowed, swallowed and refused,
//! and whose answers can be lost.
//!
//! In: connections on a port of its own. Out: the same bytes to the core, as the weather allows.
//! Promise: bytes that arrive are the bytes that were sent, in order; a fault only delays them, or ends the connection. What
//! TLS carries is not looked at. Dropping the proxy ends every connection.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const BUFFER: usize = 16 * 1024;
/// How long the core is left with a connection whose agent is gone.
const ORPHANED: Duration = Duration::from_secs(3);
/// `cut_after` counts down from here; nothing is counted while it is at its largest.
const NOT_COUNTING: i64 = i64::MAX;

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Clear,
    /// Nothing moves, nothing is lost.
    Stalled,
    /// What is sent vanishes; the connection is beyond saving and must be cut before the weather clears.
    Swallowing,
    /// Each piece takes this much longer.
    Slow(Duration),
    /// New connections are closed at once.
    Refusing,
}

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// RST.
    Reset,
    /// FIN.
    Close,
    /// The agent sees an end, the core does not: what was on its way arrives this much later, when the agent may be back.
    Orphan(Duration),
}

/// The proxy. It works until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Link {
    weather: watch::Sender<Weather>,
    /// How often everything was cut, and how the last time.
    cuts: watch::Sender<(u64, Cut)>,
    connections: AtomicUsize,
    /// Bytes that may still pass before everything is cut.
    cut_after: AtomicI64,
    /// The answer to the next piece with this word in it is lost.
    lose_answer_to: Mutex<Option<&'static [u8]>>,
    answers_lost: AtomicUsize,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `core`.
    pub(crate) async fn start(core: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link {
            weather: watch::Sender::new(Weather::Clear),
            cuts: watch::Sender::new((0, Cut::Close)),
            connections: AtomicUsize::new(0),
            cut_after: AtomicI64::new(NOT_COUNTING),
            lose_answer_to: Mutex::new(None),
            answers_lost: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, core, Arc::clone(&link)));
        Ok(Self { address, link, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open now.
    pub(crate) fn connections(&self) -> usize {
        self.link.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.link.weather.send_replace(weather);
    }

    /// Ends every connection now.
    pub(crate) fn cut(&self, how: Cut) {
        self.link.cut(how);
    }

    /// The next piece with this word in it arrives and is answered; the answer is lost, and its connection ends.
    pub(crate) fn lose_answer_to(&self, word: &'static [u8]) {
        *self.link.asked() = Some(word);
    }

    /// How many answers were lost like that.
    pub(crate) fn answers_lost(&self) -> usize {
        self.link.answers_lost.load(Ordering::Relaxed)
    }

    /// Ends every connection with a RST once this many more bytes have passed: in the middle of a frame.
    pub(crate) fn cut_after(&self, bytes: u32) {
        self.link.cut_after.store(i64::from(bytes), Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    fn cut(&self, how: Cut) {
        self.cut_after.store(NOT_COUNTING, Ordering::Relaxed);
        self.cuts.send_modify(|(count, last)| {
            *count += 1;
            *last = how;
        });
    }

    fn asked(&self) -> MutexGuard<'_, Option<&'static [u8]>> {
        self.lose_answer_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this piece is the one whose answer is to be lost; only one is.
    fn loses_answer_to(&self, piece: &[u8]) -> bool {
        let mut asked = self.asked();
        let found = asked.is_some_and(|word| piece.windows(word.len()).any(|part| part == word));
        if found {
            *asked = None;
        }
        found
    }

    /// How many of these bytes may pass; fewer means that this was the last piece.
    fn allowance(&self, bytes: usize) -> usize {
        let wanted = i64::try_from(bytes).unwrap_or(NOT_COUNTING);
        let take = |left: i64| (left != NOT_COUNTING).then(|| (left - wanted).max(0));
        match self.cut_after.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(left) => usize::try_from(left.min(wanted)).unwrap_or(bytes),
            Err(_not_counting) => bytes,
        }
    }
}

async fn accept(listener: TcpListener, core: SocketAddr, link: Arc<Link>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let refusing = *link.weather.borrow() == Weather::Refusing;
                if let (Ok((agent, _)), false) = (accepted, refusing) {
                    connections.spawn(carry(agent, core, Arc::clone(&link)));
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// One connection, until either side or the weather ends it.
async fn carry(mut agent: TcpStream, core: SocketAddr, link: Arc<Link>) {
    // Subscribed before the core is dialled, so that no cut is missed.
    let mut cuts = link.cuts.subscribe();
    let Ok(mut core) = TcpStream::connect(core).await else { return };
    if agent.set_nodelay(true).and_then(|()| core.set_nodelay(true)).is_err() {
        return;
    }
    link.connections.fetch_add(1, Ordering::Relaxed);
    let how = {
        let (from_agent, to_agent) = agent.split();
        let (from_core, to_core) = core.split();
        let deaf = AtomicBool::new(false);
        tokio::select! {
            _ = cuts.changed() => cuts.borrow().1,
            how = pump(Way::There, from_agent, to_core, &link, &deaf) => how,
            how = pump(Way::Back, from_core, to_agent, &link, &deaf) => how,
        }
    };
    link.connections.fetch_sub(1, Ordering::Relaxed);
    match how {
        Cut::Close => {}
        Cut::Reset => {
            // A peer that is gone already needs no RST.
            let _both_told = agent.set_zero_linger().and_then(|()| core.set_zero_linger()).is_ok();
        }
        Cut::Orphan(delay) => orphan(agent, core, delay).await,
    }
}

/// Sends the agent away, brings the core late what was on its way, and leaves it waiting for more.
async fn orphan(mut agent: TcpStream, mut core: TcpStream, delay: Duration) {
    if agent.shutdown().await.is_err() {
        return;
    }
    tokio::time::sleep(delay).await;
    let rest = tokio::time::timeout(ORPHANED, tokio::io::copy(&mut agent, &mut core));
    // The agent may have ended with a RST, or the core may have ended this session meanwhile: both are the end of it.
    let _went_as_far_as_it_goes = rest.await.is_ok();
    tokio::time::sleep(ORPHANED).await;
}

/// Carries bytes one way. Gives how the connection ends.
async fn pump(
    way: Way,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    link: &Link,
    deaf: &AtomicBool,
) -> Cut {
    let mut weather = link.weather.subscribe();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => return Cut::Close,
            Ok(read) => read,
            Err(_) => return Cut::Reset,
        };
        let Ok(now) = weather.wait_for(|weather| *weather != Weather::Stalled).await.map(|w| *w)
        else {
            return Cut::Close;
        };
        match now {
            Weather::Swallowing => continue,
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Clear | Weather::Stalled | Weather::Refusing => {}
        }
        match way {
            Way::There if link.loses_answer_to(buffer.get(..read).unwrap_or_default()) => {
                deaf.store(true, Ordering::Relaxed);
            }
            Way::Back if deaf.load(Ordering::Relaxed) => {
                // It came, so what was asked has been done.
                link.answers_lost.fetch_add(1, Ordering::Relaxed);
                return Cut::Close;
            }
            Way::There | Way::Back => {}
        }
        let allowed = link.allowance(read);
        let Some(piece) = buffer.get(..allowed) else { return Cut::Reset };
        if to.write_all(piece).await.is_err() {
            return Cut::Reset;
        }
        if allowed < read {
            link.cut(Cut::Reset);
            return Cut::Reset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that sends back what it gets, behind a proxy.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        Proxy::start(address).await.unwrap()
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        tokio::time::timeout(PATIENCE, async {
            while proxy.connections() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        stream
    }

    async fn back(stream: &mut TcpStream, bytes: usize) -> io::Result<Vec<u8>> {
        let mut got = vec![0; bytes];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut got)).await.expect("in time")?;
        Ok(got)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_unchanged() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut from, mut to) = stream.split();
        let mut got = vec![0; bytes.len()];
        let (sent, read) = tokio::join!(to.write_all(&bytes), from.read_exact(&mut got));
        sent.unwrap();
        read.unwrap();
        assert!(got == bytes);
    }

    #[tokio::test]
    async fn a_reset_and_a_close_end_connections_and_new_ones_work() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        proxy.cut(Cut::Reset);
        let error = back(&mut stream, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut stream = connect(&proxy).await;
        proxy.cut(Cut::Close);
        let error = back(&mut stream, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut stream = connect(&proxy).await;
        stream.write_all(b"again").await.unwrap();
        assert_eq!(back(&mut stream, 5).await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn a_counted_cut_lets_exactly_so_many_bytes_pass() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        proxy.cut_after(10);
        stream.write_all(b"0123456789abcdef").await.unwrap();
        // The ten bytes spent the allowance on their way there.
        assert!(back(&mut stream, 16).await.is_err());
        let mut stream = connect(&proxy).await;
        stream.write_all(b"again").await.unwrap();
        assert_eq!(back(&mut stream, 5).await.unwrap(), b"again", "one cut is enough");
    }

    #[tokio::test]
    async fn what_an_orphan_had_on_its_way_arrives_and_the_other_side_stays_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut agent = connect(&proxy).await;
        let (mut core, _) = listener.accept().await.unwrap();
        proxy.cut(Cut::Orphan(Duration::from_millis(1)));
        let error = back(&mut agent, 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        agent.write_all(b"late").await.unwrap();
        drop(agent);
        assert_eq!(back(&mut core, 4).await.unwrap(), b"late");
        let mut byte = [0];
        let error = core.try_read(&mut byte).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "no end is seen");
    }

    #[tokio::test]
    async fn what_was_stalled_arrives_when_it_clears() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        proxy.set(Weather::Stalled);
        stream.write_all(b"later").await.unwrap();
        let mut byte = [0];
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
            assert!(stream.try_read(&mut byte).is_err(), "nothing comes through");
        }
        proxy.set(Weather::Clear);
        assert_eq!(back(&mut stream, 5).await.unwrap(), b"later");
    }

    #[tokio::test]
    async fn what_was_swallowed_never_arrives() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        proxy.set(Weather::Slow(Duration::from_millis(1)));
        stream.write_all(b"slow").await.unwrap();
        assert_eq!(back(&mut stream, 4).await.unwrap(), b"slow");
        proxy.set(Weather::Swallowing);
        stream.write_all(b"gone").await.unwrap();
        proxy.cut(Cut::Close);
        assert!(back(&mut stream, 4).await.is_err());
    }

    #[tokio::test]
    async fn a_lost_answer_was_asked_for_and_ends_one_connection() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        proxy.lose_answer_to(b"COMMIT");
        stream.write_all(b"BEGIN").await.unwrap();
        assert_eq!(back(&mut stream, 5).await.unwrap(), b"BEGIN");
        stream.write_all(b"then COMMIT").await.unwrap();
        assert!(back(&mut stream, 1).await.is_err());
        assert_eq!(proxy.answers_lost(), 1);
        let mut stream = connect(&proxy).await;
        stream.write_all(b"COMMIT").await.unwrap();
        assert_eq!(back(&mut stream, 6).await.unwrap(), b"COMMIT", "one is enough");
    }

    #[tokio::test]
    async fn while_it_refuses_connections_end_at_once() {
        let proxy = echo().await;
        proxy.set(Weather::Refusing);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(back(&mut stream, 1).await.is_err());
        proxy.set(Weather::Clear);
        let mut stream = connect(&proxy).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(back(&mut stream, 1).await.unwrap(), b"x");
    }
}
