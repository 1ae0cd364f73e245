//! Accepts connections and hands each to a session of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::crowd::{Bounds, Crowd, Crowded, Place};
use super::session::{self, SessionEnd};
use super::{Door, GatewayStats, told};
use crate::config::GatewayConfig;

/// New connections of one address a second, and at first: a fleet behind one address comes back within seconds.
const A_SECOND: f64 = 200.0;
const AT_FIRST: f64 = 2048.0;
/// The part of all turns that one address may have.
const TURNS_EACH: u32 = 8;

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
        let crowd = Crowd::new(bounds(&door.config));
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
                        let (door, tls, stop) = (Arc::clone(&door), tls.clone(), stopping.clone());
                        match crowd.enter(peer.ip()) {
                            Ok(place) => {
                                sessions.spawn(serve_one(door, tls, tcp, peer, place, stop));
                            }
                            Err(crowded) => {
                                sessions.spawn(turn_away(door, peer, crowded));
                            }
                        }
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

fn bounds(config: &GatewayConfig) -> Bounds {
    Bounds {
        at_once: config.max_half_open as usize,
        at_once_each: config.max_half_open_per_address,
        a_second: A_SECOND,
        at_first: AT_FIRST,
        turns: config.max_handshakes as usize,
        turns_each: (config.max_handshakes / TURNS_EACH).max(1) as usize,
    }
}

async fn turn_away(door: Arc<Door>, peer: SocketAddr, crowded: Crowded) {
    GatewayStats::add(&door.stats.turned_away, 1);
    let (peer, why) = (peer.ip().to_canonical(), crowded.to_string());
    door.registrar.turned_away("connection", "gateway", peer, &why).await;
}

async fn serve_one(
    door: Arc<Door>,
    tls: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    place: Place,
    stop: watch::Receiver<bool>,
) {
    GatewayStats::add(&door.stats.connections, 1);
    match session::run(&door, tls, tcp, peer, place, stop).await {
        SessionEnd::Handshake(why) => {
            GatewayStats::add(&door.stats.handshake_failures, 1);
            let address = peer.ip().to_canonical();
            door.registrar.turned_away("handshake", "gateway", address, &why).await;
        }
        SessionEnd::Refused(why) => {
            GatewayStats::add(&door.stats.handshake_failures, 1);
            tracing::debug!(%peer, why, "connection refused");
        }
        SessionEnd::Protocol { host, error } => {
            GatewayStats::add(&door.stats.protocol_errors, 1);
            tracing::debug!(%peer, host, %error, "session ended: the agent broke the protocol");
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
