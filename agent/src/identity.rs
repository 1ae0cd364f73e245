//! The identity folder: the root the agent believes, its certificate and its key, and the pair it may change to.
//!
//! ```text
//! key.next.pem  cert.next.pem    what it means, and what is done about it
//!   ·             ·              cert.pem and key.pem count
//!   there         ·              a key waits for its certificate
//!   there         there          tried first; once it has worked it takes the place of the old pair
//!   ·             there          the change was cut after its first step: it is finished
//! ```
//!
//! In: certificates from the core, `garam agent issue` or enrolment. Out: the pair to use. Promise: a key is made here, mode
//! 0600, and never leaves; every file is on stable storage before the next step; whatever step is cut, the folder holds a pair
//! that works. Not here: asking for certificates ([`crate::enrol`], [`crate::ship`]), TLS ([`crate::tls`]).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// What cannot be done with the identity folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

/// The folder. It needs not exist yet.
#[derive(Debug, Clone)]
pub struct IdentityFolder {
    path: PathBuf,
}

/// Files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Not used yet: see [`IdentityFolder::settle`].
    pub is_next: bool,
}

impl IdentityFolder {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn root(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// The pair to use now. Finishes a change that was cut.
    pub fn pair(&self) -> Result<Pair, FolderError> {
        match (exists(&self.next_key())?, exists(&self.next_certificate())?) {
            (true, true) => Ok(Pair {
                certificate: self.next_certificate(),
                key: self.next_key(),
                is_next: true,
            }),
            (false, true) => {
                self.rename(&self.next_certificate(), &self.certificate())?;
                Ok(self.current())
            }
            (_, false) => Ok(self.current()),
        }
    }

    /// The pair that has worked before.
    pub fn current(&self) -> Pair {
        Pair { certificate: self.certificate(), key: self.key(), is_next: false }
    }

    /// Whether the folder holds a certificate and a key.
    pub fn is_complete(&self) -> Result<bool, FolderError> {
        let pair = self.pair()?;
        Ok(exists(&self.root())? && exists(&pair.certificate)? && exists(&pair.key)?)
    }

    /// A request for a certificate, with a key that is durable from now on: a new one, or, with `again`, the one that waits
    /// already, so that a request whose answer was lost is the same request.
    pub fn request(&self, again: bool) -> Result<Vec<u8>, FolderError> {
        let waiting = again && exists(&self.next_key())? && !exists(&self.next_certificate())?;
        let key = if waiting {
            KeyPair::from_pem(&read(&self.next_key())?)?
        } else {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            create_folder(&self.path)?;
            self.drop_next()?;
            self.write(&self.next_key(), key.serialize_pem().as_bytes(), 0o600)?;
            key
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(&key)?.der().to_vec())
    }

    /// Keeps the certificate for the key that waits.
    pub fn keep(&self, chain: &str) -> Result<(), FolderError> {
        self.write(&self.next_certificate(), chain.as_bytes(), 0o644)
    }

    pub fn keep_root(&self, root: &str) -> Result<(), FolderError> {
        self.write(&self.root(), root.as_bytes(), 0o644)
    }

    /// The next pair has worked: it takes the place of the old one.
    pub fn settle(&self) -> Result<(), FolderError> {
        self.rename(&self.next_key(), &self.key())?;
        self.rename(&self.next_certificate(), &self.certificate())
    }

    /// The next pair does not work: the old one counts.
    pub fn drop_next(&self) -> Result<(), FolderError> {
        // The certificate first: alone it would mean a change that was cut.
        for path in [self.next_certificate(), self.next_key()] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(FolderError::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        self.sync()
    }

    fn certificate(&self) -> PathBuf {
        self.path.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.path.join("key.pem")
    }

    fn next_certificate(&self) -> PathBuf {
        self.path.join("cert.next.pem")
    }

    fn next_key(&self) -> PathBuf {
        self.path.join("key.next.pem")
    }

    /// Writes a file whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FolderError> {
        let fresh = path.with_extension("new");
        let io = |action| {
            let path = fresh.clone();
            move |source| FolderError::Io { action, path, source }
        };
        match std::fs::remove_file(&fresh) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(io("remove")(source));
            }
            _ => {}
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
        let mut file = made.map_err(io("create"))?;
        file.write_all(bytes).map_err(io("write"))?;
        file.sync_all().map_err(io("sync"))?;
        self.rename(&fresh, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FolderError> {
        std::fs::rename(from, to).map_err(|source| FolderError::Io {
            action: "rename",
            path: from.into(),
            source,
        })?;
        self.sync()
    }

    fn sync(&self) -> Result<(), FolderError> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| FolderError::Io { action: "sync", path: self.path.clone(), source })
    }
}

fn exists(path: &Path) -> Result<bool, FolderError> {
    let found = path.try_exists();
    found.map_err(|source| FolderError::Io { action: "look for", path: path.into(), source })
}

fn read(path: &Path) -> Result<String, FolderError> {
    let text = std::fs::read_to_string(path);
    text.map_err(|source| FolderError::Io { action: "read", path: path.into(), source })
}

fn create_folder(path: &Path) -> Result<(), FolderError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FolderError::Io { action: "create", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn text(folder: &IdentityFolder) -> (String, String) {
        let pair = folder.pair().unwrap();
        (read(&pair.certificate).unwrap(), read(&pair.key).unwrap())
    }

    #[test]
    fn whatever_step_of_a_change_is_cut_a_whole_pair_is_used() {
        let place = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(place.path().join("identity"));
        folder.request(false).unwrap();
        folder.keep("first").unwrap();
        folder.settle().unwrap();
        let (_, first) = text(&folder);
        assert!(!folder.pair().unwrap().is_next);

        folder.request(false).unwrap();
        assert_eq!(text(&folder), ("first".into(), first.clone()), "a key alone changes nothing");
        let waiting = read(&folder.next_key()).unwrap();
        folder.keep("second").unwrap();
        assert_eq!(text(&folder), ("second".into(), waiting.clone()));
        assert!(folder.pair().unwrap().is_next);

        // The first step of settling, and nothing more.
        folder.rename(&folder.next_key(), &folder.key()).unwrap();
        assert_eq!(text(&folder), ("second".into(), waiting));
        assert!(!folder.pair().unwrap().is_next);

        folder.request(false).unwrap();
        folder.keep("third").unwrap();
        folder.drop_next().unwrap();
        assert_eq!(text(&folder).0, "second");
    }

    #[test]
    fn a_lost_answer_is_asked_for_with_the_same_key_and_a_key_is_for_its_owner_only() {
        let place = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(place.path().join("identity"));
        folder.request(true).unwrap();
        let first = read(&folder.next_key()).unwrap();
        folder.request(true).unwrap();
        assert_eq!(read(&folder.next_key()).unwrap(), first);
        folder.request(false).unwrap();
        assert_ne!(read(&folder.next_key()).unwrap(), first);
        let mode = std::fs::metadata(folder.next_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
