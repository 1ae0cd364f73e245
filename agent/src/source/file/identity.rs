//! What a file is: the key inside this process and the descriptor that outlives it.
//!
//! In: a path or an open file. Out: `(st_dev, st_ino)`, or a [`FileDescriptor`] with the file system's own id, inode,
//! birth time and head. Promise: nothing but a regular file gets a key, and looking never blocks (no open).

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use garam_proto::FileDescriptor;
use garam_proto::hash::{HEAD_BYTES, head_hash};

use super::Key;

/// The regular file at `path`, links followed; `None` for anything else.
pub(super) fn file_at(path: &Path) -> io::Result<Option<Metadata>> {
    let metadata = std::fs::metadata(path)?;
    Ok(metadata.is_file().then_some(metadata))
}

pub(super) fn key(metadata: &Metadata) -> Key {
    (metadata.dev(), metadata.ino())
}

/// Birth time in nanoseconds since the epoch, where the file system has it.
pub(super) fn birth_ns(metadata: &Metadata) -> Option<i64> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok().filter(|&ns| ns > 0)
}

/// The file system's own id, which survives a reboot, unlike `st_dev`.
pub(super) fn file_system(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstatvfs(file)?.f_fsid)
}

/// The first bytes of a file, at most `len`.
pub(super) fn head(file: &File, len: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; len.min(HEAD_BYTES)];
    let read = read_full(file, &mut head, 0)?;
    head.truncate(read);
    Ok(head)
}

/// Whether the file still begins as it was registered.
pub(super) fn head_matches(file: &File, registered: &FileDescriptor) -> io::Result<bool> {
    let wanted = registered.head_len as usize;
    let head = head(file, wanted)?;
    Ok(head.len() == wanted && head_hash(&head) == registered.head_hash)
}

/// Whether the name says that the file is compressed.
pub(super) fn has_packed_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "zst")
}

/// The first bytes of a regular file, as many as tell what it is; `None` when something else lies there now.
pub(super) fn begin(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = super::plain::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    head(&file, 4).map(Some)
}

/// Whether a name says that this may be a later form of the other: `app.log.1.gz` of `app.log`, `app-2026-11-27.gz` of `app`.
pub(super) fn is_kin(later: &Path, original: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.as_bytes().to_vec());
    let (Some(later), Some(original)) = (name(later), name(original)) else { return false };
    let stem = original.split(|byte| *byte == b'.').next().unwrap_or_default();
    later.starts_with(stem)
}

/// The name a file had before it was rotated and compressed: `app.log` of `app.log.1.gz` and of `app.log-20261127.zst`.
pub(super) fn unrotated(path: &Path) -> PathBuf {
    let plain = if has_packed_name(path) { path.with_extension("") } else { path.to_path_buf() };
    let name = plain.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let is_number = |byte: &u8| byte.is_ascii_digit() || b".-_:".contains(byte);
    let len = name.iter().rposition(|byte| !is_number(byte)).map_or(0, |last| last + 1);
    match name.get(..len) {
        Some(base) if !base.is_empty() => plain.with_file_name(OsStr::from_bytes(base)),
        _ => plain,
    }
}

/// Files beside `original` whose names say that they may be compressed copies of it.
pub(super) fn packed_kin(original: &Path) -> Vec<PathBuf> {
    let entries = original.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut kin: Vec<PathBuf> =
        paths.filter(|path| has_packed_name(path) && is_kin(path, original)).collect();
    kin.sort_unstable();
    kin
}

pub(super) fn path_of(descriptor: &FileDescriptor) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&descriptor.path))
}

/// Whether the folder a file was registered in can be read and is on the same file system.
pub(super) fn folder_is_there(wanted: &FileDescriptor) -> bool {
    let path = path_of(wanted);
    let Some(folder) = path.parent() else { return false };
    rustix::fs::statvfs(folder).is_ok_and(|stat| stat.f_fsid == wanted.file_system)
        && std::fs::read_dir(folder).is_ok()
}

/// Looks for a file by its inode in the folder it was registered in: where a rotation usually leaves it.
pub(super) fn find_sibling(wanted: &FileDescriptor, path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    if rustix::fs::statvfs(folder).ok()?.f_fsid != wanted.file_system {
        return None;
    }
    sibling_by_inode(wanted.inode, wanted.birth_ns, path)
}

/// The regular file with this inode and birth time in the folder of `path`.
pub(super) fn sibling_by_inode(inode: u64, birth: Option<i64>, path: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.ino() == inode)
        .map(|entry| entry.path())
        .find(|path| {
            std::fs::symlink_metadata(path)
                .is_ok_and(|found| found.is_file() && birth_ns(&found) == birth)
        })
}

/// Fills `buffer` from `offset` as far as the file reaches.
pub(super) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether both describe one file on one file system. Without birth times the path must agree too, and only the agent's
/// own checkpoint is believed: an inode alone is reused too easily.
pub(super) fn same_file(registered: &FileDescriptor, now: &FileDescriptor, own: bool) -> bool {
    if registered.file_system != now.file_system || registered.inode != now.inode {
        return false;
    }
    match (registered.birth_ns, now.birth_ns) {
        (Some(then), Some(now)) => then == now,
        _ => own && registered.path == now.path,
    }
}
