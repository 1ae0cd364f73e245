//! The agent's identity and the TLS it speaks: version 1.3 only, always with a client certificate.
//!
//! In: a root and a pair of the identity folder. Out: a rustls client configuration, made anew for every connection, so that
//! a renewed certificate is used without a restart. Promise: only certificates of that one CA are believed, or, before there
//! is a folder, of the CA whose key a token pins; session resumption is off, so every connection proves both identities.
//! Not here: the folder's files ([`crate::identity`]), asking for certificates ([`crate::enrol`]).

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::identity::{FolderError, IdentityFolder, Pair};

/// Why the identity cannot be used. Exit code 78 at the start.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "cannot read {path}: {source}; get an identity with `garam-agent enrol` and a token, or copy one that `garam agent issue NAME --out DIR` made on the core's machine to identity_dir"
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
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Reads a pair and makes a client configuration of it.
pub fn client_config(folder: &IdentityFolder, pair: &Pair) -> Result<ClientConfig, IdentityError> {
    let identity = Identity::read(folder, pair)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| IdentityError::Version { source })?
        .with_root_certificates(identity.roots)
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(|source| IdentityError::Pair { folder: folder.path().into(), source })?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A configuration for a host that has no identity yet: it believes the core whose root has the pinned key, and nobody else.
pub fn pinned_config(pin: Pin) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| IdentityError::Version { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider: provider() }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Checks that the files are there, belong together, and that the CA accepts the certificate now.
pub fn check(identity_dir: &Path) -> Result<(), IdentityError> {
    let folder = IdentityFolder::at(identity_dir);
    let pair = folder.pair()?;
    client_config(&folder, &pair)?;
    let Identity { roots, chain, .. } = Identity::read(&folder, &pair)?;
    let path = pair.certificate;
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
    fn read(folder: &IdentityFolder, pair: &Pair) -> Result<Self, IdentityError> {
        let ca = folder.root();
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca)? {
            roots.add(root).map_err(|source| IdentityError::Root { path: ca.clone(), source })?;
        }
        let chain = certificates(&pair.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&pair.key)
            .map_err(|source| IdentityError::Read { path: pair.key.clone(), source })?;
        Ok(Self { roots, chain, key })
    }
}

/// SHA-256 of a root's public key (SubjectPublicKeyInfo, DER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Debug)]
pub struct NotAPin;

impl FromStr for Pin {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let mut pin = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAPin);
        }
        for (byte, digits) in pin.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| NotAPin)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAPin)?;
        }
        Ok(Self(pin))
    }
}

/// Believes a chain that ends in the pinned root, which the core sends along.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// The root of the chain, if it is the pinned one.
    fn root(&self, chain: &[CertificateDer<'_>]) -> Option<RootCertStore> {
        chain.iter().find_map(|certificate| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone().into_owned()).ok()?;
            let key = sequence(&roots.roots.first()?.subject_public_key_info);
            let hash = ring::digest::digest(&ring::digest::SHA256, &key);
            (hash.as_ref() == self.pin.0).then_some(roots)
        })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let roots = self.root(intermediates).ok_or(unknown)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider));
        let verifier =
            verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A DER sequence around its contents: the library keeps a root's key without its outermost tag and length.
fn sequence(contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|&byte| byte == 0).collect();
    let mut der = vec![0x30];
    match contents.len() {
        short @ 0..128 => der.push(short as u8),
        _ => {
            der.push(0x80 | length.len() as u8);
            der.extend(length);
        }
    }
    der.extend(contents);
    der
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
