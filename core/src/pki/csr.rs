//! Requests for certificates: takes the public key out, and leaves everything else where it is.
//!
//! In: bytes of a stranger (PKCS #10, DER). Out: a key whose private half the sender has shown to hold. Promise: names, usages
//! and constraints that a request asks for are not even read; keys are of three kinds of a known, sufficient strength, so that
//! neither a weak nor a huge one is ever worked on.

use garam_meta::KeyHash;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;

/// The largest request.
const MAX_BYTES: usize = garam_proto::message::MAX_CSR;
/// P-256 and P-384 by curve, Ed25519 by algorithm.
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];
const ED25519: &str = "1.3.101.112";

/// A key that somebody wants signed and has proven to hold.
#[derive(Debug)]
pub struct RequestedKey {
    public: SubjectPublicKeyInfo,
    hash: KeyHash,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsrError {
    #[error("the request has {0} bytes, at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
    #[error("the request cannot be read")]
    Unreadable,
    #[error("keys of this kind are not accepted: use ECDSA P-256, P-384 or Ed25519")]
    Key,
    #[error("the request is not signed by the key it carries")]
    NotProven,
}

impl RequestedKey {
    pub fn of(csr: &[u8]) -> Result<Self, CsrError> {
        if csr.len() > MAX_BYTES {
            return Err(CsrError::TooLarge(csr.len()));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(csr).map_err(|_| CsrError::Unreadable)?;
        if !rest.is_empty() {
            return Err(CsrError::Unreadable);
        }
        let key = &request.certification_request_info.subject_pki;
        if !is_accepted(key) {
            return Err(CsrError::Key);
        }
        request.verify_signature().map_err(|_| CsrError::NotProven)?;
        let public = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Key)?;
        Ok(Self { public, hash: super::key_hash(key.raw) })
    }

    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    pub(super) fn public(&self) -> &SubjectPublicKeyInfo {
        &self.public
    }
}

fn is_accepted(key: &ParsedKey<'_>) -> bool {
    let algorithm = key.algorithm.algorithm.to_id_string();
    if algorithm == ED25519 {
        return true;
    }
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    algorithm == EC_PUBLIC_KEY
        && curve.is_some_and(|curve| CURVES.contains(&curve.to_id_string().as_str()))
}
