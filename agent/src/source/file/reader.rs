//! One open file: what it looks like now, and the block at a position.
//!
//! In: a position and the hash of the ≤ 4 KiB before it. Out: a block's bytes in the caller's buffer.
//! Promise: the bytes before the block are compared *after* the block was read, so a truncation in between is seen, and a
//! position is never continued in other content. Memory: the caller's buffer, at most one `max_record`; a line still
//! growing is searched through a fixed scratch and never twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garam_proto::block::{CONTINUES, UNTERMINATED};
use garam_proto::hash::{HEAD_BYTES, TAIL_BYTES, head_hash, tail_hash};
use garam_proto::message::GapReason;
use garam_proto::{BlockKind, FileDescriptor};

use super::{Key, identity};
use crate::block::{Decision, decide, tail_after};
use crate::source::{Cut, CutLimits, Look, Read, Seen, Tail};

/// From this mark on a tail hash covers its full 4 KiB.
pub(super) const FULL_TAIL: u128 = TAIL_BYTES as u128;
const SCRATCH: usize = 64 * 1024;

pub(super) struct OpenFile {
    file: File,
    key: Key,
    file_system: u64,
    birth_ns: Option<i64>,
    modified_ns: i128,
    path: PathBuf,
    sighted_as: Option<PathBuf>,
    left_since: Option<Instant>,
    /// Size and times at the last look whose tail was found right.
    stamp: Option<Stamp>,
    /// No newline in `[0, 1)` of a line longer than a block that is still being searched.
    searched: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl OpenFile {
    /// Opens a regular file; `None` when something else took its place meanwhile.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        // Should a FIFO take the path between the look and the open, the agent must not hang in it.
        let nonblock = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(nonblock.bits()).unwrap_or(0))
            .open(path)?;
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
            file,
            path: path.into(),
            sighted_as: None,
            left_since: None,
            stamp: None,
            searched: None,
        }))
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
        let head = identity::head(&self.file, HEAD_BYTES)?;
        Ok(FileDescriptor {
            path: self.path.as_os_str().as_encoded_bytes().to_vec(),
            file_system: self.file_system,
            inode: self.key.1,
            birth_ns: self.birth_ns,
            head_len: u32::try_from(head.len()).unwrap_or(u32::MAX),
            head_hash: head_hash(&head),
        })
    }

    pub(super) fn head_matches(&self, registered: &FileDescriptor) -> io::Result<bool> {
        identity::head_matches(&self.file, registered)
    }

    /// Where the last line that is not complete yet begins: the place to start at "the end".
    pub(super) fn last_line_start(&self) -> io::Result<u128> {
        let size = self.file.metadata()?.len();
        let from = size.saturating_sub(SCRATCH as u64);
        let mut last = vec![0; usize::try_from(size - from).unwrap_or(SCRATCH)];
        let read = identity::read_full(&self.file, &mut last, from)?;
        let newline = memchr::memrchr(b'\n', &last[..read]).map(|at| from + at as u64 + 1);
        Ok(u128::from(newline.unwrap_or(if from == 0 { 0 } else { size })))
    }

    pub(super) fn look(&mut self, position: u128, tail: u64, hold: Duration) -> io::Result<Seen> {
        let metadata = self.file.metadata()?;
        let end = u128::from(metadata.len());
        let stamp = Stamp {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if end < position {
            return Ok(Seen::Broken(GapReason::Truncated));
        }
        if self.stamp != Some(stamp) {
            if self.check_tail(position, tail)? != Tail::Same {
                return Ok(Seen::Broken(GapReason::Truncated));
            }
            self.stamp = Some(stamp);
        }
        let left = self.left_since.is_some_and(|since| since.elapsed() >= hold);
        Ok(Seen::Live(Look { end, unlinked: metadata.nlink() == 0, left }))
    }

    /// The ≤ 4 KiB before a position, or `None` when the file ends before it.
    fn before(&self, position: u128) -> io::Result<Option<Vec<u8>>> {
        let position = offset(position)?;
        let len = position.min(TAIL_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(TAIL_BYTES)];
        let read = identity::read_full(&self.file, &mut bytes, position - len)?;
        Ok((read == bytes.len()).then_some(bytes))
    }

    pub(super) fn check_tail(&self, position: u128, tail: u64) -> io::Result<Tail> {
        Ok(match self.before(position)? {
            None => Tail::TooShort,
            Some(bytes) if tail_hash(&bytes) == tail => Tail::Same,
            Some(_) => Tail::Differs,
        })
    }

    pub(super) fn tail_hash(&self, position: u128) -> io::Result<u64> {
        let bytes =
            self.before(position)?.ok_or_else(|| io::Error::other("the file is shorter"))?;
        Ok(tail_hash(&bytes))
    }

    pub(super) fn read(
        &mut self,
        position: u128,
        tail: u64,
        limits: &CutLimits,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Read> {
        let from = offset(position)?;
        // Not cleared first: only what the last block cut off is zeroed again.
        buffer.resize(limits.block_size, 0);
        let read = identity::read_full(&self.file, buffer, from)?;
        let mut before = [0u8; 1];
        let continues = from > 0
            && identity::read_full(&self.file, &mut before, from - 1)? == 1
            && before != *b"\n";
        let full = read == limits.block_size;
        let decision = decide(&buffer[..read], continues, full, limits.flush);
        let (len, flags) = match decision {
            Decision::Nothing => return self.unless_broken(position, tail, Read::Nothing),
            Decision::Cut { len, flags } => (len, flags),
            Decision::Grow => match self.find_end(from, read, limits)? {
                None => return self.unless_broken(position, tail, Read::Nothing),
                Some((len, flags)) => {
                    buffer.resize(len, 0);
                    let got =
                        identity::read_full(&self.file, &mut buffer[read..], from + read as u64)?;
                    if read + got < len {
                        return self.unless_broken(position, tail, Read::Nothing);
                    }
                    (len, flags)
                }
            },
        };
        self.searched = None;
        buffer.truncate(len);
        let Some(before) = self.before(position)?.filter(|b| tail_hash(b) == tail) else {
            return Ok(Read::Broken(GapReason::Truncated));
        };
        let flags = match before.last() {
            Some(b'\n') | None => flags & !CONTINUES,
            Some(_) => flags | CONTINUES,
        };
        Ok(Read::Block(Cut {
            to: position + len as u128,
            kind: BlockKind::Lines,
            flags,
            tail_hash: tail_after(&before, buffer),
            resume: None,
            records: None,
        }))
    }

    fn unless_broken(&self, position: u128, tail: u64, otherwise: Read) -> io::Result<Read> {
        Ok(match self.check_tail(position, tail)? {
            Tail::Same => otherwise,
            Tail::Differs | Tail::TooShort => Read::Broken(GapReason::Truncated),
        })
    }

    /// Searches the end of a line that fills a whole block: its length, `max_record` when it is longer, `None` when the
    /// file ends before either.
    fn find_end(
        &mut self,
        from: u64,
        known: usize,
        limits: &CutLimits,
    ) -> io::Result<Option<(usize, u8)>> {
        let longest = from + limits.max_record.max(limits.block_size) as u64;
        let mut at = match self.searched {
            Some((start, searched)) if start == from => searched.max(from + known as u64),
            _ => from + known as u64,
        };
        let mut scratch = vec![0; SCRATCH];
        // One byte further than the longest record: its newline may stand there.
        while at <= longest {
            let want = usize::try_from(longest + 1 - at).unwrap_or(SCRATCH).min(SCRATCH);
            let read = identity::read_full(&self.file, &mut scratch[..want], at)?;
            if let Some(newline) = memchr::memchr(b'\n', &scratch[..read]) {
                let len = at + newline as u64 + 1 - from;
                return Ok(Some((usize::try_from(len).unwrap_or(usize::MAX), 0)));
            }
            at += read as u64;
            self.searched = Some((from, at));
            if read < want {
                let all = usize::try_from(at - from).unwrap_or(usize::MAX);
                return Ok(limits.flush.then_some((all, UNTERMINATED)));
            }
        }
        Ok(Some((limits.max_record.max(limits.block_size), UNTERMINATED)))
    }
}

fn offset(position: u128) -> io::Result<u64> {
    u64::try_from(position).map_err(|_| io::Error::other("position is beyond any file"))
}
