//! Plain bytes by position, wherever they come from: a file as it is, or what a compressed one holds.
//!
//! In: a position. Out: bytes, and the hash of the ≤ 4 KiB before it. Not here: files ([`super::plain`]), decompression
//! ([`super::packed`]), lines ([`super::reader`]).

use std::io;

use garam_proto::hash::{TAIL_BYTES, tail_hash};

use crate::source::Tail;

pub(super) trait Bytes {
    /// Fills `buffer` from `offset` on as far as the content reaches; returns how far.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How long the content is.
    fn size(&self) -> io::Result<u64>;

    /// The ≤ 4 KiB before a position, or `None` when the content ends before it.
    fn before(&self, position: u128) -> io::Result<Option<Vec<u8>>> {
        let position = offset(position)?;
        let len = position.min(TAIL_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(TAIL_BYTES)];
        let read = self.read_at(&mut bytes, position - len)?;
        Ok((read == bytes.len()).then_some(bytes))
    }

    fn check_tail(&self, position: u128, tail: u64) -> io::Result<Tail> {
        Ok(match self.before(position)? {
            None => Tail::TooShort,
            Some(bytes) if tail_hash(&bytes) == tail => Tail::Same,
            Some(_) => Tail::Differs,
        })
    }

    fn tail_hash(&self, position: u128) -> io::Result<u64> {
        let bytes =
            self.before(position)?.ok_or_else(|| io::Error::other("the file is shorter"))?;
        Ok(tail_hash(&bytes))
    }
}

pub(super) fn offset(position: u128) -> io::Result<u64> {
    u64::try_from(position).map_err(|_| io::Error::other("position is beyond any file"))
}
