//! Accepts connections and hands each to a session of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::session::{self, SessionEnd};
use super::{Door, GatewayStats, told};

/// A bound port. Binding is apart from serving, so that a taken port is reported before anything runs.
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await? })
    }

    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` turns true, then waits for the sessions to finish what they have in flight.
    /// `beat` is called at least every second: the listener lives.
    pub async fn serve(
        self,
        door: Arc<Door>,
        tls: TlsAcceptor,
        mut stop: watch::Receiver<bool>,
        beat: impl Fn() + Send,
    ) -> std::io::Result<()> {
        let places = Arc::new(Semaphore::new(door.config.max_sessions as usize));
        let mut sessions = tokio::task::JoinSet::new();
        let stopping = stop.clone();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = told(&mut stop) => break,
                _ = tick.tick() => beat(),
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => note_panic(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                            tracing::warn!(%peer, limit = door.config.max_sessions, "connection refused: all session places are taken");
                            continue;
                        };
                        let (door, tls, stop) = (Arc::clone(&door), tls.clone(), stopping.clone());
                        sessions.spawn(async move {
                            serve_one(door, tls, tcp, peer, stop).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors or memory: the sessions that run keep running, and the next accept is
                        // tried when something may have been freed.
                        tracing::warn!(%error, "cannot accept a connection");
                        tick.tick().await;
                    }
                },
            }
        }
        drop(self.socket);
        while let Some(ended) = sessions.join_next().await {
            note_panic(ended);
            beat();
        }
        Ok(())
    }
}

async fn serve_one(
    door: Arc<Door>,
    tls: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) {
    GatewayStats::add(&door.stats.connections, 1);
    match session::run(&door, tls, tcp, peer, stop).await {
        SessionEnd::Handshake(error) => {
            GatewayStats::add(&door.stats.handshake_failures, 1);
            tracing::warn!(%peer, %error, "connection refused");
        }
        SessionEnd::Protocol { host, error } => {
            GatewayStats::add(&door.stats.protocol_errors, 1);
            tracing::warn!(%peer, host, %error, "session ended: the agent broke the protocol");
        }
        SessionEnd::Closed { host, why } => tracing::info!(%peer, host, why, "session ended"),
    }
}

/// A panic in a session ends that session alone, but somebody must hear of it.
fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session panicked; its agent will connect again");
    }
}
