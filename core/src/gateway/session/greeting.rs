//! From a connection to a session: TLS, hello, leave to enter, welcome.
//!
//! In: an accepted socket. Out: a running session, or why there is none. Promise: nobody is registered who is not admitted; a revocation that comes
//! in between is seen. Not here: what the session then does ([`super`]).

use std::net::SocketAddr;
use std::sync::Arc;

use garam_proto::SessionId;
use garam_proto::message::{self as m, ByeReason};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Session, SessionEnd};
use crate::enrol::NotAdmitted;
use crate::gateway::sessions::Newcomer;
use crate::gateway::slots::Slots;
use crate::gateway::wire::{Incoming, say_bye};
use crate::gateway::{Door, GatewayStats, wall_clock_us};
use crate::pki::{PeerIdentity, peer_identity};

pub(in crate::gateway) async fn run(
    door: &Arc<Door>,
    tls: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) -> SessionEnd {
    let greeting = async {
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let stream = tls.accept(tcp).await.map_err(|e| format!("TLS: {e}"))?;
        let identity = identify(&stream)?;
        let (reader, writer) = tokio::io::split(stream);
        let mut incoming = Incoming::new(reader);
        let hello = incoming.hello().await?;
        Ok::<_, String>((identity, incoming, writer, hello))
    };
    let (identity, incoming, mut writer, hello) =
        match timeout(door.config.handshake_timeout, greeting).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return SessionEnd::Handshake(error),
            Err(_) => return SessionEnd::Handshake("no greeting in time".into()),
        };
    let version = match m::negotiate(m::VERSIONS, hello.versions) {
        Ok(version) => version,
        Err(text) => {
            say_bye(&mut writer, ByeReason::Version, &text).await;
            return SessionEnd::Handshake(format!("{}: {text}", identity.host));
        }
    };
    let rights = match door.registrar.admit(&identity, peer.ip().to_canonical()).await {
        Ok(rights) => rights,
        Err(NotAdmitted::Denied(text)) => {
            say_bye(&mut writer, ByeReason::Denied, &text).await;
            return SessionEnd::Handshake(format!("{}: {text}", identity.host));
        }
        Err(NotAdmitted::Later(text)) => {
            say_bye(&mut writer, ByeReason::Unavailable, "the core cannot look up agents now")
                .await;
            return SessionEnd::Handshake(format!("{}: {text}", identity.host));
        }
    };
    let session = SessionId(random_u64());
    let registered = door.sessions.register(Newcomer {
        agent: identity.agent,
        session,
        generation: identity.generation,
        host: identity.host.clone(),
        peer,
        build: hello.build.clone(),
    });
    let Ok(registration) = registered else {
        let text = "more than 5 takeovers within a minute: two agents use this identity";
        say_bye(&mut writer, ByeReason::TakeoverStorm, text).await;
        tracing::error!(%peer, host = identity.host, agent = %identity.agent, "{text}; both are refused");
        return SessionEnd::Handshake(text.into());
    };
    if registration.took_over {
        GatewayStats::add(&door.stats.takeovers, 1);
    }
    // Once more, now that a revocation would end this session: it may have come in between.
    if door.registrar.is_revoked(identity.agent, identity.generation) {
        say_bye(&mut writer, ByeReason::Denied, "this agent is revoked").await;
        return SessionEnd::Handshake(format!("{}: this agent is revoked", identity.host));
    }
    let skew_s = (hello.time_us - wall_clock_us()) / 1_000_000;
    tracing::info!(%peer, host = identity.host, agent = %identity.agent, build = hello.build, skew_s, "agent connected");
    let welcome = m::Welcome {
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
    };
    let session = Session {
        door: Arc::clone(door),
        peer: peer.ip().to_canonical(),
        pace: rights.pace(),
        rights,
        renews: hello.features & m::FEATURE_RENEW != 0,
        identity,
        session,
        slots: Slots::default(),
        fragment: None,
    };
    session.serve(incoming, writer, welcome, registration, stop).await
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
