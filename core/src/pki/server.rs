//! The server's certificate: made when it is missing, wrong or near its end, and shown to whoever connects.
//!
//! In: the `pki` folder and the names a core is reached by. Out: what TLS shows in a handshake, at the gateway and at the
//! enrolment port. Promise: a core that runs for years shows a certificate that is valid; one that was made while the clock was
//! wrong is made anew once the clock is right; a pair of which a crash left one half old is made anew. Whoever is connected
//! stays so. Not here: how certificates are written (`store`).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{
    DAY, Pki, PkiError, identity, key_hash, leaf, read_certificates, read_key, server_name, store,
    validity,
};

/// It is made anew when less than this is left of it.
const RENEW: Duration = Duration::from_secs(60 * 24 * 3600);
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often a running core looks whether it has to be.
pub const LOOK: Duration = Duration::from_secs(10);

/// The certificate of one core, for all of its ports.
#[derive(Debug)]
pub struct ServerCertificate {
    pki: Pki,
    names: Vec<String>,
    /// One at a time makes files.
    making: Mutex<()>,
    shown: RwLock<Shown>,
}

#[derive(Debug)]
struct Shown {
    /// Leaf and issuer.
    plain: Arc<CertifiedKey>,
    /// With the root: a host that is about to enrol knows only the hash of its key.
    with_root: Arc<CertifiedKey>,
}

/// What one port shows.
#[derive(Debug)]
struct Resolver {
    certificate: Arc<ServerCertificate>,
    with_root: bool,
}

impl ServerCertificate {
    /// Reads it; makes it first where that is needed.
    pub fn open(pki: &Pki, names: &[String]) -> Result<Arc<Self>, PkiError> {
        ensure(pki, names)?;
        let shown = RwLock::new(read(pki)?);
        Ok(Arc::new(Self { pki: pki.clone(), names: names.into(), making: Mutex::new(()), shown }))
    }

    /// Makes it anew where that is needed, and shows what is in the folder from now on.
    pub fn refresh(&self) -> Result<(), PkiError> {
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        ensure(&self.pki, &self.names)?;
        let fresh = read(&self.pki)?;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        if fresh.plain.cert != shown.plain.cert {
            tracing::info!("a new server certificate is shown from now on");
        }
        *shown = fresh;
        Ok(())
    }

    /// For peers that have the root already.
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver { certificate: Arc::clone(self), with_root: false })
    }

    /// For hosts that know the hash of the root's key.
    pub fn resolver_with_root(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver { certificate: Arc::clone(self), with_root: true })
    }

    /// The folder it lies in.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.certificate.shown.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(if self.with_root { &shown.with_root } else { &shown.plain }))
    }
}

fn read(pki: &Pki) -> Result<Shown, PkiError> {
    let (certificate, key) = (pki.dir.join("server.pem"), pki.dir.join("server.key"));
    let chain = read_certificates(&certificate)?;
    let mut with_root = chain.clone();
    with_root.extend(read_certificates(&pki.root_path())?);
    let provider = rustls::crypto::ring::default_provider();
    let unusable = |error: rustls::Error| PkiError::Unusable {
        path: certificate.clone(),
        why: error.to_string(),
    };
    let plain = CertifiedKey::from_der(chain, read_key(&key)?, &provider).map_err(unusable)?;
    let with_root = CertifiedKey::new(with_root, Arc::clone(&plain.key));
    Ok(Shown { plain: Arc::new(plain), with_root: Arc::new(with_root) })
}

/// Makes the pair when there is none, or none that is good for these names now.
fn ensure(pki: &Pki, names: &[String]) -> Result<(), PkiError> {
    let (certificate, key) = (pki.dir.join("server.pem"), pki.dir.join("server.key"));
    if is_good(&certificate, &key, names)? {
        return Ok(());
    }
    let (issuer, chain) = pki.issuer()?;
    let make = |error| PkiError::Make { what: "the server".into(), error };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
    let mut params = leaf("garam core", LIFE);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names =
        names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
    let made = params.signed_by(&pair, &issuer).map_err(make)?;
    store::replace(&certificate, format!("{}{chain}", made.pem()).as_bytes(), 0o644)?;
    store::replace(&key, pair.serialize_pem().as_bytes(), 0o600)
}

