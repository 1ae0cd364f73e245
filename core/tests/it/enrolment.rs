//! A host that wants to be an agent: makes keys and requests, and speaks to the enrolment port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use garam_core::enrol::token::FreshToken;
use garam_core::pki::{read_certificates, read_key};
use garam_meta::{Meta, NewToken};
use garam_proto::FrameReader;
use garam_proto::enrol::{Answer, Enrol, Issued, LIMITS, Question, Recover};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::core_under_test::Core;

/// A token as a host holds it.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// What a token is to be; otherwise for one use of host `web-01` within a minute.
pub(crate) async fn token(core: &Core, change: impl FnOnce(&mut NewToken)) -> Token {
    let fresh = FreshToken::mint().unwrap();
    let mut new = NewToken {
        id: fresh.id.clone(),
        secret_hash: fresh.secret_hash(),
        host: "web-01".into(),
        policy: None,
        replaces: None,
        networks: Vec::new(),
        uses: 1,
        expires_us: now_us() + 60_000_000,
    };
    change(&mut new);
    // As the command line does it: beside the running core.
    let meta = Meta::open(&core.plan.meta_path()).await.unwrap();
    meta.create_token(&new).await.unwrap();
    let text = fresh.text(garam_core::pki::key_hash(b""));
    let secret = text.split('.').nth(2).unwrap().to_owned();
    Token { id: fresh.id, secret }
}

pub(crate) fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_micros() as i64
}

pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub(crate) fn question(token: &Token, csr: Vec<u8>) -> Question {
    Question::Enrol(Enrol {
        token: token.id.clone(),
        secret: token.secret.clone(),
        host: "somebody".into(),
        csr,
        build: "test".into(),
    })
}

/// Asks without a certificate.
pub(crate) async fn ask(core: &Core, question: &Question) -> Option<Answer> {
    let roots = roots(&core.plan.pki_dir.join("root.pem"));
    let config = builder().with_root_certificates(roots).with_no_client_auth();
    speak(core.app.enrol_addr().unwrap(), config, &question.encode().unwrap()).await
}

/// Asks with the certificate of a folder.
pub(crate) async fn ask_as(core: &Core, identity: &Path, csr: Vec<u8>) -> Answer {
    let config = builder()
        .with_root_certificates(roots(&identity.join("ca.pem")))
        .with_client_auth_cert(
            read_certificates(&identity.join("cert.pem")).unwrap(),
            read_key(&identity.join("key.pem")).unwrap(),
        )
        .unwrap();
    let question = Question::Recover(Recover { csr, build: "test".into() });
    speak(core.app.enrol_addr().unwrap(), config, &question.encode().unwrap()).await.unwrap()
}

pub(crate) async fn speak(
    to: SocketAddr,
    config: rustls::ClientConfig,
    bytes: &[u8],
) -> Option<Answer> {
    let tcp = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()?;
    let (mut frames, mut buffer) = (FrameReader::new(LIMITS), BytesMut::new());
    let answer = async {
        loop {
            if let Some(frame) = frames.next(&mut buffer).unwrap() {
                return Some(Answer::decode(&frame).unwrap());
            }
            if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                return None;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an answer in time")
}

pub(crate) fn builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
}

fn roots(path: &Path) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in read_certificates(path).unwrap() {
        roots.add(certificate).unwrap();
    }
    roots
}

/// Enrols a host and writes its identity folder.
pub(crate) async fn enrolled(core: &Core, token: &Token, name: &str) -> (PathBuf, Issued) {
    let key = KeyPair::generate().unwrap();
    match ask(core, &question(token, request(&key))).await {
        Some(Answer::Issued(issued)) => (folder(core, name, &issued, &key), issued),
        other => panic!("not enrolled: {other:?}"),
    }
}

pub(crate) fn folder(core: &Core, name: &str, issued: &Issued, key: &KeyPair) -> PathBuf {
    identity(core, name, &issued.root, &issued.chain, key)
}

pub(crate) fn identity(core: &Core, name: &str, root: &str, chain: &str, key: &KeyPair) -> PathBuf {
    let folder = core.folder.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ca.pem"), root).unwrap();
    std::fs::write(folder.join("cert.pem"), chain).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    folder
}
