//! The agent's identity and the TLS it speaks: version 1.3 only, always with a client certificate.
//!
//! In: `ca.pem`, `cert.pem`, `key.pem` of the identity folder. Out: a rustls client configuration, made anew for every
//! connection, so that a renewed certificate is used without a restart. Promise: only certificates of that one CA are
//! believed; session resumption is off, so every connection proves both identities.
//! Not here: making or renewing certificates (`garam agent issue`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Why the identity cannot be used. Exit code 78 at the start.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "cannot read {path}: {source}; write it with `garam agent issue NAME --out DIR` on the core's machine and copy DIR to identity_dir"
    )]
    Read { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{path} holds no certificate; write it anew with `garam agent issue`")]
    Empty { path: PathBuf },
    #[error("{path} is not usable as a CA certificate: {source}")]
    Root { path: PathBuf, source: rustls::Error },
    #[error(
        "{folder}: certificate and key do not work together: {source}; both must come from one `garam agent issue`"
    )]
    Pair { folder: PathBuf, source: rustls::Error },
    #[error(
        "{path} is not accepted by ca.pem beside it: {source}; issue it anew, and check this host's clock"
    )]
    NotValid { path: PathBuf, source: rustls::Error },
    #[error("this build has no TLS 1.3: {source}")]
    Version { source: rustls::Error },
}

/// Reads the identity and makes a client configuration of it.
pub fn client_config(identity_dir: &Path) -> Result<ClientConfig, IdentityError> {
    let identity = Identity::read(identity_dir)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| IdentityError::Version { source })?
        .with_root_certificates(identity.roots)
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(|source| IdentityError::Pair { folder: identity_dir.into(), source })?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Checks that the files are there, belong together, and that the CA accepts the certificate now.
pub fn check(identity_dir: &Path) -> Result<(), IdentityError> {
    client_config(identity_dir)?;
    let Identity { roots, chain, .. } = Identity::read(identity_dir)?;
    let path = identity_dir.join("cert.pem");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| IdentityError::Root {
            path: identity_dir.join("ca.pem"),
            source: rustls::Error::General(error.to_string()),
        })?;
    let Some((own, intermediates)) = chain.split_first() else {
        return Err(IdentityError::Empty { path });
    };
    verifier
        .verify_client_cert(own, intermediates, UnixTime::now())
        .map(|_| ())
        .map_err(|source| IdentityError::NotValid { path, source })
}

struct Identity {
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn read(folder: &Path) -> Result<Self, IdentityError> {
        let (ca, cert, key) =
            (folder.join("ca.pem"), folder.join("cert.pem"), folder.join("key.pem"));
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca)? {
            roots.add(root).map_err(|source| IdentityError::Root { path: ca.clone(), source })?;
        }
        let chain = certificates(&cert)?;
        let key = PrivateKeyDer::from_pem_file(&key)
            .map_err(|source| IdentityError::Read { path: key, source })?;
        Ok(Self { roots, chain, key })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let read = |source| IdentityError::Read { path: path.into(), source };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    if found.is_empty() {
        return Err(IdentityError::Empty { path: path.into() });
    }
    Ok(found)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
