//! Makes a data folder out of a backup.
//!
//! In: a verified backup, an empty data folder. Out: the data folder of a core that was never started, each of its
//! partitions in a new life that names its parent. Promise: a folder that holds anything is refused; until the last step it
//! holds a mark that keeps a core from starting on it, and the same restore may be done again.
//! Source epochs rise by 65 536, so that what is registered from now on is newer than anything since the backup.

use std::path::{Path, PathBuf};

use garam_disk::Fs;
use garam_log::embedded::Env;
use garam_log::offline;

use super::manifest::{FileEntry, Manifest};
use super::verify::{log_dir, partitions, verify};
use super::{BackupError, copy, io_error, open, remove_files, sync_folders};

/// The name of the mark.
pub const UNDER_WAY: &str = "RESTORING";
/// What a file system keeps at its top.
const OF_THE_DISK: &str = "lost+found";
/// A restore is this much newer than whatever was registered after the backup.
const RAISE_EPOCHS: u32 = 65_536;

/// Where things go.
#[derive(Debug, Clone)]
pub struct Targets {
    pub data_dir: PathBuf,
    pub pki_dir: PathBuf,
}

/// A partition that has begun a new life.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    pub stream: String,
    pub partition: u32,
    pub incarnation: String,
    pub parent: String,
    pub branch: u64,
}

/// Whether a restore was begun there and did not end.
pub fn is_under_way(fs: &dyn Fs, data_dir: &Path) -> bool {
    fs.open(&data_dir.join(UNDER_WAY)).is_ok()
}

/// Checks backup and targets, and gives what would be restored. Nothing is changed.
pub fn plan(
    env: &Env,
    backup: &Path,
    targets: &Targets,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, BackupError> {
    check_empty(&*env.fs, targets)?;
    let (manifest, faults) = verify(env, backup, progress)?;
    if !faults.is_empty() {
        let (path, faults) = (backup.into(), faults.len());
        return Err(BackupError::Damaged { path, faults });
    }
    Ok(manifest)
}

/// Restores what [`plan`] has checked.
pub fn restore(
    env: &Env,
    backup: &Path,
    manifest: &Manifest,
    targets: &Targets,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Restored>, BackupError> {
    let fs = &*env.fs;
    let data_dir = &targets.data_dir;
    check_empty(fs, targets)?;
    let keep_pki = !goes_inside(targets) && holds_something(fs, &targets.pki_dir)?;
    fs.create_dir(data_dir).map_err(io_error("create", data_dir))?;
    let mark = data_dir.join(UNDER_WAY);
    if is_under_way(fs, data_dir) {
        start_over(fs, data_dir)?;
    } else {
        let file = fs.create(&mark).map_err(io_error("create", &mark))?;
        file.sync().map_err(io_error("sync", &mark))?;
        fs.sync_dir(data_dir).map_err(io_error("sync", data_dir))?;
    }
    let total = manifest.bytes();
    let mut done = 0;
    for entry in manifest.files.iter().filter(|entry| !(keep_pki && is_pki(entry))) {
        let from = open(fs, &backup.join(&entry.name))?;
        let to = target_of(entry, targets);
        if let Some(folder) = to.parent() {
            fs.create_dir(folder).map_err(io_error("create", folder))?;
        }
        let crc = copy(fs, &*from, entry.bytes, &to, &mut |bytes| {
            done += bytes;
            progress(done, total);
        })?;
        if crc != entry.crc32c {
            return Err(BackupError::Damaged { path: backup.into(), faults: 1 });
        }
    }
    let names = || manifest.files.iter().map(|entry| entry.name.as_str());
    sync_folders(fs, data_dir, names().filter(|name| !name.starts_with("pki/")))?;
    if !keep_pki && manifest.files.iter().any(is_pki) {
        let inner = names().filter_map(|name| name.strip_prefix("pki/"));
        sync_folders(fs, &targets.pki_dir, inner)?;
    }
    let restored = begin_new_lives(env, backup, manifest, data_dir)?;
    fs.remove(&mark).map_err(io_error("remove", &mark))?;
    fs.sync_dir(data_dir).map_err(io_error("sync", data_dir))?;
    Ok(restored)
}

fn begin_new_lives(
    env: &Env,
    backup: &Path,
    manifest: &Manifest,
    data_dir: &Path,
) -> Result<Vec<Restored>, BackupError> {
    let mut restored = Vec::new();
    for (id, entry) in partitions(backup, manifest)?.iter().zip(&manifest.partitions) {
        let life = offline::begin_new_life(env, &log_dir(data_dir), id, RAISE_EPOCHS)?;
        restored.push(Restored {
            stream: entry.stream.clone(),
            partition: entry.partition,
            incarnation: life.to_string(),
            parent: entry.incarnation.clone(),
            branch: entry.end,
        });
    }
    Ok(restored)
}

/// The data folder holds nothing, or what an interrupted restore left.
fn check_empty(fs: &dyn Fs, targets: &Targets) -> Result<(), BackupError> {
    let data_dir = &targets.data_dir;
    if holds_something(fs, data_dir)? && !is_under_way(fs, data_dir) {
        return Err(BackupError::NotEmpty(data_dir.clone()));
    }
    Ok(())
}

fn holds_something(fs: &dyn Fs, folder: &Path) -> Result<bool, BackupError> {
    let listed = fs.list(folder).map_err(io_error("list", folder))?;
    Ok(listed.iter().any(|listed| listed.name != OF_THE_DISK))
}

/// Removes what an interrupted restore left; its mark stays.
fn start_over(fs: &dyn Fs, data_dir: &Path) -> Result<(), BackupError> {
    for listed in fs.list(data_dir).map_err(io_error("list", data_dir))? {
        let path = data_dir.join(&listed.name);
        if listed.is_dir && listed.name != OF_THE_DISK {
            remove_files(fs, &path)?;
        } else if !listed.is_dir && listed.name != UNDER_WAY {
            fs.remove(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

fn is_pki(entry: &FileEntry) -> bool {
    entry.name.starts_with("pki/")
}

fn goes_inside(targets: &Targets) -> bool {
    targets.pki_dir.starts_with(&targets.data_dir)
}

fn target_of(entry: &FileEntry, targets: &Targets) -> PathBuf {
    match entry.name.strip_prefix("pki/") {
        Some(name) => targets.pki_dir.join(name),
        None => targets.data_dir.join(&entry.name),
    }
}
