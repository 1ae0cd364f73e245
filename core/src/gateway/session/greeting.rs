//! From a connection to a session: its turn, TLS, hello, leave to enter, welcome.
//!
//! In: an accepted socket with its place on the way in. Out: a running session, or why there is none. Promise: nobody is registered who is
//! not admitted; a revocation that comes in between is seen; a deadline begins when the peer is waited for, not while it waits itself.
//! Not here: what the session then does ([`super`]).

use std::net::SocketAddr;
use std::sync::Arc;

use garam_proto::SessionId;
use garam_proto::message::{self as m, ByeReason};
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Session, SessionEnd};
use crate::enrol::{NotAdmitted, Rights};
use crate::gateway::crowd::{Place, Silent, Turn};
use crate::gateway::sessions::{Newcomer, Registration};
use crate::gateway::slots::Slots;
use crate::gateway::wire::{Deadlines, Incoming, say_bye};
use crate::gateway::{Door, GatewayStats, told, wall_clock_us};
use crate::pki::{PeerIdentity, peer_identity};

pub(in crate::gateway) async fn run(
    door: &Arc<Door>,
    tls: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    place: Place,
    mut stop: watch::Receiver<bool>,
) -> SessionEnd {
    let begun = {
        let on_the_way = async {
            let _turn = turn(door, &tcp, &place).await?;
            let greeted = greet(door, tls, tcp).await?;
            admit(door, greeted, peer).await
        };
        tokio::select! {
            () = told(&mut stop) => Err(SessionEnd::Refused("the core is stopping".into())),
            begun = on_the_way => begun,
        }
    };
    drop(place);
    match begun {
        Ok(Begun { session, incoming, writer, welcome, registration, place }) => {
            let ended = session.serve(incoming, writer, welcome, registration, stop).await;
            drop(place);
            ended
        }
        Err(ended) => ended,
    }
}

/// Whoever has said hello under a certificate of this core's authority.
struct Greeted {
    identity: PeerIdentity,
    incoming: Incoming,
    writer: WriteHalf<TlsStream<TcpStream>>,
    hello: m::Hello,
}

/// Everything a session begins with.
struct Begun {
    session: Session,
    incoming: Incoming,
    writer: WriteHalf<TlsStream<TcpStream>>,
    welcome: m::Welcome,
    registration: Registration,
    place: OwnedSemaphorePermit,
}

/// Waits for the peer's turn. A port that is only probed is nobody's fault.
async fn turn(door: &Door, tcp: &TcpStream, place: &Place) -> Result<Turn, SessionEnd> {
    let turn = place.turn(tcp, door.config.handshake_timeout).await;
    turn.map_err(|silent| match silent {
        Silent::Gone => SessionEnd::Refused("closed before it said anything".into()),
        Silent::Late => SessionEnd::Handshake("nothing was said in time".into()),
    })
}

/// Waits for the peer's handshake and its greeting.
async fn greet(door: &Door, tls: TlsAcceptor, tcp: TcpStream) -> Result<Greeted, SessionEnd> {
    let greeting = async {
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let stream = tls.accept(tcp).await.map_err(|e| format!("TLS: {e}"))?;
        let identity = identify(&stream)?;
        let (reader, writer) = tokio::io::split(stream);
        let mut incoming = Incoming::new(reader, Deadlines::of(&door.config));
        let hello = incoming.hello().await?;
        Ok::<_, String>(Greeted { identity, incoming, writer, hello })
    };
    match timeout(door.config.handshake_timeout, greeting).await {
        Ok(greeted) => greeted.map_err(SessionEnd::Handshake),
        Err(_) => Err(SessionEnd::Handshake("no greeting in time".into())),
    }
}

/// Lets the agent in, or says why not.
async fn admit(door: &Arc<Door>, greeted: Greeted, peer: SocketAddr) -> Result<Begun, SessionEnd> {
    let Greeted { identity, incoming, mut writer, hello } = greeted;
    match enter(door, &identity, &hello, peer).await {
        Ok(Entered { version, rights, place, id, registration }) => {
            let skew_s = (hello.time_us - wall_clock_us()) / 1_000_000;
            tracing::info!(%peer, host = identity.host, agent = %identity.agent, build = hello.build, skew_s, "agent connected");
            let welcome = welcome(door, &identity, &rights, version, id);
            let session = Session {
                door: Arc::clone(door),
                peer: peer.ip().to_canonical(),
                pace: door.registrar.paces.of(identity.agent, &rights),
                rights,
                renews: hello.features & m::FEATURE_RENEW != 0,
                identity,
                session: id,
                share: door.permits.share(),
                slots: Slots::default(),
                claimed_bytes: 0,
                fragment: None,
            };
            Ok(Begun { session, incoming, writer, welcome, registration, place })
        }
        Err(NoEntry { reason, text, ended }) => {
            let patience = door.config.handshake_timeout;
            if timeout(patience, say_bye(&mut writer, reason, &text)).await.is_err() {
                tracing::debug!(%peer, "the agent did not read its goodbye");
            }
            Err(ended)
        }
    }
}

