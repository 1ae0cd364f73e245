//! Certificates of people who reach the core from another machine: who they are and what they may do.
//!
//! ```text
//! issuing ─► person  (SAN spiffe://garam/admin/ROLE/UUID, clientAuth, CN = name for people)
//! ```
//!
//! Promise: an agent's certificate names no person and a person's no agent, and one that names both is neither: neither opens
//! the other's port.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use garam_proto::AgentId;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{AGENT_URI, seconds, uris};
use super::{AgentKey, Authority, PkiError, check_host, leaf};

/// What the URI SAN of a person begins with; the role and a UUID follow.
pub(super) const ADMIN_URI: &str = "spiffe://garam/admin/";

/// What a person may do over the admin port. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees how the core is: status, lag, tree.
    Viewer,
    /// Sees records, and starts what is parked.
    Operator,
    /// Everything: also who did what.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A person, from a verified certificate alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminIdentity {
    /// Of this certificate: what is revoked.
    pub id: AgentId,
    /// The common name, for people and the audit log.
    pub name: String,
    pub role: Role,
    pub not_after: SystemTime,
}

/// Why a verified certificate opens no admin port.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAnAdmin {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "the certificate has no {ADMIN_URI}ROLE/UUID name: it was not issued by `garam admin issue`"
    )]
    NoIdentity,
    #[error("the certificate names more than one holder")]
    Ambiguous,
}

/// Reads a person's identity from a certificate that TLS has verified already.
pub fn admin_identity(leaf: &CertificateDer<'_>) -> Result<AdminIdentity, NotAnAdmin> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|e| NotAnAdmin::Unreadable(e.to_string()))?;
    let uris = uris(&certificate);
    let mut persons = uris.iter().filter_map(|uri| uri.strip_prefix(ADMIN_URI));
    let person = persons.next().ok_or(NotAnAdmin::NoIdentity)?;
    if persons.next().is_some() || uris.iter().any(|uri| uri.starts_with(AGENT_URI)) {
        return Err(NotAnAdmin::Ambiguous);
    }
    let (role, id) = person.split_once('/').ok_or(NotAnAdmin::NoIdentity)?;
    let role = Role::ALL.into_iter().find(|known| known.name() == role);
    let common_name = certificate.subject().iter_common_name().next();
    Ok(AdminIdentity {
        id: id.parse().map_err(|_| NotAnAdmin::NoIdentity)?,
        name: common_name.and_then(|name| name.as_str().ok()).unwrap_or("unknown").to_owned(),
        role: role.ok_or(NotAnAdmin::NoIdentity)?,
        not_after: seconds(certificate.validity().not_after.timestamp()),
    })
}

impl Authority {
    /// Makes key and certificate of a person, and writes them into a new folder: `ca.pem`, `cert.pem`, `key.pem`.
    pub fn issue_admin(
        &self,
        name: &str,
        role: Role,
        life: Duration,
        folder: &Path,
    ) -> Result<AdminIdentity, PkiError> {
        check_host(name)?;
        let make = |error| PkiError::Make { what: format!("{role} {name}"), error };
        let id = AgentId(*uuid::Uuid::new_v4().as_bytes());
        let mut params = leaf(name, life);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("{ADMIN_URI}{role}/{id}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(make)?)];
        let key = AgentKey::generate()?;
        let certificate = self.seal(params, &key.pair, life).map_err(make)?;
        self.write_identity(folder, &certificate, &key)?;
        let not_after = certificate.not_after;
        Ok(AdminIdentity { id, name: name.to_owned(), role, not_after })
    }
}
