//! What a certificate says: who an agent is, which names a server has, and for how long.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_proto::AgentId;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What an agent's URI SAN begins with; its UUID follows.
pub(super) const AGENT_URI: &str = "spiffe://garam/agent/";

/// Who a peer is, from its verified certificate alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub agent: AgentId,
    /// The certificate's common name, for people and `_host`.
    pub host: String,
    pub not_after: SystemTime,
}

/// Why a verified certificate is not an agent's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAnAgent {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate has no {AGENT_URI}UUID name: it was not issued for an agent")]
    NoIdentity,
    #[error("the certificate names more than one agent")]
    Ambiguous,
}

/// Reads the agent's identity from a certificate that TLS has verified already.
pub fn peer_identity(leaf: &CertificateDer<'_>) -> Result<PeerIdentity, NotAnAgent> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|e| NotAnAgent::Unreadable(e.to_string()))?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut agents =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI)?.parse::<AgentId>().ok(),
            _ => None,
        });
    let agent = agents.next().ok_or(NotAnAgent::NoIdentity)?;
    if agents.next().is_some() {
        return Err(NotAnAgent::Ambiguous);
    }
    let common_name = certificate.subject().iter_common_name().next();
    let host = common_name.and_then(|name| name.as_str().ok()).unwrap_or("unknown").to_owned();
    let not_after = seconds(certificate.validity().not_after.timestamp());
    Ok(PeerIdentity { agent, host, not_after })
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

fn seconds(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
