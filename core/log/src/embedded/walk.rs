//! Walks the entries of one segment file forward, checking each before it is shown.
//!
//! In: an open file, the segment's salt, a byte position, and how many bytes may be read. Out: prefix, header and payload
//! of the next entry, or where and why there is none. Promise: nothing is shown whose checksums differ; at most one read
//! buffer (or one entry, if that is larger) is held. Payloads are slices of that buffer, except small ones, which are
//! copied so that a record of 100 bytes does not keep a mebibyte alive.
//! Not here: whether an entry follows from those before it (`fold`), what may be read (`shared`, `recovery`).

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use garam_disk::DiskFile;

use super::entry::{PREFIX_LEN, Prefix};

/// How much is read ahead: one of the largest usual blocks with its entry's head, and the beginning of the next.
const READ_AHEAD: usize = (1024 + 64) * 1024;
/// Payloads up to this are copied out of the read buffer.
const COPY_UP_TO: usize = 16 * 1024;

/// A position in a segment file.
pub(crate) struct Walk {
    file: Arc<dyn DiskFile>,
    salt: u64,
    /// Where the next entry begins.
    at: u64,
    buffer: Bytes,
    buffer_at: u64,
}

/// An entry whose header is good (and its payload, when it was asked for).
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub at: u64,
    pub prefix: Prefix,
    pub header: Bytes,
    /// Empty when the payload was skipped.
    pub payload: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error("byte {at}: {why}")]
    Broken { at: u64, why: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Walk {
    pub(crate) fn new(file: Arc<dyn DiskFile>, salt: u64, at: u64) -> Self {
        Self { file, salt, at, buffer: Bytes::new(), buffer_at: 0 }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// The next entry below byte `limit`, or `None` exactly at `limit`. After an error the position is unchanged.
    pub(crate) fn step(
        &mut self,
        limit: u64,
        with_payload: bool,
    ) -> Result<Option<Found>, WalkError> {
        if self.at >= limit {
            return Ok(None);
        }
        let at = self.at;
        let broken = |why: &str| WalkError::Broken { at, why: why.into() };
        let bytes = self.fetch(PREFIX_LEN, limit)?;
        let prefix = Prefix::parse(&bytes).map_err(broken)?;
        if prefix.total_len() > limit - at {
            return Err(broken("the entry reaches beyond the end of the segment"));
        }
        let head_len = PREFIX_LEN + prefix.header_len as usize;
        let head = self.fetch(head_len, limit)?;
        let header = head.slice(PREFIX_LEN..);
        if !prefix.covers(self.salt, &bytes, &header) {
            return Err(broken("the entry's checksum differs"));
        }
        let mut payload = Bytes::new();
        if with_payload {
            let all = self.fetch(head_len + prefix.payload_len as usize, limit)?;
            payload = unpinned(all.slice(head_len..));
            if crc32c::crc32c(&payload) != prefix.payload_crc {
                return Err(broken("the payload's checksum differs"));
            }
        }
        self.at += prefix.total_len();
        Ok(Some(Found { at, prefix, header, payload }))
    }

    /// Reads and checks the payload of an entry that was stepped over.
    pub(crate) fn payload_of(&self, found: &Found) -> Result<Bytes, WalkError> {
        let start = found.at + PREFIX_LEN as u64 + u64::from(found.prefix.header_len);
        let payload = read(&*self.file, start, &[], found.prefix.payload_len as usize)?;
        if payload.len() != found.prefix.payload_len as usize
            || crc32c::crc32c(&payload) != found.prefix.payload_crc
        {
            let why = "the payload's checksum differs".into();
            return Err(WalkError::Broken { at: found.at, why });
        }
        Ok(payload)
    }

    /// `len` bytes from the position on, without moving it.
    pub(crate) fn fetch(&mut self, len: usize, limit: u64) -> Result<Bytes, WalkError> {
        if let Some(bytes) = self.buffered(len) {
            return Ok(bytes);
        }
        let allowed = usize::try_from(limit.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let known = self.rest();
        self.buffer = read(&*self.file, self.at, &known, len.max(READ_AHEAD).min(allowed))?;
        self.buffer_at = self.at;
        self.buffered(len).ok_or_else(|| WalkError::Broken {
            at: self.at,
            why: "the segment is cut short".into(),
        })
    }

    /// What the buffer holds from the position on.
    fn rest(&self) -> Bytes {
        let start = self.at.checked_sub(self.buffer_at).and_then(|at| usize::try_from(at).ok());
        let start = start.filter(|start| *start <= self.buffer.len());
        start.map_or_else(Bytes::new, |start| self.buffer.slice(start..))
    }

    fn buffered(&self, len: usize) -> Option<Bytes> {
        let rest = self.rest();
        (len <= rest.len()).then(|| rest.slice(..len))
    }
}

/// Reads up to `len` bytes, of which the first are `known`; fewer only at the end of the file.
fn read(file: &dyn DiskFile, at: u64, known: &[u8], len: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(len.max(known.len()));
    bytes.extend_from_slice(known);
    bytes.resize(len.max(known.len()), 0);
    let mut filled = known.len();
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.freeze())
}

fn unpinned(payload: Bytes) -> Bytes {
    if payload.len() > COPY_UP_TO { payload } else { Bytes::copy_from_slice(&payload) }
}
