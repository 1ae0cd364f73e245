//! Takes a backup.
//!
//! In: the metadata's copy, the certificates' folder and the log's, of a running or a stopped core. Out: a folder under the
//! name that was asked for. Promise: it is written under another name, synced, verified, and then renamed, so whatever has
//! the name is whole; what is there already is never touched, but a half-written one of a crashed run is replaced.

use std::path::{Path, PathBuf};

use garam_log::embedded::Env;
use garam_log::{LogError, inspect, offline};
use garam_meta::CopySummary;
use garam_proto::{LogOffset, PartitionId};

use super::manifest::{FORMAT, FileEntry, Manifest, NAME, PartitionEntry};
use super::{BackupError, copy, files_below, io_error, open, remove_files, sync_folders, verify};

/// What is backed up.
#[derive(Debug, Clone)]
pub struct Sources {
    /// A copy of the metadata that nobody writes to, and what it says.
    pub meta: PathBuf,
    pub summary: CopySummary,
    pub pki: PathBuf,
    pub log: PathBuf,
    /// Wall clock, for people.
    pub taken_us: i64,
}

/// What a crashed run left is replaced.
pub fn partial_name(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Takes a backup under the name `target`. `progress` is told how many bytes were written, and how many there will be.
pub fn write(
    env: &Env,
    sources: &Sources,
    target: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, BackupError> {
    refuse_existing(env, target)?;
    let partial = partial_name(target);
    let manifest = fill(env, sources, &partial, progress)?;
    refuse_existing(env, target)?;
    env.fs.rename(&partial, target).map_err(io_error("rename", &partial))?;
    let parent = parent_of(target);
    env.fs.sync_dir(parent).map_err(io_error("sync", parent))?;
    Ok(manifest)
}

/// Writes a whole backup into a folder, synced and verified, in place of whatever half of one is there.
pub fn fill(
    env: &Env,
    sources: &Sources,
    partial: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, BackupError> {
    let fs = &*env.fs;
    remove_files(fs, partial)?;
    fs.create_dir(partial).map_err(io_error("create", partial))?;
    let gathered = gather(env, sources)?;
    let small = small_files(env, sources)?;
    let sizes = small.iter().map(|small| small.bytes);
    let segments = gathered.iter().flat_map(|partition| &partition.files);
    let total: u64 = sizes.chain(segments.map(|file| file.bytes)).sum();
    let mut done = 0;
    let mut told = |bytes: u64| {
        done += bytes;
        progress(done, total);
    };
    let mut files = Vec::new();
    let mut keep = |name: String, file: &dyn garam_disk::DiskFile, bytes: u64| {
        let path = partial.join(&name);
        if let Some(folder) = path.parent() {
            fs.create_dir(folder).map_err(io_error("create", folder))?;
        }
        let crc32c = copy(fs, file, bytes, &path, &mut told)?;
        files.push(FileEntry { name, bytes, crc32c });
        Ok::<_, BackupError>(())
    };
    for Small { name, path, bytes } in small {
        keep(name, &*open(fs, &path)?, bytes)?;
    }
    for file in gathered.iter().flat_map(|partition| &partition.files) {
        keep(format!("log/{}", file.name), &*file.file, file.bytes)?;
    }
    let manifest = Manifest {
        format: FORMAT,
        garam: env!("CARGO_PKG_VERSION").into(),
        taken_us: sources.taken_us,
        cluster: sources.summary.cluster.clone(),
        partitions: gathered.iter().map(PartitionEntry::from).collect(),
        files,
    };
    finish(env, partial, &manifest)?;
    Ok(manifest)
}

/// The list last, then the proof.
fn finish(env: &Env, partial: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let fs = &*env.fs;
    let path = partial.join(NAME);
    let encoded = manifest.encode().map_err(std::io::Error::other);
    let encoded = encoded.map_err(io_error("encode", &path))?;
    let file = fs.create(&path).map_err(io_error("create", &path))?;
    file.write_all_at(&encoded, 0).map_err(io_error("write", &path))?;
    file.sync().map_err(io_error("sync", &path))?;
    sync_folders(fs, partial, manifest.files.iter().map(|file| file.name.as_str()))?;
    let faults = verify::logs(env, partial, manifest, &mut |_| {})?;
    let Some(fault) = faults.first() else { return Ok(()) };
    let why = format!("the log is damaged, so no backup is taken: {fault}; see `garam log verify`");
    Err(LogError::Invalid { why }.into())
}

fn parent_of(target: &Path) -> &Path {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn refuse_existing(env: &Env, target: &Path) -> Result<(), BackupError> {
    let listed = env.fs.list(parent_of(target)).map_err(io_error("list", target))?;
    let name = target.file_name().map(|name| name.to_string_lossy());
    let taken = name.is_none_or(|name| listed.iter().any(|listed| listed.name == name));
    if taken { Err(BackupError::Exists(target.into())) } else { Ok(()) }
}

/// The log: quarantines first, each input from the slowest cursor on, quarantines whole.
fn gather(env: &Env, sources: &Sources) -> Result<Vec<offline::Gathered>, BackupError> {
    if env.fs.list(&sources.log).map_err(io_error("list", &sources.log))?.is_empty() {
        return Ok(Vec::new());
    }
    let all = inspect::partitions_with(env, &sources.log)?;
    let (quarantines, inputs): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|partition| partition.stream.as_str().starts_with('_'));
    let cursors = &sources.summary.cursors;
    let slowest = |partition: &PartitionId| {
        let stream = partition.stream.as_str();
        let mine = cursors.iter().filter(|c| c.stream == stream && c.partition == partition.index);
        // A pipeline that has no cursor here yet needs everything.
        let readers = sources.summary.pipelines.iter().filter(|reads| *reads == stream).count();
        let all_known = mine.clone().count() >= readers;
        let slowest = mine.map(|cursor| cursor.next).min().filter(|_| all_known);
        slowest.unwrap_or(LogOffset::ZERO)
    };
    Ok(offline::gather(env, &sources.log, [&quarantines, &inputs], &slowest)?)
}

struct Small {
    name: String,
    path: PathBuf,
    bytes: u64,
}

fn small_files(env: &Env, sources: &Sources) -> Result<Vec<Small>, BackupError> {
    let fs = &*env.fs;
    let mut named = vec![("meta.db".to_owned(), sources.meta.clone())];
    for name in files_below(fs, &sources.pki)? {
        // Half-written replacements count for nothing.
        if !name.ends_with(".new") {
            named.push((format!("pki/{name}"), sources.pki.join(name)));
        }
    }
    let mut small = Vec::new();
    for (name, path) in named {
        let bytes = open(fs, &path)?.size().map_err(io_error("read", &path))?;
        small.push(Small { name, path, bytes });
    }
    Ok(small)
}

impl From<&offline::Gathered> for PartitionEntry {
    fn from(gathered: &offline::Gathered) -> Self {
        Self {
            stream: gathered.partition.stream.to_string(),
            partition: gathered.partition.index,
            incarnation: gathered.incarnation.to_string(),
            start: gathered.start.0,
            end: gathered.end.0,
        }
    }
}
