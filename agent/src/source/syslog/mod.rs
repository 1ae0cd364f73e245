//! `[[syslog]]`: messages that other programs send, as lines in a spool.
//!
//! ```text
//! udp, unix       one datagram, one message ──────────────┐
//! tcp, unix-stream  bytes ─► framing ─► message ─► line ──┴─► batch ─► Inlet (source/spool)
//! ```
//!
//! In: a [`SyslogPlan`]. Out: batches of lines, one a message, bytes unchanged but for what would break the line. Promise:
//! whatever is sent, memory stays bounded; streams wait while the spool is full; datagrams are dropped and counted then, and
//! what the kernel drops is counted too. A message counts as taken when it is spooled: syslog has no acknowledgements, so
//! what lay in a socket's buffer when the agent was killed is lost, and nobody can count it.
//! Here: listeners and their life. In `address` what may be listened on, in `datagram` and `stream` the two kinds, in
//! `framing` where messages end, in `message` how one becomes a line. Not here: what a message says (the core's contract).

mod address;
mod datagram;
mod framing;
mod message;
mod stream;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use address::Bound;
pub use address::Listen;

use crate::source::spool::{Batch, Inlet, SpoolPlan};

/// A listener that cannot be opened is tried again after so long.
const RETRY: Duration = Duration::from_secs(5);

/// One `[[syslog]]` table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogPlan {
    pub spool: SpoolPlan,
    pub listen: Vec<Listen>,
    /// The longest message, bytes; the rest of a longer one is cut off.
    pub max_message: usize,
    pub max_connections: usize,
    pub idle: Duration,
    /// Permissions of Unix sockets.
    pub mode: u32,
}

impl SyslogPlan {
    /// The longest line a message can become, its end included.
    pub fn longest_line(&self) -> usize {
        self.max_message * message::GROWTH + 1
    }
}

/// The lines that a stream of bytes becomes, and how many messages were cut: what a TCP listener does with what it reads.
pub fn lines_of<'a>(pieces: impl Iterator<Item = &'a [u8]>, max_message: usize) -> (Vec<u8>, u64) {
    let (mut deframer, mut batch) = (framing::Deframer::new(max_message), Batch::default());
    pieces.for_each(|piece| deframer.feed(piece, &mut batch));
    deframer.finish(&mut batch);
    (batch.bytes, deframer.take_cut())
}

/// Listens as the plan says until told to stop; then what has arrived already is still taken.
pub async fn run(plan: SyslogPlan, inlet: Inlet, stop: watch::Receiver<bool>) {
    let mut listeners = JoinSet::new();
    for listen in &plan.listen {
        listeners.spawn(serve(listen.clone(), plan.clone(), inlet.clone(), stop.clone()));
    }
    drop(inlet);
    while listeners.join_next().await.is_some() {}
}

async fn serve(listen: Listen, plan: SyslogPlan, inlet: Inlet, mut stop: watch::Receiver<bool>) {
    let bound = loop {
        match listen.bind(plan.mode).await {
            Ok(bound) => break bound,
            Err(error) => tracing::error!(
                source = %plan.spool.name, %listen, %error, retry_in = ?RETRY,
                action = "free the address or grant the right to listen on it",
                "cannot listen"
            ),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stopped(&mut stop) => return,
        }
    };
    tracing::info!(source = %plan.spool.name, %listen, address = %bound, "listening");
    match bound {
        Bound::Udp(socket) => datagram::udp(socket, &plan, &inlet, stop).await,
        Bound::Unix(socket) => datagram::unix(socket, &plan, &inlet, stop).await,
        Bound::Tcp(listener) => stream::tcp(listener, &plan, &inlet, stop).await,
        Bound::UnixStream(listener) => stream::unix(listener, &plan, &inlet, stop).await,
    }
    listen.release();
}

/// Waits until the table is told to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Nobody is left to say so: the same.
    stop.wait_for(|stop| *stop).await.ok();
}
