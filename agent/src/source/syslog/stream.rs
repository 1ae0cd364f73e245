//! Connections: a stream of messages each.
//!
//! In: a listener. Out: batches, put into the spool. Promise: while the spool is full nothing is read, so that senders wait; at
//! most `max_connections` at once, more are closed at once and counted; a connection that sends nothing for `idle` is
//! closed. When the agent stops, what lies in the buffers of its connections is still read.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::framing::Deframer;
use super::{SyslogPlan, stopped};
use crate::source::spool::{Batch, Inlet};

const BUFFER: usize = 16 * 1024;
/// Out of descriptors, most likely: it passes.
const PAUSE: Duration = Duration::from_secs(1);

trait Connections {
    type Stream: AsyncRead + Unpin + Send + 'static;
    async fn next(&self) -> io::Result<Self::Stream>;
}

impl Connections for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Connections for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

pub(super) async fn tcp(
    listener: TcpListener,
    plan: &SyslogPlan,
    inlet: &Inlet,
    stop: watch::Receiver<bool>,
) {
    accept(listener, plan, inlet, stop).await;
}

pub(super) async fn unix(
    listener: UnixListener,
    plan: &SyslogPlan,
    inlet: &Inlet,
    stop: watch::Receiver<bool>,
) {
    accept(listener, plan, inlet, stop).await;
}

async fn accept(
    listener: impl Connections,
    plan: &SyslogPlan,
    inlet: &Inlet,
    mut stop: watch::Receiver<bool>,
) {
    let for_connections = stop.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok(_) if connections.len() >= plan.max_connections => inlet.spool.counts.refuse(),
            Ok(stream) => {
                let reading = Reading { plan: plan.clone(), inlet: inlet.clone() };
                connections.spawn(reading.run(stream, for_connections.clone()));
            }
            Err(error) => {
                tracing::warn!(source = %plan.spool.name, %error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection.
struct Reading {
    plan: SyslogPlan,
    inlet: Inlet,
}

impl Reading {
    async fn run(self, mut stream: impl AsyncRead + Unpin, mut stop: watch::Receiver<bool>) {
        let counts = &self.inlet.spool.counts;
        let _open = counts.connection();
        let mut deframer = Deframer::new(self.plan.max_message);
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut batch = Batch::default();
            let read = tokio::select! {
                biased;
                read = stream.read(&mut buffer) => read.unwrap_or(0),
                () = stopped(&mut stop) => 0,
                () = tokio::time::sleep(self.plan.idle) => 0,
            };
            match read {
                0 => deframer.finish(&mut batch),
                _ => deframer.feed(buffer.get(..read).unwrap_or_default(), &mut batch),
            }
            counts.cut(deframer.take_cut());
            self.inlet.put(batch).await;
            if read == 0 {
                return;
            }
        }
    }
}
