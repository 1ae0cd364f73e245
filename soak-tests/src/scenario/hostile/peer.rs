//! A bad peer's hands: connections from an address of its own, TLS with any certificate, and frames of the real protocol.
//!
//! In: where to, from where, with which identity. Out: a session, or that there is none. Promise: it sends exactly what an attack says,
//! however wrong; nothing it waits for is waited for long. It speaks the product's wire format and shares nothing with the oracle.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::BytesMut;
use garam_proto::message::{self as m, ClaimReason, Message};
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Descriptor, FileDescriptor, FrameLimits, FrameReader,
    Generation, LineageId, OriginId, SessionId, SourceName, StreamName,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long an answer is waited for: longer than any deadline of the run's core.
const PATIENCE: Duration = Duration::from_secs(12);

/// An identity folder, whoever made it.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) root: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Identity {
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            root: folder.join("ca.pem"),
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }

    pub(super) fn config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let builder = builder()?.with_root_certificates(roots(&self.root)?);
        Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
    }
}

/// Without a certificate of its own.
pub(super) fn anonymous(root: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    Ok(Arc::new(builder()?.with_root_certificates(roots(root)?).with_no_client_auth()))
}

fn builder() -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder.with_protocol_versions(&[&rustls::version::TLS13])?)
}

fn roots(root: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(root)? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// A TCP connection from an address of this host's own network.
pub(super) async fn tcp(from: IpAddr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    timeout(PATIENCE, socket.connect(to)).await?.context("cannot connect")
}

/// A TLS connection; the core may still refuse it afterwards.
pub(super) async fn tls(
    from: IpAddr,
    to: SocketAddr,
    config: Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let tcp = tcp(from, to).await?;
    let name = ServerName::try_from("localhost")?;
    Ok(timeout(PATIENCE, TlsConnector::from(config).connect(name, tcp)).await??)
}

/// Whether the core closes a connection without a word that is none of TLS's.
pub(super) async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, stream.take(64 * 1024).read_to_end(&mut answer)).await;
    end.is_ok() && !answer.starts_with(b"HTTP")
}

/// A session.
pub(super) struct Peer {
    pub(super) stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    frames: FrameReader,
    pub(super) agent: AgentId,
}

/// What the core said instead of welcoming.
#[derive(Debug)]
pub(super) struct NotWelcome;

impl Peer {
    /// Greets; an error of the run only when nothing could be asked at all.
    pub(super) async fn connect(
        from: IpAddr,
        to: SocketAddr,
        config: Arc<ClientConfig>,
    ) -> anyhow::Result<Result<Self, NotWelcome>> {
        let stream = match tls(from, to, config).await {
            Ok(stream) => stream,
            Err(error) if error.is::<std::io::Error>() => return Ok(Err(NotWelcome)),
            Err(error) => return Err(error),
        };
        let frames = FrameReader::new(FrameLimits::SESSION);
        let mut peer = Self { stream, buffer: BytesMut::new(), frames, agent: AgentId::NIL };
        peer.send(hello().into(), &[]).await;
        match peer.receive().await {
            Some(Message::Welcome(welcome)) => {
                peer.agent = welcome.agent;
                Ok(Ok(peer))
            }
            _ => Ok(Err(NotWelcome)),
        }
    }

    /// A core that has ended the session is seen by the next receive.
    pub(super) async fn send(&mut self, message: Message, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if let Ok(head) = message.encode(length) {
            self.say(&head).await;
            self.say(payload).await;
        }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) -> bool {
        let said = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        matches!(timeout(PATIENCE, said).await, Ok(Ok(())))
    }

    /// The next message; none when the connection was closed, or nothing came in time.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        let next = async {
            loop {
                match self.frames.next(&mut self.buffer) {
                    Ok(Some(frame)) => return Message::decode(&frame).ok(),
                    Ok(None) => {}
                    Err(_) => return None,
                }
                if matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) {
                    return None;
                }
            }
        };
        timeout(PATIENCE, next).await.ok().flatten()
    }

    /// Whether the core ends the session, within its deadlines.
    pub(super) async fn is_ended(&mut self) -> bool {
        let end = async { while !matches!(self.receive().await, None | Some(Message::Bye(_))) {} };
        timeout(PATIENCE, end).await.is_ok()
    }

    /// Claims the generation that is made of this number. True when the core grants it.
    pub(super) async fn claim(&mut self, slot: u32, stream: &str) -> anyhow::Result<bool> {
        self.send(claim(slot, stream)?.into(), &[]).await;
        let granted = |ack: &m::ClaimAck| matches!(ack.outcome, m::ClaimOutcome::Granted { .. });
        Ok(matches!(self.receive().await, Some(Message::ClaimAck(ack)) if granted(&ack)))
    }

    /// Pushes a block and waits until it is acknowledged.
    pub(super) async fn push(&mut self, slot: u32, block: BlockHeader, payload: &[u8]) -> bool {
        let mark = block.to;
        self.send(m::Push { slot, answer: 1, block }.into(), payload).await;
        matches!(self.receive().await, Some(Message::Ack(ack)) if ack.marks.iter().any(|m| m.mark >= mark))
    }
}

pub(super) fn hello() -> m::Hello {
    m::Hello {
        magic: m::MAGIC,
        versions: m::VERSIONS,
        features: 0,
        build: "hostile".into(),
        host: "soak-host".into(),
        time_us: 0,
    }
}

fn claim(slot: u32, stream: &str) -> anyhow::Result<m::Claim> {
    Ok(m::Claim {
        slot,
        stream: StreamName::new(stream)?,
        source: SourceName::new("hostile")?,
        generation: generation(slot),
        descriptor: Descriptor::File(FileDescriptor {
            path: b"/hostile.log".to_vec(),
            file_system: 1,
            inode: u64::from(slot),
            birth_ns: Some(1),
            head_len: 0,
            head_hash: 0,
        }),
        lineage: LineageId(u64::from(slot)),
        from: 0,
        reason: ClaimReason::New,
        source_epoch: 0,
    })
}

fn generation(slot: u32) -> Generation {
    Generation(u128::from(slot).to_be_bytes())
}

/// A block of lines whose payload holds what it says.
pub(super) fn block(
    agent: AgentId,
    slot: u32,
    payload: &[u8],
    codec: Codec,
    raw: u32,
) -> BlockHeader {
    BlockHeader {
        origin: OriginId { agent, generation: generation(slot) },
        session: SessionId(0),
        from: 0,
        to: u128::from(raw),
        records: 1,
        kind: BlockKind::Lines,
        flags: 0,
        codec,
        raw_len: raw,
        payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        payload_crc: crc32c::crc32c(payload),
        ingest_time_us: 0,
        tail_hash: 0,
        resume: None,
    }
}
