//! The enrolment port: TLS 1.3, one question, one answer, within a deadline and a few kilobytes.
//!
//! The core proves itself with its root in the chain, so that a host that knows only the hash of the root's key can check it. A
//! client certificate is not needed; one that is shown, and may have ended, proves which agent wants to come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use garam_proto::FrameReader;
use garam_proto::enrol::{Answer, LIMITS, Question};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::crowd::Crowd;
use super::registrar::{Registrar, refused};
use crate::gateway::{TlsError, told};
use crate::pki::{ServerCertificate, peer_identity, read_certificates, validity};

/// How long a host may take from its first byte to its answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the enrolment port listens with.
pub fn acceptor(certificate: &Arc<ServerCertificate>) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut store = RootCertStore::empty();
    for root in read_certificates(&certificate.pki().root_path())? {
        store.add(root)?;
    }
    let strict = WebPkiClientVerifier::builder_with_provider(store.into(), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(EvenEnded { strict }))
        .with_cert_resolver(certificate.resolver_with_root());
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop` turns true. `beat` is called at least every second: the listener lives.
pub async fn serve(
    socket: TcpListener,
    tls: TlsAcceptor,
    registrar: Arc<Registrar>,
    mut stop: watch::Receiver<bool>,
    beat: impl Fn() + Send,
) {
    let crowd = Crowd::default();
    let mut visits = tokio::task::JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = told(&mut stop) => break,
            _ = tick.tick() => beat(),
            Some(ended) = visits.join_next(), if !visits.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an enrolment panicked; its host may ask again");
                }
            }
            accepted = socket.accept() => match accepted {
                Ok((tcp, peer)) => {
                    // Whoever comes too often is not even answered.
                    let Some(place) = crowd.enter(peer.ip().to_canonical()) else { continue };
                    let (tls, registrar) = (tls.clone(), Arc::clone(&registrar));
                    visits.spawn(async move {
                        let visit = tokio::time::timeout(DEADLINE, visit(tls, tcp, peer, &registrar));
                        let failed = match visit.await {
                            Ok(Ok(())) => None,
                            Ok(Err(error)) => Some(error),
                            Err(_) => Some("not done in time".into()),
                        };
                        if let Some(error) = failed {
                            tracing::debug!(%peer, error, "no enrolment");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for enrolment");
                    tick.tick().await;
                }
            },
        }
    }
}

async fn visit(
    tls: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    registrar: &Registrar,
) -> Result<(), String> {
    let mut stream = tls.accept(tcp).await.map_err(|error| format!("TLS: {error}"))?;
    let answer = match question(&mut stream).await? {
        Question::Enrol(enrol) => registrar.enrol(&enrol, peer.ip().to_canonical()).await,
        Question::Recover(recover) => {
            let (_, connection) = stream.get_ref();
            let shown = connection.peer_certificates().and_then(<[_]>::first);
            match shown.map(peer_identity) {
                Some(Ok(identity)) => {
                    registrar.recover(&identity, &recover, peer.ip().to_canonical()).await
                }
                Some(Err(error)) => refused(error.to_string(), false),
                None => refused("no certificate was shown".into(), false),
            }
        }
    };
    say(&mut stream, &answer).await.map_err(|error| error.to_string())
}

async fn question(stream: &mut TlsStream<TcpStream>) -> Result<Question, String> {
    let mut frames = FrameReader::new(LIMITS);
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        if let Some(frame) = frames.next(&mut buffer).map_err(|error| error.to_string())? {
            return Question::decode(&frame).map_err(|error| error.to_string());
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return Err("closed before a question".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn say(stream: &mut TlsStream<TcpStream>, answer: &Answer) -> std::io::Result<()> {
    let bytes = answer.encode().map_err(std::io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Verifies an agent's certificate as the gateway does, but for its end: how long ago that was the registrar judges.
#[derive(Debug)]
struct EvenEnded {
    strict: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for EvenEnded {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let last = validity(end_entity).and_then(|validity| {
            let ends = validity.not_after.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(UnixTime::since_unix_epoch(ends.saturating_sub(Duration::from_secs(1))))
        });
        let at = last.map_or(now, |last| now.min(last));
        self.strict.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
