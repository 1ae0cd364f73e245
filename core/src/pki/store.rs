//! Certificate and key files: made once, with tight modes, on stable storage before they count.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::PkiError;

/// Creates a folder for keys, mode 0700, with its parents.
fn create_folder(path: &Path) -> Result<(), PkiError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| PkiError::Io { action: "create folder", path: path.into(), error })
}

/// Makes a folder with these files, whole or not at all: they are written beside it, then it gets its name. One that is there
/// already must be empty.
pub(super) fn make_whole(folder: &Path, files: &[(&str, String, u32)]) -> Result<(), PkiError> {
    let io = |action, path: &Path, error| PkiError::Io { action, path: path.into(), error };
    let fresh = folder.with_extension("new");
    match std::fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("remove", &fresh, error));
        }
        _ => {}
    }
    create_folder(&fresh)?;
    for (name, text, mode) in files {
        write_new(&fresh.join(name), text.as_bytes(), *mode)?;
    }
    std::fs::rename(&fresh, folder).map_err(|error| match error.kind() {
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            PkiError::Exists(folder.into())
        }
        _ => io("rename", &fresh, error),
    })?;
    sync_parent(folder)
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let io = |action, error| PkiError::Io { action, path: path.into(), error };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
            match error.kind() {
                ErrorKind::AlreadyExists => PkiError::Exists(path.into()),
                _ => io("create", error),
            }
        })?;
    file.write_all(bytes).map_err(|error| io("write", error))?;
    file.sync_all().map_err(|error| io("sync", error))?;
    sync_parent(path)
}

/// Writes a file beside the old one and puts it in its place.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(PkiError::Io { action: "remove", path: fresh, error });
        }
        _ => {}
    }
    write_new(&fresh, bytes, mode)?;
    std::fs::rename(&fresh, path).map_err(|error| PkiError::Io {
        action: "rename",
        path: fresh.clone(),
        error,
    })?;
    sync_parent(path)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|error| PkiError::Io { action: "read", path: path.into(), error })
}

pub(super) fn read_text(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|error| PkiError::Io {
        action: "read",
        path: path.into(),
        error,
    })
}

/// All certificates of a PEM file, leaf first.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let bytes = read(path)?;
    let parsed = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let certificates = parsed.map_err(|error| unusable(path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(path, "it holds no certificate".into()));
    }
    Ok(certificates)
}

/// The private key of a PEM file.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| unusable(path, error.to_string()))
}

fn unusable(path: &Path, why: String) -> PkiError {
    PkiError::Unusable { path: PathBuf::from(path), why }
}

fn sync_parent(path: &Path) -> Result<(), PkiError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| PkiError::Io { action: "sync folder", path: folder.into(), error })
}
