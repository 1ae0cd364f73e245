//! A minimal agent for tests: speaks the real protocol over real TLS, and does exactly what a test tells it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use garam_core::pki::{read_certificates, read_key};
use garam_proto::message::{self as m, ClaimReason, Message};
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Descriptor, FileDescriptor, FrameLimits, FrameReader,
    Generation, LineageId, OriginId, SessionId, SourceName, StreamName, hash,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    frames: FrameReader,
    pub(crate) welcome: m::Welcome,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    pub(crate) async fn connect(to: SocketAddr, identity: &Path) -> Result<Self, String> {
        Self::greet(to, identity, hello(m::VERSIONS)).await
    }

    pub(crate) async fn greet(
        to: SocketAddr,
        identity: &Path,
        hello: m::Hello,
    ) -> Result<Self, String> {
        Self::begin(tls(to, identity).await?, hello).await
    }

    /// The greeting, on a connection that is there.
    pub(crate) async fn begin(
        stream: TlsStream<TcpStream>,
        hello: m::Hello,
    ) -> Result<Self, String> {
        let frames = FrameReader::new(FrameLimits::SESSION);
        let mut client = Self { stream, buffer: BytesMut::new(), frames, welcome: no_welcome() };
        client.send(hello.into(), &[]).await;
        match client.receive().await {
            Some(Message::Welcome(welcome)) => client.welcome = welcome,
            other => return Err(format!("{other:?}")),
        }
        Ok(client)
    }

    pub(crate) async fn send(&mut self, message: Message, payload: &[u8]) {
        let head = message.encode(payload.len() as u32).unwrap();
        // A core that has ended the session is seen by the next receive.
        let _ended = self.stream.write_all(&head).await.is_err()
            || self.stream.write_all(payload).await.is_err();
        let _ended = self.stream.flush().await.is_err();
    }

    /// Whether the core still took it.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// How many offers to resume this session have come.
    pub(crate) fn tickets(&self) -> u32 {
        self.stream.get_ref().1.tls13_tickets_received()
    }

    /// The next message; `None` when the core closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        let next = async {
            loop {
                if let Some(frame) = self.frames.next(&mut self.buffer).unwrap() {
                    return Some(Message::decode(&frame).unwrap());
                }
                if matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the core answers in time")
    }

    /// Claims a generation and returns what was granted: mark.
    pub(crate) async fn claim(
        &mut self,
        slot: u32,
        generation: u8,
        stream: &str,
    ) -> Result<u128, String> {
        self.send(claim(slot, generation, stream).into(), &[]).await;
        match self.receive().await {
            Some(Message::ClaimAck(ack)) => match ack.outcome {
                m::ClaimOutcome::Granted { mark, .. } => Ok(mark),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    pub(crate) async fn push(
        &mut self,
        slot: u32,
        generation: u8,
        answer: u64,
        from: u128,
        lines: &str,
    ) {
        let block = block(self.welcome.agent, generation, from, lines.as_bytes());
        self.send(m::Push { slot, answer, block }.into(), lines.as_bytes()).await;
    }

    /// Waits for an ack of at least this mark.
    pub(crate) async fn acked(&mut self, slot: u32, mark: u128) {
        loop {
            match self.receive().await {
                Some(Message::Ack(ack))
                    if ack.marks.iter().any(|m| m.slot == slot && m.mark >= mark) =>
                {
                    return;
                }
                Some(Message::Ack(_)) => {}
                other => panic!("expected an ack of {mark}, got {other:?}"),
            }
        }
    }
}

pub(crate) async fn tls(to: SocketAddr, identity: &Path) -> Result<TlsStream<TcpStream>, String> {
    tls_as(to, &identity.join("ca.pem"), Some(identity)).await
}

/// A session that trusts a root, with an identity or without any.
pub(crate) async fn tls_as(
    to: SocketAddr,
    root: &Path,
    identity: Option<&Path>,
) -> Result<TlsStream<TcpStream>, String> {
    let tcp = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
    handshake(tcp, client_config_of(root, identity)).await
}

pub(crate) async fn handshake(
    tcp: TcpStream,
    config: Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, tcp).await.map_err(|e| e.to_string())
}

pub(crate) fn client_config(identity: &Path) -> Arc<rustls::ClientConfig> {
    client_config_of(&identity.join("ca.pem"), Some(identity))
}

fn client_config_of(root: &Path, identity: Option<&Path>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in read_certificates(root).unwrap() {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(folder) => config
            .with_client_auth_cert(
                read_certificates(&folder.join("cert.pem")).unwrap(),
                read_key(&folder.join("key.pem")).unwrap(),
            )
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    Arc::new(config)
}

pub(crate) fn hello(versions: (u16, u16)) -> m::Hello {
    m::Hello {
        magic: m::MAGIC,
        versions,
        features: 0,
        build: "test".into(),
        host: "test".into(),
        time_us: 0,
    }
}

pub(crate) fn claim(slot: u32, generation: u8, stream: &str) -> m::Claim {
    m::Claim {
        slot,
        stream: StreamName::new(stream).unwrap(),
        source: SourceName::new("test").unwrap(),
        generation: Generation([generation; 16]),
        descriptor: Descriptor::File(FileDescriptor {
            path: b"/test.log".to_vec(),
            file_system: 1,
            inode: u64::from(generation),
            birth_ns: Some(1),
            head_len: 0,
            head_hash: 0,
        }),
        lineage: LineageId(u64::from(generation)),
        from: 0,
        reason: ClaimReason::New,
        source_epoch: 0,
    }
}

pub(crate) fn block(agent: AgentId, generation: u8, from: u128, lines: &[u8]) -> BlockHeader {
    BlockHeader {
        origin: OriginId { agent, generation: Generation([generation; 16]) },
        session: SessionId(0),
        from,
        to: from + lines.len() as u128,
        records: garam_proto::block::count_lines(lines),
        kind: BlockKind::Lines,
        flags: 0,
        codec: Codec::None,
        raw_len: lines.len() as u32,
        payload_len: lines.len() as u32,
        payload_crc: crc32c::crc32c(lines),
        ingest_time_us: 0,
        tail_hash: hash::tail_hash(lines),
        resume: None,
    }
}

fn no_welcome() -> m::Welcome {
    m::Welcome {
        version: 0,
        features: 0,
        build: String::new(),
        cluster: garam_proto::ClusterId::NIL,
        agent: AgentId::NIL,
        session: SessionId(0),
        time_us: 0,
        window: 0,
        max_part: 0,
        max_record: 0,
    }
}
