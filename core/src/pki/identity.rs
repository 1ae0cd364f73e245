//! What a certificate says: who an agent is, which names a server has, and for how long.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_meta::{KeyHash, Proven};
use garam_proto::AgentId;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::admins::ADMIN_URI;

/// What an agent's URI SAN begins with; its UUID follows.
pub(super) const AGENT_URI: &str = "spiffe://garam/agent/";
/// Two more names say which of the agent's keys this is, and what it may do. Without them: generation 0, everything.
pub(super) const GENERATION_URI: &str = "garam:generation:";
pub(super) const POLICY_URI: &str = "garam:policy:";

/// Who a peer is, from its verified certificate alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub agent: AgentId,
    /// The certificate's common name, for people and `_host`.
    pub host: String,
    /// What it may do, as the authority signed it.
    pub policy: Option<String>,
    pub generation: u64,
    /// Of the key the peer has shown to hold.
    pub key_hash: KeyHash,
    /// When the certificate was made.
    pub issued: SystemTime,
    pub not_after: SystemTime,
}

impl PeerIdentity {
    pub fn proven(&self) -> Proven {
        Proven { generation: self.generation, key_hash: self.key_hash }
    }
}

/// Why a verified certificate is not an agent's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAnAgent {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate has no {AGENT_URI}UUID name: it was not issued for an agent")]
    NoIdentity,
    #[error("the certificate names more than one holder")]
    Ambiguous,
}

/// Reads the agent's identity from a certificate that TLS has verified already.
pub fn peer_identity(leaf: &CertificateDer<'_>) -> Result<PeerIdentity, NotAnAgent> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|e| NotAnAgent::Unreadable(e.to_string()))?;
    let uris = uris(&certificate);
    let mut agents =
        uris.iter().filter_map(|uri| uri.strip_prefix(AGENT_URI)?.parse::<AgentId>().ok());
    let agent = agents.next().ok_or(NotAnAgent::NoIdentity)?;
    if agents.next().is_some() || uris.iter().any(|uri| uri.starts_with(ADMIN_URI)) {
        return Err(NotAnAgent::Ambiguous);
    }
    let common_name = certificate.subject().iter_common_name().next();
    let host = common_name.and_then(|name| name.as_str().ok()).unwrap_or("unknown").to_owned();
    let named =
        |prefix: &str| uris.iter().find_map(|uri| uri.strip_prefix(prefix)).map(str::to_owned);
    let validity = certificate.validity();
    Ok(PeerIdentity {
        agent,
        host,
        policy: named(POLICY_URI),
        generation: named(GENERATION_URI).and_then(|text| text.parse().ok()).unwrap_or(0),
        key_hash: super::key_hash(certificate.public_key().raw),
        issued: seconds(validity.not_before.timestamp()) + super::BACKDATE,
        not_after: seconds(validity.not_after.timestamp()),
    })
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

pub fn validity(leaf: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let validity = certificate.validity();
    Some(Validity {
        not_before: seconds(validity.not_before.timestamp()),
        not_after: seconds(validity.not_after.timestamp()),
    })
}

/// The hash of a certificate's public key.
pub(super) fn public_key_hash(certificate: &CertificateDer<'_>) -> Option<KeyHash> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(super::key_hash(certificate.public_key().raw))
}

/// DNS names and addresses of a server certificate, as text.
pub(super) fn server_names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let names = certificate.subject_alternative_name().ok().flatten();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    names.iter().flat_map(|names| &names.value.general_names).filter_map(text).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// The URIs among a certificate's alternative names.
pub(super) fn uris<'a>(certificate: &'a X509Certificate<'a>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let uri = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    names.into_iter().flat_map(|names| &names.value.general_names).filter_map(uri).collect()
}

pub(super) fn seconds(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
