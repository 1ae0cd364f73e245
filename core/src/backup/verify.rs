//! Checks a backup wholly.
//!
//! In: the folder of a backup. Out: its list, and every fault: files that are missing, too many, of another size or
//! checksum; entries of the log that do not follow; bounds that are not those of the list. Promise: nothing is written.
//! Not here: the metadata's content, which SQLite reads by itself (`cli::backup`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use garam_disk::Fs;
use garam_log::embedded::Env;
use garam_log::offline;
use garam_proto::{PartitionId, StreamName};

use super::manifest::{Manifest, NAME};
use super::{BackupError, files_below, io_error, read_through};

/// One thing that is not as the list says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Fault {
    pub file: String,
    pub why: String,
}

/// Checks everything. `progress` is told how many bytes were read of how many.
pub fn verify(
    env: &Env,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Manifest, Vec<Fault>), BackupError> {
    let manifest = Manifest::read(&*env.fs, dir)?;
    // Each file is read twice.
    let total = manifest.bytes() * 2;
    let mut done = 0;
    let mut told = |bytes| {
        done += bytes;
        progress(done, total);
    };
    let mut faults = files(&*env.fs, dir, &manifest, &mut told)?;
    // Entries of a log whose bytes differ are not worth a second complaint.
    if faults.is_empty() {
        faults = logs(env, dir, &manifest, &mut told)?;
    }
    Ok((manifest, faults))
}

fn files(
    fs: &dyn Fs,
    dir: &Path,
    manifest: &Manifest,
    told: &mut dyn FnMut(u64),
) -> Result<Vec<Fault>, BackupError> {
    let mut faults = Vec::new();
    let listed: BTreeSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    for name in files_below(fs, dir)? {
        if name != NAME && !listed.contains(name.as_str()) {
            faults.push(Fault { file: name, why: "it is not in the MANIFEST".into() });
        }
    }
    for entry in &manifest.files {
        let mut fault = |why: String| faults.push(Fault { file: entry.name.clone(), why });
        let path = dir.join(&entry.name);
        let file = match fs.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fault("it is missing".into());
                continue;
            }
            file => file.map_err(io_error("open", &path))?,
        };
        let bytes = file.size().map_err(io_error("read", &path))?;
        if bytes != entry.bytes {
            fault(format!("it has {bytes} bytes instead of {}", entry.bytes));
            continue;
        }
        match read_through(&*file, bytes, &path, &mut |_, _| Ok(())) {
            Ok(crc) if crc == entry.crc32c => {}
            Ok(_) => fault("its checksum differs".into()),
            Err(BackupError::Io { source, .. }) => fault(format!("it cannot be read: {source}")),
            Err(error) => return Err(error),
        }
        told(bytes);
    }
    Ok(faults)
}

/// Every entry of every partition, and its bounds.
pub(super) fn logs(
    env: &Env,
    dir: &Path,
    manifest: &Manifest,
    told: &mut dyn FnMut(u64),
) -> Result<Vec<Fault>, BackupError> {
    let partitions = partitions(dir, manifest)?;
    let mut before = 0;
    let verified = offline::verify_with(env, &log_dir(dir), &partitions, &mut |bytes| {
        told(bytes - before);
        before = bytes;
    })?;
    let mut faults = Vec::new();
    for (entry, found) in manifest.partitions.iter().zip(&verified) {
        let file = format!("log/{}/{:04}", entry.stream, entry.partition);
        let mut fault = |why: String| faults.push(Fault { file: file.clone(), why });
        for damage in &found.damage {
            let place = (damage.file.display(), damage.bytes.start);
            fault(format!("{} byte {}: {}", place.0, place.1, damage.why));
        }
        if let Some((at, why)) = &found.torn {
            fault(format!("its tail is torn at byte {at}: {why}"));
        }
        let bounds = (found.incarnation.to_string(), found.start.0, found.end.0);
        if bounds != (entry.incarnation.clone(), entry.start, entry.end) {
            fault(format!("it is {bounds:?}, the MANIFEST says {entry:?}"));
        }
    }
    Ok(faults)
}

/// The partitions of the list.
pub(super) fn partitions(dir: &Path, manifest: &Manifest) -> Result<Vec<PartitionId>, BackupError> {
    let parsed = manifest.partitions.iter().map(|entry| {
        let stream = StreamName::new(entry.stream.clone());
        let stream = stream.map_err(|error| BackupError::Manifest {
            path: dir.into(),
            why: format!("stream {:?}: {error}", entry.stream),
        })?;
        Ok(PartitionId { stream, index: entry.partition })
    });
    parsed.collect()
}

pub(super) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}
