//! Certificates: the core's own authority, the server's certificate and those of agents.
//!
//! In: names, and public keys of others. Out: files in the `pki` folder (`root.pem`, `issuing.pem`, `server.pem` and their keys, mode 0600) and
//! identity folders for agents (`ca.pem`, `cert.pem`, `key.pem`). Promise: an existing file is never overwritten except
//! the server's own certificate (`server`); a folder is there whole or not at all; every file is synced before it counts;
//! an agent's identity is the UUID in its certificate's URI SAN and nothing else; of a request for a certificate only the
//! public key is used, once the request has proven that its sender holds the private one.
//! Not here: who gets a certificate (`enrol`), the TLS sessions (`gateway`).
//!
//! ```text
//! root (10 y, P-256) ─► issuing (5 y) ─┬► server  (1 y, renewed by the core itself; DNS and IP SANs)
//!                                      └► agent   (SAN spiffe://garam/agent/UUID, clientAuth, CN = host for people)
//! ```

mod csr;
mod identity;
mod server;
mod store;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use garam_meta::{Grant, KeyHash};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
};

pub use csr::{CsrError, RequestedKey};
pub use identity::{PeerIdentity, Validity, peer_identity, validity};
pub use server::{LOOK, ServerCertificate};
pub use store::{read_certificates, read_key};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Certificates begin a little in the past, so that clocks may differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{} exists already and is never overwritten: choose another folder", .0.display())]
    Exists(PathBuf),
    #[error("no certificate authority in {}: run `garam ca init` first", .0.display())]
    Missing(PathBuf),
    #[error("cannot {action} {}: {error}", .path.display())]
    Io { action: &'static str, path: PathBuf, error: std::io::Error },
    #[error("cannot make a certificate for {what}: {error}")]
    Make { what: String, error: rcgen::Error },
    #[error("{} is not a usable certificate or key: {why}", .path.display())]
    Unusable { path: PathBuf, why: String },
    #[error("{0:?} is not a host name: letters, digits, '.', '-', '_', at most 128")]
    HostName(String),
}

/// The `pki` folder.
#[derive(Debug, Clone)]
pub struct Pki {
    dir: PathBuf,
}

/// The issuing authority, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's certificate, PEM.
    chain: String,
    /// The root, PEM.
    root: String,
}

/// An agent's certificate.
#[derive(Debug, Clone)]
pub struct AgentCertificate {
    /// With its issuer, PEM.
    pub chain: String,
    /// Hexadecimal.
    pub serial: String,
    pub not_after: SystemTime,
}

/// A key that the core makes on behalf of a host, for `agent issue`.
pub struct AgentKey {
    pair: KeyPair,
}

impl AgentKey {
    pub fn generate() -> Result<Self, PkiError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let make = |error| PkiError::Make { what: "an agent's key".into(), error };
        Ok(Self { pair: pair.map_err(make)? })
    }

    pub fn hash(&self) -> KeyHash {
        key_hash(&self.pair.subject_public_key_info())
    }
}

impl Authority {
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Signs what is granted, and nothing that somebody else wrote.
    pub fn sign(
        &self,
        grant: &Grant,
        key: &RequestedKey,
        life: Duration,
    ) -> Result<AgentCertificate, PkiError> {
        self.certify(grant, key.public(), life)
    }

    pub fn sign_own(
        &self,
        grant: &Grant,
        key: &AgentKey,
        life: Duration,
    ) -> Result<AgentCertificate, PkiError> {
        self.certify(grant, &key.pair, life)
    }

    /// Writes an identity folder: `ca.pem`, `cert.pem`, `key.pem`.
    pub fn write_identity(
        &self,
        folder: &Path,
        certificate: &AgentCertificate,
        key: &AgentKey,
    ) -> Result<(), PkiError> {
        let files = [
            ("ca.pem", self.root.clone(), 0o644),
            ("cert.pem", certificate.chain.clone(), 0o644),
            ("key.pem", key.pair.serialize_pem(), 0o600),
        ];
        store::make_whole(folder, &files)
    }

    fn certify(
        &self,
        grant: &Grant,
        key: &impl rcgen::PublicKeyData,
        life: Duration,
    ) -> Result<AgentCertificate, PkiError> {
        let make = |error| PkiError::Make { what: format!("agent {}", grant.host), error };
        let mut params = leaf(&grant.host, life);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let agent = format!("{}{}", identity::AGENT_URI, grant.agent);
        let generation = format!("{}{}", identity::GENERATION_URI, grant.generation);
        let policy = grant.policy.as_ref().map(|name| format!("{}{name}", identity::POLICY_URI));
        params.subject_alt_names = [Some(agent), Some(generation), policy]
            .into_iter()
            .flatten()
            .map(|uri| Ok(SanType::URI(uri.try_into().map_err(make)?)))
            .collect::<Result<_, PkiError>>()?;
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let made = params.signed_by(key, &self.issuer).map_err(make)?;
        Ok(AgentCertificate {
            chain: format!("{}{}", made.pem(), self.chain),
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            not_after: SystemTime::now() + life,
        })
    }
}

