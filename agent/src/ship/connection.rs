//! From an address to a session: TCP, TLS 1.3 with both certificates, `Hello`, `Welcome`.
//!
//! In: an address and an identity folder. Out: a stream and the core's `Welcome`. Promise: everything until then happens
//! within 10 s; each failure says whose hands are needed. Certificates are read from disk each time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use garam_proto::message::{Bye, ByeReason, Hello, MAGIC, VERSIONS, Welcome};
use garam_proto::{FrameLimits, FrameReader, Message};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::CoreAddress;
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
    Tls(io::Error, &'static str),
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
    identity_dir: &Path,
    host: &str,
) -> Result<(TlsStream<TcpStream>, Welcome, BytesMut), ConnectError> {
    let attempt = async {
        let config = tls::client_config(identity_dir)?;
        let name = ServerName::try_from(core.server_name.clone())
            .map_err(|_| ConnectError::Name(core.server_name.clone()))?;
        let tcp = TcpStream::connect(&core.address).await.map_err(ConnectError::Unreachable)?;
        tcp.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, tcp).await.map_err(tls_error)?;
        let (welcome, rest) = greet(&mut stream, host).await?;
        Ok((stream, welcome, rest))
    };
    tokio::time::timeout(PATIENCE, attempt).await.map_err(|_| ConnectError::Late)?
}

async fn greet(
    stream: &mut TlsStream<TcpStream>,
    host: &str,
) -> Result<(Welcome, BytesMut), ConnectError> {
    let hello = Message::from(Hello {
        magic: MAGIC,
        versions: VERSIONS,
        features: 0,
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

fn name_skew(core_us: i64) {
    let difference = Duration::from_micros(now_us().abs_diff(core_us));
    if difference > SKEW {
        tracing::warn!(
            seconds = difference.as_secs(),
            action = "synchronise the clocks: certificates are refused when they are too far apart",
            "this host's clock differs from the core's"
        );
    }
}

/// Says what to do about a TLS failure, as far as its cause tells.
fn tls_error(error: io::Error) -> ConnectError {
    use rustls::{AlertDescription, CertificateError, Error};
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let advice = match cause {
        Some(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => {
            "the core's certificate is not valid at this host's time: check both clocks, then renew it"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "the core's certificate carries another name: set server_name to it",
        Some(Error::InvalidCertificate(_)) => {
            "the core's certificate is not from the CA in ca.pem: is this the right core?"
        }
        Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "the core finds this agent's certificate expired: check both clocks, then issue it anew"
        }
        Some(Error::AlertReceived(_)) => {
            "the core does not accept this agent's certificate: issue it with the core's own CA"
        }
        Some(_) => "is a TLS 1.3 core listening there?",
        None => return ConnectError::Unreachable(error),
    };
    ConnectError::Tls(error, advice)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