fn is_good(certificate: &Path, key: &Path, names: &[String]) -> Result<bool, PkiError> {
    for path in [certificate, key] {
        let there = path.try_exists();
        let look = |error| PkiError::Io { action: "look for", path: path.into(), error };
        if !there.map_err(look)? {
            return Ok(false);
        }
    }
    let chain = read_certificates(certificate)?;
    let Some(leaf) = chain.first() else { return Ok(false) };
    let known = identity::server_names(leaf);
    Ok(names.iter().all(|name| known.contains(name))
        && is_valid_long_enough(leaf, SystemTime::now())
        && belong_together(leaf, &store::read_text(key)?))
}

fn is_valid_long_enough(leaf: &CertificateDer<'_>, now: SystemTime) -> bool {
    validity(leaf).is_some_and(|validity| {
        // Longer than it lives: it was made while the clock was ahead.
        let left = validity.not_after.duration_since(now).unwrap_or_default();
        validity.not_before <= now && left > RENEW && left <= LIFE + DAY
    })
}

fn belong_together(leaf: &CertificateDer<'_>, key: &str) -> bool {
    let of_key = KeyPair::from_pem(key).ok().map(|key| key_hash(&key.subject_public_key_info()));
    of_key.is_some() && of_key == identity::public_key_hash(leaf)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn authority() -> (tempfile::TempDir, Pki, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::at(folder.path().join("pki"));
        pki.init("test").unwrap();
        (folder, pki, vec!["localhost".into()])
    }

    fn leaf_of(certificate: &ServerCertificate) -> CertificateDer<'static> {
        certificate.shown.read().unwrap().plain.cert[0].clone()
    }

    #[test]
    fn a_good_certificate_stays_and_another_name_makes_a_new_one() {
        let (_folder, pki, names) = authority();
        let first = leaf_of(&ServerCertificate::open(&pki, &names).unwrap());
        assert_eq!(leaf_of(&ServerCertificate::open(&pki, &names).unwrap()), first);
        let more = [names, vec!["core.example".into()]].concat();
        assert_ne!(leaf_of(&ServerCertificate::open(&pki, &more).unwrap()), first);
    }

    #[test]
    fn half_a_pair_is_made_anew_whichever_half_is_old() {
        let (_folder, pki, names) = authority();
        for half in ["server.pem", "server.key"] {
            ServerCertificate::open(&pki, &names).unwrap();
            let old = fs::read(pki.dir().join(half)).unwrap();
            for name in ["server.pem", "server.key"] {
                fs::remove_file(pki.dir().join(name)).unwrap();
            }
            ServerCertificate::open(&pki, &names).unwrap();
            fs::write(pki.dir().join(half), old).unwrap();
            let mended = ServerCertificate::open(&pki, &names).unwrap();
            assert!(mended.shown.read().unwrap().plain.keys_match().is_ok(), "{half}");
        }
    }

    #[test]
    fn a_running_core_shows_what_was_made_anew() {
        let (_folder, pki, names) = authority();
        let certificate = ServerCertificate::open(&pki, &names).unwrap();
        let first = leaf_of(&certificate);
        certificate.refresh().unwrap();
        assert_eq!(leaf_of(&certificate), first);
        fs::remove_file(pki.dir().join("server.key")).unwrap();
        certificate.refresh().unwrap();
        assert_ne!(leaf_of(&certificate), first);
        let with_root = certificate.shown.read().unwrap().with_root.cert.len();
        assert_eq!(with_root, 3);
    }

    #[test]
    fn a_certificate_of_another_time_is_not_good_now() {
        let (_folder, pki, names) = authority();
        let leaf = leaf_of(&ServerCertificate::open(&pki, &names).unwrap());
        let now = SystemTime::now();
        assert!(is_valid_long_enough(&leaf, now));
        assert!(is_valid_long_enough(&leaf, now + 300 * DAY));
        assert!(!is_valid_long_enough(&leaf, now + 306 * DAY), "it ends soon");
        assert!(!is_valid_long_enough(&leaf, now - DAY), "it was made while the clock was ahead");
    }
}