/// Refuses what is no name of a host: it becomes a column of every row and a name in certificates.
pub fn check_host(host: &str) -> Result<(), PkiError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host.is_empty() || host.len() > 128 || !host.bytes().all(allowed) {
        return Err(PkiError::HostName(host.into()));
    }
    Ok(())
}

/// The hash of a public key (SubjectPublicKeyInfo, DER).
pub fn key_hash(public_key: &[u8]) -> KeyHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, public_key);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    KeyHash(hash)
}

impl Pki {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn root_path(&self) -> PathBuf {
        self.dir.join("root.pem")
    }

    /// Whether `ca init` has been done here.
    pub fn is_initialised(&self) -> Result<bool, PkiError> {
        let path = self.dir.join("issuing.key");
        path.try_exists().map_err(|error| PkiError::Io { action: "look for", path, error })
    }

    /// Makes root and issuing authority.
    pub fn init(&self, label: &str) -> Result<(), PkiError> {
        if self.is_initialised()? {
            return Err(PkiError::Exists(self.dir.clone()));
        }
        let make = |error| PkiError::Make { what: "the authority".into(), error };
        let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let root =
            authority(&format!("Garam root {label}"), BasicConstraints::Constrained(1), DAY * 3650);
        let root_certificate = root.self_signed(&root_key).map_err(make)?;
        let root_issuer = Issuer::new(root, &root_key);
        let issuing_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let issuing = authority(
            &format!("Garam issuing {label}"),
            BasicConstraints::Constrained(0),
            DAY * 1825,
        );
        let issuing_certificate = issuing.signed_by(&issuing_key, &root_issuer).map_err(make)?;
        let files = [
            ("root.key", root_key.serialize_pem(), 0o600),
            ("root.pem", root_certificate.pem(), 0o644),
            ("issuing.pem", issuing_certificate.pem(), 0o644),
            ("issuing.key", issuing_key.serialize_pem(), 0o600),
        ];
        store::make_whole(&self.dir, &files)
    }

    /// What signs agents' certificates.
    pub fn authority(&self) -> Result<Authority, PkiError> {
        let (issuer, chain) = self.issuer()?;
        let root = store::read_text(&self.root_path())?;
        Ok(Authority { issuer, chain, root })
    }

    /// The hash that tokens pin: of the root's public key.
    pub fn root_pin(&self) -> Result<KeyHash, PkiError> {
        let path = self.root_path();
        let certificates = read_certificates(&path)?;
        let root = certificates.first().and_then(|root| identity::public_key_hash(root));
        root.ok_or_else(|| PkiError::Unusable { path, why: "it is no certificate".into() })
    }

    /// The issuing authority and its certificate in PEM, which leaves carry as their chain.
    fn issuer(&self) -> Result<(Issuer<'static, KeyPair>, String), PkiError> {
        if !self.is_initialised()? {
            return Err(PkiError::Missing(self.dir.clone()));
        }
        let (certificate, key) = (self.dir.join("issuing.pem"), self.dir.join("issuing.key"));
        let chain = store::read_text(&certificate)?;
        let unusable = |path: &Path, error: rcgen::Error| PkiError::Unusable {
            path: path.into(),
            why: error.to_string(),
        };
        let pair = KeyPair::from_pem(&store::read_text(&key)?).map_err(|e| unusable(&key, e))?;
        let issuer =
            Issuer::from_ca_cert_pem(&chain, pair).map_err(|e| unusable(&certificate, e))?;
        Ok((issuer, chain))
    }
}

/// The names a core is reached by when the configuration says nothing.
pub fn default_names() -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    if !host.is_empty() && !names.contains(&host) {
        names.push(host);
    }
    names
}

fn authority(name: &str, constraint: BasicConstraints, life: Duration) -> CertificateParams {
    let mut params = leaf(name, life);
    params.is_ca = IsCa::Ca(constraint);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn leaf(common_name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common_name.into()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes()));
    params.use_authority_key_identifier_extension = true;
    params
}

fn server_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let dns = name.to_owned().try_into();
    dns.map(SanType::DnsName)
        .map_err(|error| PkiError::Make { what: format!("server name {name:?}"), error })
}
