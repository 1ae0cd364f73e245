//! From an address to a session: TCP, TLS 1.3 with both certificates, `Hello`, `Welcome`.
//!
//! In: an address and an identity folder. Out: a stream and the core's `Welcome`. Promise: everything until then happens
//! within 10 s; each failure says whose hands are needed. Certificates are read from disk each time; a new pair is tried
//! first, takes the old one's place once the core has welcomed it, and is dropped when the core does not want it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use garam_proto::message::{Bye, ByeReason, FEATURE_RENEW, Hello, MAGIC, VERSIONS, Welcome};
use garam_proto::{FrameLimits, FrameReader, Message};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::CoreAddress;
use crate::identity::{FolderError, IdentityFolder};
use crate::tls::{self, IdentityError};

const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks further apart than this are named.
const SKEW: Duration = Duration::from_secs(30);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot reach the core: {0}; is it running, and does a firewall stand between?")]
    Unreachable(io::Error),
    #[error("TLS failed: {0}; {1}")]
    Tls(io::Error, String),
    #[error("the core finds this agent's certificate expired: {0}")]
    Ended(String),
    #[error("the core does not want this agent's new certificate, going back to the old one: {0}")]
    Next(String),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0:?} is no usable server name; set server_name")]
    Name(String),
    #[error("no answer within {PATIENCE:?}")]
    Late,
    #[error("the core refuses: {} ({:?})", .0.text, .0.reason)]
    Refused(Bye),
    #[error("the peer does not speak this protocol: {0}")]
    Protocol(String),
}

impl ConnectError {
    /// Whether trying again soon cannot help.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(bye) if is_final(bye.reason))
    }
}

/// Whether only a person can end this refusal. A single takeover may be this agent's own earlier greeting that arrived late;
/// two agents with one certificate end in a storm, and the core says so.
pub fn is_final(reason: ByeReason) -> bool {
    matches!(reason, ByeReason::Denied | ByeReason::TakeoverStorm | ByeReason::Version)
}

/// Connects and greets. Also returns the bytes that came behind the `Welcome`.
pub async fn connect(
    core: &CoreAddress,
    identity: &IdentityFolder,
    host: &str,
) -> Result<(TlsStream<TcpStream>, Welcome, BytesMut), ConnectError> {
    let pair = identity.pair()?;
    let attempt = async {
        let config = tls::client_config(identity, &pair)?;
        let name = ServerName::try_from(core.server_name.clone())
            .map_err(|_| ConnectError::Name(core.server_name.clone()))?;
        let tcp = TcpStream::connect(&core.address).await.map_err(ConnectError::Unreachable)?;
        tcp.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, tcp).await.map_err(tls_error)?;
        let (welcome, rest) = greet(&mut stream, host).await?;
        Ok((stream, welcome, rest))
    };
    let attempt = tokio::time::timeout(PATIENCE, attempt).await.map_err(|_| ConnectError::Late)?;
    match &attempt {
        Ok(_) if pair.is_next => {
            identity.settle()?;
            tracing::info!("the new certificate works: the old one is gone");
        }
        Err(ConnectError::Refused(bye)) if pair.is_next && bye.reason == ByeReason::Denied => {
            identity.drop_next()?;
            return Err(ConnectError::Next(bye.text.clone()));
        }
        _ => {}
    }
    attempt
}

async fn greet(
    stream: &mut TlsStream<TcpStream>,
    host: &str,
) -> Result<(Welcome, BytesMut), ConnectError> {
    let hello = Message::from(Hello {
        magic: MAGIC,
        versions: VERSIONS,
        features: FEATURE_RENEW,
        build: concat!("garam-agent ", env!("CARGO_PKG_VERSION")).into(),
        host: host.chars().take(255).collect(),
        time_us: now_us(),
    });
    let hello = hello.encode(0).map_err(|e| ConnectError::Protocol(e.to_string()))?;
    stream.write_all(&hello).await.map_err(tls_error)?;
    stream.flush().await.map_err(tls_error)?;
    let mut buffer = BytesMut::with_capacity(4096);
    let mut frames = FrameReader::new(FrameLimits { max_payload: 0, ..FrameLimits::SESSION });
    loop {
        let frame = frames.next(&mut buffer).map_err(|e| ConnectError::Protocol(e.to_string()))?;
        if let Some(frame) = frame {
            let message =
                Message::decode(&frame).map_err(|e| ConnectError::Protocol(e.to_string()))?;
            return match message {
                Message::Welcome(welcome) => {
                    name_skew(welcome.time_us);
                    Ok((welcome, buffer))
                }
                Message::Bye(bye) => Err(ConnectError::Refused(bye)),
                other => Err(ConnectError::Protocol(format!("{} before Welcome", other.name()))),
            };
        }
        // A core that refuses the certificate says so only now: TLS 1.3 ends on the client's side first.
        if stream.read_buf(&mut buffer).await.map_err(tls_error)? == 0 {
            return Err(ConnectError::Unreachable(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Names the difference between two clocks, when it is more than a network explains.
pub(crate) fn skew_in_words(own_us: i64, core_us: i64) -> Option<String> {
    let difference = Duration::from_micros(own_us.abs_diff(core_us));
    let difference = Duration::from_secs(difference.as_secs());
    let which = if own_us > core_us { "ahead of" } else { "behind" };
    let words = humantime::format_duration(difference);
    (difference > SKEW)
        .then(|| format!("clock skew: this host's clock is {words} {which} the core's"))
}

fn name_skew(core_us: i64) {
    if let Some(skew) = skew_in_words(now_us(), core_us) {
        tracing::warn!(
            skew,
            action = "synchronise the clocks: certificates are refused when they are too far apart",
            "this host's clock differs from the core's"
        );
    }
}

/// Says what to do about a TLS failure, as far as its cause tells.
pub(crate) fn tls_error(error: io::Error) -> ConnectError {
    use rustls::{AlertDescription, CertificateError, Error};
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let at = |time: rustls_pki_types::UnixTime| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
    };
    let advice = match cause {
        Some(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            let ended = at(*not_after);
            let text = format!(
                "by this host's clock it is {now}, and the core's certificate ended at {ended}: if that is wrong, it is \
                 clock skew, set this host's clock; if not, start the core anew, it renews its certificate"
            );
            return ConnectError::Tls(error, text);
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => {
            let begins = at(*not_before);
            let text = format!(
                "by this host's clock it is {now}, and the core's certificate begins at {begins}: clock skew, set the clock \
                 that is wrong"
            );
            return ConnectError::Tls(error, text);
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "the core's certificate carries another name: set server_name to it",
        Some(Error::InvalidCertificate(_)) => {
            "the core's certificate is not from the CA that this host believes (ca.pem, or the token): is this the right core?"
        }
        Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            return ConnectError::Ended(format!(
                "by this host's clock it is {now}; if the certificate should be valid still, it is clock skew: compare both clocks"
            ));
        }
        Some(Error::AlertReceived(_)) => {
            "the core does not accept this agent's certificate: issue it with the core's own CA"
        }
        Some(_) => "is a TLS 1.3 core listening there?",
        None => return ConnectError::Unreachable(error),
    };
    ConnectError::Tls(error, advice.into())
}

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
