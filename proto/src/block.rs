//! A block: the unit that is shipped, logged and acknowledged. A run of bytes of one origin, `[from, to)`.
//!
//! ```text
//! kind lines      payload = the source range byte for byte; records are split at '\n', which is not part of them;
//!                 to - from = raw_len; position of a record = offset of its first byte in the source
//! kind records    payload = ( delta | len | bytes )*   delta, len: unsigned LEB128 (delta up to 128 bits, len 32)
//!                 position of a record = position before it + delta, the first counted from `from`;
//!                 every position lies in [from, to) and none is smaller than the one before it
//! ```
//!
//! A block begins exactly at its origin's mark and ends at a record's end, except where [`UNTERMINATED`] says that the
//! last record goes on (a line longer than `max_record`, cut) and [`CONTINUES`] that the first one began earlier.
//! Counts and lengths in the header are claims of the sender until [`records`] has walked the payload.

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::{Codec, DecodeError, DecodeLimits};
use crate::ids::{OriginId, SessionId};

/// The first record of the block began in the block before.
pub const CONTINUES: u8 = 1;
/// The last record of the block has no end yet: it was cut at `max_record`, or flushed incomplete.
pub const UNTERMINATED: u8 = 2;

/// The longest resume token in bytes.
pub const RESUME_MAX: usize = 64 * 1024;
/// The most records of one block: as many as 1 MiB of empty lines. A sender cuts earlier rather than claim more, so
/// that a small payload of very many tiny records cannot fill the reader's memory.
pub const MAX_RECORDS: u32 = 1 << 20;

/// What a payload is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum BlockKind {
    Lines,
    Records,
}

/// Everything about a block but its bytes. On the wire and in the log alike; the receiver overwrites
/// `origin.agent` (from the certificate), `session` and `ingest_time_us`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BlockHeader {
    pub origin: OriginId,
    /// The session whose claim this block was sent under.
    pub session: SessionId,
    pub from: u128,
    pub to: u128,
    pub records: u32,
    pub kind: BlockKind,
    pub flags: u8,
    pub codec: Codec,
    pub raw_len: u32,
    pub payload_len: u32,
    /// CRC32C of the payload as sent.
    pub payload_crc: u32,
    /// Wall clock of the gateway at arrival, microseconds since the epoch; data on replay. 0 on the wire.
    pub ingest_time_us: i64,
    /// Hash of the ≤ 4 KiB of source bytes before `to`.
    pub tail_hash: u64,
    /// Where reading must restart after this block, when that changed. Opaque to the core.
    pub resume: Option<Vec<u8>>,
}

/// A header that contradicts itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadBlock {
    #[error("block range [{from}, {to}) is empty or backwards")]
    Range { from: u128, to: u128 },
    #[error("lines of {raw_len} bytes claim a source range of {range} bytes")]
    RangeLength { raw_len: u32, range: u128 },
    #[error("resume token of {len} bytes is above {RESUME_MAX}")]
    Resume { len: usize },
    #[error("payload checksum differs: header says {expected:08x}, bytes give {found:08x}")]
    Checksum { expected: u32, found: u32 },
    #[error(transparent)]
    Sizes(#[from] DecodeError),
    #[error("unknown block flags {0:#x}")]
    Flags(u8),
    #[error("block claims {0} records, at most {MAX_RECORDS} are allowed")]
    Records(u32),
}

impl BlockHeader {
    /// Whether the declared sizes agree with each other and with the limits. Cheap: payload bytes are not touched.
    pub fn check(&self, limits: &DecodeLimits) -> Result<(), BadBlock> {
        if self.to <= self.from {
            return Err(BadBlock::Range { from: self.from, to: self.to });
        }
        if self.flags & !(CONTINUES | UNTERMINATED) != 0 {
            return Err(BadBlock::Flags(self.flags));
        }
        if self.records > MAX_RECORDS {
            return Err(BadBlock::Records(self.records));
        }
        let range = self.to - self.from;
        if self.kind == BlockKind::Lines && range != u128::from(self.raw_len) {
            return Err(BadBlock::RangeLength { raw_len: self.raw_len, range });
        }
        if let Some(len) = self.resume.as_ref().map(Vec::len).filter(|&len| len > RESUME_MAX) {
            return Err(BadBlock::Resume { len });
        }
        limits.check(self.codec, self.raw_len, self.payload_len)?;
        Ok(())
    }

    /// Whether these are the payload bytes the header was made for.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), BadBlock> {
        let found = crc32c::crc32c(payload);
        if payload.len() != self.payload_len as usize || found != self.payload_crc {
            return Err(BadBlock::Checksum { expected: self.payload_crc, found });
        }
        Ok(())
    }
}

