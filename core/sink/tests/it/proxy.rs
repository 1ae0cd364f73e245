//! A connection that breaks where a test wants it to: between a writer and its server.
//!
//! Counts what the writer sends, piece by piece, from the moment a rule is set; one broken connection obeys the rule, later
//! ones pass. Counts round trips too: a client that speaks after its server has begun another one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Pass,
    /// Cut before the piece of this number reaches the server.
    CutBefore(usize),
    /// The server gets the piece and answers; the answer is lost and the connection cut.
    CutAfter(usize),
    /// Everything from COMMIT on waits for [`Proxy::release`].
    HoldCommit,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    server: u16,
    /// The rule, and how many pieces have passed under it.
    rule: Mutex<(Rule, usize)>,
    round_trips: AtomicUsize,
    /// Whether the last piece was the client's.
    client_spoke: AtomicBool,
    held: Notify,
    released: Notify,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rule = Mutex::new((Rule::Pass, 0));
        let (held, released) = (Notify::new(), Notify::new());
        let (round_trips, client_spoke) = (AtomicUsize::new(0), AtomicBool::new(false));
        let state = Arc::new(State { server, rule, round_trips, client_spoke, held, released });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, shared.clone()));
            }
        });
        Self { port, state }
    }

    pub(crate) fn rule(&self, rule: Rule) {
        *self.state.rule.lock().unwrap() = (rule, 0);
    }

    /// How many round trips there were since this was asked last.
    pub(crate) fn round_trips(&self) -> usize {
        self.state.round_trips.swap(0, Ordering::SeqCst)
    }

    /// Waits until a COMMIT is held back.
    pub(crate) async fn holds(&self) {
        self.state.held.notified().await;
    }

    pub(crate) fn release(&self) {
        self.rule(Rule::Pass);
        self.state.released.notify_one();
    }
}

/// What to do with a piece.
enum Fate {
    Pass,
    Cut,
    LoseAnswer,
    Hold,
}

impl State {
    fn judge(&self, piece: &[u8]) -> Fate {
        let mut rule = self.rule.lock().unwrap();
        let number = rule.1;
        rule.1 += 1;
        let fate = match rule.0 {
            Rule::CutBefore(at) if at == number => Fate::Cut,
            Rule::CutAfter(at) if at == number => Fate::LoseAnswer,
            Rule::HoldCommit if commits(piece) => Fate::Hold,
            _ => return Fate::Pass,
        };
        rule.0 = Rule::Pass;
        fate
    }
}

/// Whether this is the statement alone, as PostgreSQL or MySQL is told it, and no `READ COMMITTED`.
fn commits(piece: &[u8]) -> bool {
    piece.windows(7).any(|word| word == b"COMMIT\0" || word == b"\x03COMMIT")
}

async fn carry(client: TcpStream, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.server)).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = Arc::new(Notify::new());
    let up = send(from_client, to_server, state.clone(), losing.clone());
    let down = answer(from_server, to_client, state, losing);
    // Whichever side ends takes the other one with it.
    tokio::select! { () = up => {}, () = down => {} }
}

async fn send(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    losing: Arc<Notify>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let piece = &buffer[..count];
        if !state.client_spoke.swap(true, Ordering::SeqCst) {
            state.round_trips.fetch_add(1, Ordering::SeqCst);
        }
        match state.judge(piece) {
            Fate::Pass => {}
            Fate::Cut => return,
            Fate::LoseAnswer => {
                losing.notify_one();
                tokio::task::yield_now().await;
            }
            Fate::Hold => {
                state.held.notify_one();
                state.released.notified().await;
            }
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    losing: Arc<Notify>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let read = tokio::select! {
            biased;
            () = losing.notified(), if !lost => { lost = true; continue }
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(count @ 1..) if !lost => {
                state.client_spoke.store(false, Ordering::SeqCst);
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            // The answer came, so the server has done it; nobody hears of it.
            _ => return,
        }
    }
}
