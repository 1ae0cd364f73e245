//! One open file as plain bytes: which file it is, what it looks like now, what stands where.
//!
//! In: a path, then positions. Out: bytes, the ≤ 4 KiB before a position and their hash, size and links as of now.
//! Promise: once opened it stays the same file, whatever happens to its name. To save descriptors it may be *parked*:
//! closed, watched by its path, and opened again only if inode and birth time are still the same.
//! Not here: lines and records ([`super::reader`]), which files are open ([`super`]).

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use garam_proto::FileDescriptor;
use garam_proto::hash::{HEAD_BYTES, TAIL_BYTES, head_hash};
use garam_proto::message::GapReason;

use super::bytes::Bytes;
use super::{Key, identity};
use crate::source::spool::Spool;
use crate::source::{Look, Seen, Tail};

/// From this mark on a tail hash covers its full 4 KiB.
pub(super) const FULL_TAIL: u128 = TAIL_BYTES as u128;

pub(super) struct PlainFile {
    /// `None` while parked.
    file: Option<File>,
    key: Key,
    file_system: u64,
    birth_ns: Option<i64>,
    modified_ns: i128,
    path: PathBuf,
    sighted_as: Option<PathBuf>,
    left_since: Option<Instant>,
    /// Size and times at the last look whose tail was found right.
    stamp: Option<Stamp>,
    /// Size when it was parked.
    parked_size: u64,
    /// How far it had been read at the last look.
    read_to: u128,
    unlinked: bool,
    /// Of a segment the spool says how far it may be read.
    segment: Option<(Arc<Spool>, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl PlainFile {
    /// Opens a regular file; `None` when something else took its place meanwhile.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(Self {
            key: identity::key(&metadata),
            file_system: identity::file_system(&file)?,
            birth_ns: identity::birth_ns(&metadata),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            file: Some(file),
            path: path.into(),
            sighted_as: None,
            left_since: None,
            stamp: None,
            parked_size: 0,
            read_to: 0,
            unlinked: false,
            segment: None,
        }))
    }

    pub(super) fn is_parked(&self) -> bool {
        self.file.is_none()
    }

    /// Whether everything in it was read, so that closing it can lose nothing that was seen.
    pub(super) fn is_idle(&self) -> bool {
        self.stamp.is_some_and(|stamp| u128::from(stamp.size) <= self.read_to)
    }

    /// Whether it can be found again by its name.
    pub(super) fn has_name(&self) -> bool {
        !self.unlinked && self.left_since.is_none()
    }

    /// Closes the descriptor until [`PlainFile::unpark`].
    pub(super) fn park(&mut self) {
        if let Some(file) = self.file.take() {
            self.parked_size = file.metadata().map_or(0, |metadata| metadata.len());
        }
    }

    /// Opens the file again, under its own name or under the one a rotation gave it in the same folder.
    pub(super) fn unpark(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let path = self.find().ok_or(io::ErrorKind::NotFound)?;
        let file = open(&path)?;
        if !self.is_it(&file.metadata()?) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.file = Some(file);
        Ok(())
    }

    /// Where the parked file is now.
    fn find(&self) -> Option<PathBuf> {
        if std::fs::metadata(&self.path).is_ok_and(|found| self.is_it(&found)) {
            return Some(self.path.clone());
        }
        let found = identity::sibling_by_inode(self.key.1, self.birth_ns, &self.path)?;
        std::fs::metadata(&found).is_ok_and(|now| self.is_it(&now)).then_some(found)
    }

    pub(super) fn is_it(&self, metadata: &Metadata) -> bool {
        metadata.is_file()
            && identity::key(metadata) == self.key
            && identity::birth_ns(metadata) == self.birth_ns
    }

    /// What the name tells about a parked file; `None` when it has changed and must be opened to know more.
    pub(super) fn glance(&mut self, hold: Duration) -> Option<Look> {
        let end = u128::from(self.parked_size);
        match std::fs::metadata(&self.path) {
            Ok(found) if self.is_it(&found) => {
                let same = self.stamp == Some(Stamp::of(&found));
                let left = self.left_since.is_some_and(|since| since.elapsed() >= hold);
                same.then_some(Look { end, unlinked: false, left, ended: self.has_ended() })
            }
            _ if self.find().is_some() => None,
            // Gone: it ends like any unlinked file, with what was seen of it.
            _ => {
                self.unlinked = true;
                let since = *self.left_since.get_or_insert_with(Instant::now);
                Some(Look { end, unlinked: true, left: since.elapsed() >= hold, ended: false })
            }
        }
    }

    /// How long it is, or was when it was last open.
    pub(super) fn size_seen(&self) -> u64 {
        self.size().unwrap_or(self.parked_size)
    }

    /// Whether nothing links to it any more, and whether it left its place long enough ago, without a look at its content.
    pub(super) fn links(&mut self, hold: Duration) -> io::Result<(bool, bool)> {
        self.unlinked = match &self.file {
            Some(file) => file.metadata()?.nlink() == 0,
            None => self.find().is_none(),
        };
        if self.unlinked {
            self.left_since.get_or_insert_with(Instant::now);
        }
        Ok((self.unlinked, self.left_since.is_some_and(|since| since.elapsed() >= hold)))
    }

    /// Whether it looks other than at the last look, by what a search saw of it.
    pub(super) fn has_changed(&self, found: &Metadata) -> bool {
        self.stamp != Some(Stamp::of(found))
    }

    pub(super) fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the file is parked"))
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// When the file was born, or else last written when it was opened.
    pub(super) fn age(&self) -> i128 {
        self.birth_ns.map_or(self.modified_ns, i128::from)
    }

    /// Tells files of one age apart: when it was last written as it was opened, then the inode, which file systems mostly
    /// give out in growing order.
    pub(super) fn tie(&self) -> (i128, u64) {
        (self.modified_ns, self.key.1)
    }

    pub(super) fn begin_search(&mut self) {
        self.sighted_as = None;
    }

    /// A search found the file under this path. Of several names the present one is kept.
    pub(super) fn sighted(&mut self, path: &Path) {
        if self.sighted_as.is_none() || path == self.path {
            self.sighted_as = Some(path.into());
        }
    }

    pub(super) fn end_search(&mut self, now: Instant) {
        match self.sighted_as.take() {
            Some(path) => {
                self.path = path;
                self.left_since = None;
            }
            None => {
                self.left_since.get_or_insert(now);
            }
        }
    }

    pub(super) fn describe(&self) -> io::Result<FileDescriptor> {
        Ok(self.describe_as(&identity::head(self.file()?, HEAD_BYTES)?))
    }

    /// The descriptor of a content that begins so.
    pub(super) fn describe_as(&self, head: &[u8]) -> FileDescriptor {
        FileDescriptor {
            path: self.path.as_os_str().as_encoded_bytes().to_vec(),
            file_system: self.file_system,
            inode: self.key.1,
            birth_ns: self.birth_ns,
            head_len: u32::try_from(head.len()).unwrap_or(u32::MAX),
            head_hash: head_hash(head),
        }
    }

    pub(super) fn head_matches(&self, registered: &FileDescriptor) -> io::Result<bool> {
        identity::head_matches(self.file()?, registered)
    }

    /// It is a segment of a spool.
    pub(super) fn belong_to(&mut self, spool: Arc<Spool>, number: u64) {
        self.segment = Some((spool, number));
    }

    pub(super) fn segment(&self) -> Option<(&Spool, u64)> {
        self.segment.as_ref().map(|(spool, number)| (&**spool, *number))
    }

    /// Whether nothing is ever written to it any more.
    fn has_ended(&self) -> bool {
        self.segment().is_some_and(|(spool, number)| spool.is_closed(number))
    }

    /// As much of so many bytes as may be read.
    fn visible(&self, bytes: u64) -> u64 {
        self.segment().map_or(bytes, |(spool, number)| bytes.min(spool.readable(number)))
    }

    pub(super) fn look(&mut self, position: u128, tail: u64, hold: Duration) -> io::Result<Seen> {
        let metadata = self.file()?.metadata()?;
        let end = u128::from(self.visible(metadata.len()));
        let stamp = Stamp::of(&metadata);
        self.read_to = position;
        self.unlinked = metadata.nlink() == 0;
        if end < position {
            return Ok(Seen::Broken(GapReason::Truncated));
        }
        if self.stamp != Some(stamp) {
            if self.check_tail(position, tail)? != Tail::Same {
                return Ok(Seen::Broken(GapReason::Truncated));
            }
            // Of a segment that is not all synced there is more to see soon.
            self.stamp = (end == u128::from(metadata.len())).then_some(stamp);
        }
        let left = self.left_since.is_some_and(|since| since.elapsed() >= hold);
        let ended = self.has_ended();
        Ok(Seen::Live(Look { end, unlinked: self.unlinked, left, ended }))
    }
}

impl Bytes for PlainFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(self.visible(u64::MAX).saturating_sub(offset));
        let want = rest.unwrap_or(usize::MAX).min(buffer.len());
        identity::read_full(self.file()?, buffer.get_mut(..want).unwrap_or_default(), offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.visible(self.file()?.metadata()?.len()))
    }
}

/// Opens for reading. Should a FIFO take the path between the look and the open, the agent must not hang in it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(nonblock.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