/// One record of a block, borrowing nothing: a cheap slice of the decoded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number inside the block, from 0.
    pub index: u32,
    pub position: u128,
    pub bytes: Bytes,
    /// The record is a piece of a longer one: it began earlier or goes on.
    pub partial: bool,
}

/// A decoded payload that does not walk as its header says: the whole block goes to quarantine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRecords {
    #[error("record {index} at byte {at}: {why}")]
    Torn { index: u32, at: usize, why: &'static str },
    #[error("header claims {claimed} records, payload holds {found}")]
    Count { claimed: u32, found: u32 },
}

/// Splits a decoded payload into its records, or says why the block as a whole cannot be trusted. Memory is taken for
/// as many records as the header claims, and only once the payload has shown that it could hold them.
pub fn records(header: &BlockHeader, raw: &Bytes) -> Result<Vec<Record>, BadRecords> {
    match header.kind {
        BlockKind::Lines => split_lines(header, raw),
        BlockKind::Records => split_records(header, raw),
    }
}

/// How many records a run of lines holds: its newlines, plus one for a last line without one.
pub fn count_lines(raw: &[u8]) -> u32 {
    let newlines = memchr::memchr_iter(b'\n', raw).count();
    let open_end = usize::from(raw.last().is_some_and(|&b| b != b'\n'));
    u32::try_from(newlines + open_end).unwrap_or(u32::MAX)
}

fn split_lines(header: &BlockHeader, raw: &Bytes) -> Result<Vec<Record>, BadRecords> {
    let found = count_lines(raw);
    if found != header.records {
        return Err(BadRecords::Count { claimed: header.records, found });
    }
    let mut records = Vec::with_capacity(found as usize);
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', raw)
        .chain(raw.last().filter(|&&b| b != b'\n').map(|_| raw.len()));
    for (index, end) in ends.enumerate() {
        records.push(Record {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            position: header.from.saturating_add(start as u128),
            bytes: raw.slice(start..end),
            partial: index == 0 && header.flags & CONTINUES != 0,
        });
        start = end + 1;
    }
    if header.flags & UNTERMINATED != 0
        && let Some(last) = records.last_mut()
    {
        last.partial = true;
    }
    Ok(records)
}

fn split_records(header: &BlockHeader, raw: &Bytes) -> Result<Vec<Record>, BadRecords> {
    // A record takes at least its delta and its length: two bytes.
    let mut records = Vec::with_capacity((header.records as usize).min(raw.len() / 2));
    let mut found = 0u32;
    let mut at = 0usize;
    let mut position = header.from;
    while at < raw.len() {
        let index = found;
        let torn = |why| BadRecords::Torn { index, at, why };
        let rest = raw.get(at..).unwrap_or_default();
        let (delta, a) =
            read_varint(rest).ok_or_else(|| torn("position delta is cut or too long"))?;
        let (len, b) = read_varint(rest.get(a..).unwrap_or_default())
            .ok_or_else(|| torn("length is cut or too long"))?;
        let start = at + a + b;
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|&end| end <= raw.len())
            .ok_or_else(|| torn("length reaches beyond the block"))?;
        position = position
            .checked_add(delta)
            .filter(|&p| p < header.to)
            .ok_or_else(|| torn("position lies beyond the block's range"))?;
        if found < header.records {
            records.push(Record { index, position, bytes: raw.slice(start..end), partial: false });
        }
        found = found.saturating_add(1);
        at = end;
    }
    if found != header.records {
        return Err(BadRecords::Count { claimed: header.records, found });
    }
    Ok(records)
}

/// Builds the payload of a `records` block.
#[derive(Debug)]
pub struct RecordsBuilder {
    payload: Vec<u8>,
    position: u128,
    count: u32,
}

impl RecordsBuilder {
    pub fn new(from: u128) -> Self {
        Self { payload: Vec::new(), position: from, count: 0 }
    }

    /// Adds a record. Positions must not fall: a smaller one than before is the caller's broken invariant.
    pub fn push(&mut self, position: u128, bytes: &[u8]) {
        assert!(position >= self.position, "positions of one origin only grow");
        write_varint(&mut self.payload, position - self.position);
        write_varint(&mut self.payload, bytes.len() as u128);
        self.payload.extend_from_slice(bytes);
        self.position = position;
        self.count += 1;
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Raw payload size so far, in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    pub fn finish(self) -> (Vec<u8>, u32) {
        (self.payload, self.count)
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &[u8]) -> Option<(u128, usize)> {
    let mut value = 0u128;
    for (i, &byte) in bytes.iter().enumerate().take(19) {
        let part = u128::from(byte & 0x7f);
        let shifted = part.checked_shl(7 * u32::try_from(i).ok()?)?;
        if shifted >> (7 * i) != part {
            return None;
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}
