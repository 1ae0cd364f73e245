//! Who asks: proven by the door through which the question came, never by the question.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use crate::pki::{AdminIdentity, Role, admin_identity};

/// Whoever asks.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Some program on this machine, over HTTP: it has no name and learns no more than health and metrics.
    Anybody,
    /// The core's own user or root, over the socket: whoever may write the data folder may do everything here too.
    Local { uid: u32, pid: Option<i32> },
    /// A person with a certificate.
    Person { identity: AdminIdentity, peer: IpAddr },
    /// Reached a door and has no right behind it.
    Stranger { who: String, why: String },
}

impl Caller {
    /// Of the socket, by what the kernel says about the other end.
    pub(super) fn local(credentials: &tokio::net::unix::UCred) -> Self {
        let (uid, pid) = (credentials.uid(), credentials.pid());
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Self::Local { uid, pid };
        }
        let why = "only root and the core's own user may use its socket".to_owned();
        Self::Stranger { who: format!("uid {uid}"), why }
    }

    /// Of another machine, by a certificate whose key TLS has seen proven.
    pub(super) fn remote(leaf: Option<&CertificateDer<'_>>, peer: SocketAddr) -> Self {
        let peer = peer.ip().to_canonical();
        let why = match leaf.map(admin_identity) {
            Some(Ok(identity)) => return Self::Person { identity, peer },
            Some(Err(error)) => error.to_string(),
            None => "no certificate was shown".to_owned(),
        };
        Self::Stranger { who: peer.to_string(), why }
    }

    /// What it may do now; `Err` says why nothing.
    pub(super) fn role(&self) -> Result<Option<Role>, String> {
        match self {
            Self::Anybody => Ok(None),
            Self::Local { .. } => Ok(Some(Role::Admin)),
            Self::Person { identity, .. } if identity.not_after <= SystemTime::now() => {
                Err("the certificate has ended: issue another one".into())
            }
            Self::Person { identity, .. } => Ok(Some(identity.role)),
            Self::Stranger { why, .. } => Err(why.clone()),
        }
    }
}

/// As the audit log has it.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Local { uid, pid: Some(pid) } => write!(f, "uid {uid}, pid {pid}"),
            Self::Local { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Person { identity: AdminIdentity { id, name, role, .. }, peer } => {
                write!(f, "{role} {name} ({id}) at {peer}")
            }
            Self::Stranger { who, .. } => f.write_str(who),
        }
    }
}