/// What an agent has that was let in.
struct Entered {
    version: u16,
    rights: Rights,
    place: OwnedSemaphorePermit,
    id: SessionId,
    registration: Registration,
}

/// What the agent hears, and what becomes of the connection.
struct NoEntry {
    reason: ByeReason,
    text: String,
    ended: SessionEnd,
}

async fn enter(
    door: &Door,
    identity: &PeerIdentity,
    hello: &m::Hello,
    peer: SocketAddr,
) -> Result<Entered, NoEntry> {
    let refused = |text: &str| SessionEnd::Refused(format!("{}: {text}", identity.host));
    let version = m::negotiate(m::VERSIONS, hello.versions).map_err(|text| {
        let ended = SessionEnd::Handshake(format!("{}: {text}", identity.host));
        NoEntry { reason: ByeReason::Version, text, ended }
    })?;
    let rights = door.registrar.admit(identity, peer.ip().to_canonical()).await;
    let rights = rights.map_err(|no| match no {
        NotAdmitted::Denied(text) => {
            let ended = refused(&text);
            NoEntry { reason: ByeReason::Denied, text, ended }
        }
        NotAdmitted::Later(error) => {
            tracing::warn!(%peer, host = identity.host, error, "an agent is not let in");
            let text = "the core cannot look up agents now".to_owned();
            NoEntry { reason: ByeReason::Unavailable, text, ended: refused(&error) }
        }
    })?;
    let place = Arc::clone(&door.places).try_acquire_owned().map_err(|_| {
        let limit = door.config.max_sessions;
        tracing::warn!(%peer, host = identity.host, limit, "an agent is not let in: all sessions are taken (gateway.max_sessions)");
        let text = format!("all {limit} sessions of this core are taken");
        let ended = refused(&text);
        NoEntry { reason: ByeReason::Unavailable, text, ended }
    })?;
    let id = SessionId(random_u64());
    let registration = register(door, identity, id, hello, peer).await?;
    Ok(Entered { version, rights, place, id, registration })
}

async fn register(
    door: &Door,
    identity: &PeerIdentity,
    session: SessionId,
    hello: &m::Hello,
    peer: SocketAddr,
) -> Result<Registration, NoEntry> {
    let registered = door.sessions.register(Newcomer {
        agent: identity.agent,
        session,
        generation: identity.generation,
        host: identity.host.clone(),
        peer,
        build: hello.build.clone(),
    });
    let denied = async |reason, text: &str| {
        door.registrar.deny("session", identity, peer.ip().to_canonical(), text).await;
        let ended = SessionEnd::Refused(format!("{}: {text}", identity.host));
        NoEntry { reason, text: text.to_owned(), ended }
    };
    let Ok(registration) = registered else {
        let text = "more than 5 takeovers within a minute: two agents use this identity";
        tracing::error!(%peer, host = identity.host, agent = %identity.agent, "{text}; both are refused");
        return Err(denied(ByeReason::TakeoverStorm, text).await);
    };
    if registration.took_over {
        GatewayStats::add(&door.stats.takeovers, 1);
    }
    // Once more, now that a revocation would end this session: it may have come in between.
    if door.registrar.is_revoked(identity.agent, identity.generation) {
        return Err(denied(ByeReason::Denied, "this agent is revoked").await);
    }
    Ok(registration)
}

fn welcome(
    door: &Door,
    identity: &PeerIdentity,
    rights: &Rights,
    version: u16,
    session: SessionId,
) -> m::Welcome {
    m::Welcome {
        version,
        features: m::FEATURE_RENEW,
        build: concat!("garam ", env!("CARGO_PKG_VERSION")).into(),
        cluster: door.cluster,
        agent: identity.agent,
        session,
        time_us: wall_clock_us(),
        window: door.window(),
        max_part: m::MAX_PART as u32,
        max_record: rights.max_record(door.max_record()),
    }
}

fn identify(stream: &TlsStream<TcpStream>) -> Result<PeerIdentity, String> {
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.ok_or("no client certificate")?;
    peer_identity(leaf).map_err(|e| e.to_string())
}

fn random_u64() -> u64 {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    let (first, last) = bytes.split_at(8);
    let half = |part: &[u8]| part.iter().fold(0u64, |n, &byte| (n << 8) | u64::from(byte));
    // A v4 UUID has six fixed bits; folding both halves leaves none of them fixed alone.
    half(first) ^ half(last).rotate_left(17)
}
