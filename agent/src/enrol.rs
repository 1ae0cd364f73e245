//! How a host becomes an agent, and how an agent whose certificate has ended comes back: one question on the core's enrolment
//! port, one answer.
//!
//! In: a token, or the ended certificate. Out: the next pair of the identity folder. Promise: the core is known before anything
//! is sent to it: by the hash of its root's key that the token carries, or by the root in the folder; there is no trust on
//! first use. The secret is in no argument, log or error. A lost answer is asked for again with the same key.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use garam_proto::FrameReader;
use garam_proto::enrol::{Answer, Enrol, Issued, LIMITS, Question, Recover, Refused};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::CoreAddress;
use crate::identity::{FolderError, IdentityFolder};
use crate::ship::connection::{ConnectError, now_us, skew_in_words, tls_error};
use crate::tls::{self, Pin};

/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(15);
const BUILD: &str = concat!("garam-agent ", env!("CARGO_PKG_VERSION"));

/// Why a host is no agent.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("cannot read the token from {path}: {source}")]
    TokenFile { path: std::path::PathBuf, source: io::Error },
    #[error(
        "{path} holds no token: it is one line that begins with garam1., from `garam token create`"
    )]
    NotAToken { path: std::path::PathBuf },
    #[error(
        "{path} holds an identity already: name another identity_dir, or give --force to replace it"
    )]
    Identity { path: std::path::PathBuf },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the core refuses: {why}{skew}")]
    Refused { why: String, skew: String, later: bool },
    #[error("the core's answer is not understood: {0}")]
    Answer(String),
}

impl EnrolError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::TokenFile { .. } | Self::NotAToken { .. } => 78,
            Self::Identity { .. } => 6,
            Self::Connect(ConnectError::Unreachable(_) | ConnectError::Late) => 4,
            Self::Refused { later: true, .. } => 4,
            Self::Refused { .. } => 5,
            Self::Folder(_) | Self::Connect(_) | Self::Answer(_) => 1,
        }
    }
}

/// A token as `garam token create` prints it. Not printable: it is a secret.
pub struct Token {
    id: String,
    secret: String,
    pin: Pin,
}

impl Token {
    pub fn read(path: &Path) -> Result<Self, EnrolError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EnrolError::TokenFile { path: path.into(), source })?;
        Self::parse(text.trim()).ok_or_else(|| EnrolError::NotAToken { path: path.into() })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("garam1.")?.split('.');
        let (id, secret, pin) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
        let whole = parts.next().is_none() && is_hex(id) && is_hex(secret);
        whole.then(|| Self { id: id.into(), secret: secret.into(), pin })
    }
}

/// Makes this host an agent. The identity is whole when this returns.
pub async fn enrol(
    core: &CoreAddress,
    token: &Token,
    host: &str,
    folder: &IdentityFolder,
) -> Result<Issued, EnrolError> {
    let question = Question::Enrol(Enrol {
        token: token.id.clone(),
        secret: token.secret.clone(),
        host: host.into(),
        csr: folder.request(true)?,
        build: BUILD.into(),
    });
    let config = tls::pinned_config(token.pin).map_err(ConnectError::from)?;
    let issued = ask(core, config, &question).await?;
    folder.keep_root(&issued.root)?;
    folder.keep(&issued.chain)?;
    // There is no older pair that could be better.
    folder.settle()?;
    Ok(issued)
}

/// Gets a new certificate for an agent whose own has ended, by its key. It is the folder's next pair afterwards.
pub async fn recover(core: &CoreAddress, folder: &IdentityFolder) -> Result<(), EnrolError> {
    let pair = folder.pair()?;
    let config = tls::client_config(folder, &pair).map_err(ConnectError::from)?;
    if pair.is_next {
        // It is the newest that the core has signed: the older one must not be all that is left.
        folder.settle()?;
    }
    let question = Question::Recover(Recover { csr: folder.request(true)?, build: BUILD.into() });
    let issued = ask(core, config, &question).await?;
    folder.keep(&issued.chain)?;
    Ok(())
}

async fn ask(
    core: &CoreAddress,
    config: ClientConfig,
    question: &Question,
) -> Result<Issued, EnrolError> {
    let asked = async {
        let name = ServerName::try_from(core.server_name.clone())
            .map_err(|_| ConnectError::Name(core.server_name.clone()))?;
        let tcp = TcpStream::connect(&core.address).await.map_err(ConnectError::Unreachable)?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, tcp).await.map_err(tls_error)?;
        let bytes = question.encode().map_err(|e| EnrolError::Answer(e.to_string()))?;
        stream.write_all(&bytes).await.map_err(tls_error)?;
        stream.flush().await.map_err(tls_error)?;
        answer(&mut stream).await
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| ConnectError::Late)??;
    match answer {
        Answer::Issued(issued) => Ok(issued),
        Answer::Refused(Refused { why, later, time_us }) => {
            let skew =
                skew_in_words(now_us(), time_us).map_or_else(String::new, |s| format!("; {s}"));
            Err(EnrolError::Refused { why, skew, later })
        }
    }
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> Result<Answer, EnrolError> {
    let mut frames = FrameReader::new(LIMITS);
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    loop {
        let frame = frames.next(&mut buffer).map_err(|e| EnrolError::Answer(e.to_string()))?;
        if let Some(frame) = frame {
            return Answer::decode(&frame).map_err(|e| EnrolError::Answer(e.to_string()));
        }
        if stream.read_buf(&mut buffer).await.map_err(tls_error)? == 0 {
            let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(ConnectError::Unreachable(cut).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_token_is_one() {
        let pin = "ab".repeat(32);
        assert!(Token::parse(&format!("garam1.00ff.{pin}.{pin}")).is_some());
        for wrong in ["", "garam1", "garam2.00.00.00", "garam1.00ff.12"] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
        assert!(Token::parse(&format!("garam1.00ff.{pin}.{pin}.1")).is_none());
        assert!(Token::parse(&format!("garam1.00ff.xyz.{pin}")).is_none());
        assert!(Token::parse(&format!("garam1.00ff.{pin}.{}", &pin[2..])).is_none());
    }
}
