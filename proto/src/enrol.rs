//! Enrolment: how a host without a certificate, or with one that has ended, gets one. One question, one answer, on a port of
//! its own, over TLS 1.3 that only the core must prove itself in.
//!
//! ```text
//! host                                        core
//!   Enrol   token, request ──────────────────►         the token pins the core's root: checked before it is sent
//!   Recover request ─────────────────────────►         under the ended certificate, as the TLS client's
//!         ◄──────────────────────────────────  Issued  agent id, root, certificate
//!         ◄──────────────────────────────────  Refused
//! ```
//!
//! Each is one [`crate::frame`] of kind [`KIND`], which is also the version: another layout gets another kind. A host that got
//! no answer asks again with the same key, and gets the same answer. Not here: what a token is, who may do what.

use std::fmt;

use bincode::{Decode, Encode};

use crate::bin::{self, Malformed};
use crate::frame::{Frame, FrameLimits, encode_head};
use crate::ids::AgentId;

/// Frame kind of questions and answers of version 1.
pub const KIND: u8 = 64;
/// The largest question or answer.
pub const LIMITS: FrameLimits = FrameLimits { max_header: 16 * 1024, max_payload: 0 };

/// A host with a token wants to become an agent.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Enrol {
    /// Which token, and its secret; never the pinned hash, which is the host's own affair.
    pub token: String,
    pub secret: String,
    /// What the host calls itself; counts only where the token allows a choice.
    pub host: String,
    /// PKCS #10, DER, signed by the key it carries. All but the key is ignored.
    pub csr: Vec<u8>,
    /// Program and version, for people.
    pub build: String,
}

/// Without the secret: questions end up in logs.
impl fmt::Debug for Enrol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, host, build, .. } = self;
        f.debug_struct("Enrol")
            .field("token", token)
            .field("host", host)
            .field("build", build)
            .finish_non_exhaustive()
    }
}

/// An agent whose certificate has ended wants the next one. Who it is says the certificate it shows in the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Recover {
    pub csr: Vec<u8>,
    pub build: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    Enrol(Enrol),
    Recover(Recover),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Issued {
    pub agent: AgentId,
    /// The name the host has from now on.
    pub host: String,
    /// The root, PEM.
    pub root: String,
    /// The certificate with its issuer, PEM.
    pub chain: String,
    pub time_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refused {
    pub why: String,
    /// Whether the same question may be answered otherwise later.
    pub later: bool,
    /// The core's clock: skew is named in errors.
    pub time_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    Issued(Issued),
    Refused(Refused),
}

/// A frame that is not the question or answer of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnrolError {
    #[error(
        "frame kind {0} is no enrolment of a version that is known here: upgrade the older side"
    )]
    Version(u8),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Question {
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        Ok(encode_head(KIND, &bin::encode("Question", self)?, 0))
    }

    pub fn decode(frame: &Frame) -> Result<Self, EnrolError> {
        decode("Question", frame)
    }
}

impl Answer {
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        Ok(encode_head(KIND, &bin::encode("Answer", self)?, 0))
    }

    pub fn decode(frame: &Frame) -> Result<Self, EnrolError> {
        decode("Answer", frame)
    }
}

fn decode<T: Decode<()>>(what: &'static str, frame: &Frame) -> Result<T, EnrolError> {
    if frame.kind != KIND {
        return Err(EnrolError::Version(frame.kind));
    }
    Ok(bin::decode(what, &frame.header)?)
}
