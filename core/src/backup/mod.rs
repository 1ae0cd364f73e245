//! Backup, verification and restore of everything the core keeps.
//!
//! In: the folders of a running or a stopped core. Out: a folder of its own that proves itself; later, a data folder made of
//! it. Promise: a backup has its name only when it is whole and synced; nothing of it is used before all of it was checked;
//! a restored core begins a new life of every partition, so that nobody takes it for the one that was lost. A crash in
//! between leaves a folder that says so.
//!
//! ```text
//! DIR/MANIFEST                         what is in it: name, size and CRC32C of each file (`manifest`)
//! DIR/meta.db                          one SQLite file, of the moment the backup began
//! DIR/pki/…                            authority and server certificate, with their keys
//! DIR/log/STREAM/NUMBER/BASE.seg       segments from the slowest cursor on; the last one ends at the durable end
//! ```
//!
//! Reading order: [`manifest`] → [`write`] → [`verify`] → [`restore`]. Not here: asking and telling (`cli::backup`).

pub mod manifest;
pub mod restore;
pub mod verify;
pub mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_disk::{DiskFile, Fs};
use garam_log::LogError;
use garam_meta::MetaError;
use garam_stage::FailureKind;

/// Why a backup is not taken, believed or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{} exists already: a backup never replaces anything, name another folder", .0.display())]
    Exists(PathBuf),
    #[error(
        "{} is not empty: a restore needs a data_dir of its own; move what is there away, nothing was changed",
        .0.display()
    )]
    NotEmpty(PathBuf),
    #[error("{} is no backup: it has no MANIFEST", .0.display())]
    NoBackup(PathBuf),
    #[error("the MANIFEST of {} is damaged: {why}; take another backup", .path.display())]
    Manifest { path: PathBuf, why: String },
    #[error(
        "{} has backup format {found}, this build reads up to {supported}: upgrade Garam, nothing was changed",
        .path.display()
    )]
    NewerFormat { path: PathBuf, found: u64, supported: u64 },
    #[error(
        "{} holds {faults} damaged or missing parts, `garam verify` names them; nothing was changed: take another backup",
        .path.display()
    )]
    Damaged { path: PathBuf, faults: usize },
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl BackupError {
    /// Whether it asks for a newer build.
    pub fn is_newer_format(&self) -> bool {
        match self {
            Self::NewerFormat { .. } | Self::Log(LogError::NewerFormat { .. }) => true,
            Self::Meta(error) => error.kind() == FailureKind::Config,
            _ => false,
        }
    }
}

/// How many bytes are copied at a time.
const CHUNK: usize = 1024 * 1024;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
}

/// Copies the first `bytes` of a file, syncs the copy, and gives its CRC32C.
fn copy(
    fs: &dyn Fs,
    from: &dyn DiskFile,
    bytes: u64,
    to: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<u32, BackupError> {
    let target = fs.create(to).map_err(io_error("create", to))?;
    let crc = read_through(from, bytes, to, &mut |chunk, at| {
        target.write_all_at(chunk, at).map_err(io_error("write", to))?;
        progress(chunk.len() as u64);
        Ok(())
    })?;
    target.sync().map_err(io_error("sync", to))?;
    Ok(crc)
}

/// Is shown each piece of a file and where it begins.
type See<'a> = &'a mut dyn FnMut(&[u8], u64) -> Result<(), BackupError>;

/// Reads the first `bytes` of a file and gives their CRC32C. Fewer are an error.
fn read_through(
    file: &dyn DiskFile,
    bytes: u64,
    name: &Path,
    see: See<'_>,
) -> Result<u32, BackupError> {
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut crc) = (0, 0);
    while at < bytes {
        let wanted = usize::try_from(bytes - at).map_or(CHUNK, |rest| rest.min(CHUNK));
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let filled = file.read_full_at(chunk, at).map_err(io_error("read", name))?;
        if filled < wanted {
            return Err(io_error("read", name)(io::ErrorKind::UnexpectedEof.into()));
        }
        see(chunk, at)?;
        crc = crc32c::crc32c_append(crc, chunk);
        at += wanted as u64;
    }
    Ok(crc)
}

/// Every file below a folder, by its path from there.
fn files_below(fs: &dyn Fs, folder: &Path) -> Result<Vec<String>, BackupError> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(inner) = folders.pop() {
        let path = folder.join(&inner);
        for listed in fs.list(&path).map_err(io_error("list", &path))? {
            let name = match inner.as_str() {
                "" => listed.name,
                inner => format!("{inner}/{}", listed.name),
            };
            if listed.is_dir { folders.push(name) } else { found.push(name) }
        }
    }
    found.sort();
    Ok(found)
}

/// Removes every file below a folder. The folders stay.
fn remove_files(fs: &dyn Fs, folder: &Path) -> Result<(), BackupError> {
    for name in files_below(fs, folder)? {
        let path = folder.join(name);
        fs.remove(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Makes every folder of these files durable, with the folders above them up to `top`.
fn sync_folders<'a>(
    fs: &dyn Fs,
    top: &Path,
    files: impl Iterator<Item = &'a str>,
) -> Result<(), BackupError> {
    let mut folders: Vec<PathBuf> = vec![top.to_owned()];
    for name in files {
        let above = Path::new(name).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
        folders.extend(above.map(|folder| top.join(folder)));
    }
    folders.sort();
    folders.dedup();
    for folder in folders.iter().rev() {
        fs.sync_dir(folder).map_err(io_error("sync", folder))?;
    }
    Ok(())
}

fn open(fs: &dyn Fs, path: &Path) -> Result<Arc<dyn DiskFile>, BackupError> {
    fs.open(path).map_err(io_error("open", path))
}
