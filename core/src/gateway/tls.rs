//! TLS 1.3 with client certificates only, and no way around either.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;

use crate::pki::{PkiError, ServerCertificate, read_certificates};

/// Why the gateway cannot offer TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("cannot set up the check of client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What the gateway listens with; agents are checked against the root of the certificate's folder. Sessions are never resumed, since a resumed session skips the client's
/// certificate, and there is no early data, since it can be replayed.
pub fn acceptor(certificate: &Arc<ServerCertificate>) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in read_certificates(&certificate.pki().root_path())? {
        roots.add(root)?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate.resolver());
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
