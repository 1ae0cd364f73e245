//! One entry of a segment: a fixed prefix, a small header, and a block's payload as it was received.
//!
//! ```text
//!  0        4      5      8          12           16        24          32           36         40
//! ┌────────┬──────┬──────┬──────────┬────────────┬─────────┬───────────┬────────────┬──────────┬────────┬─────────┐
//! │ "GRe1" │ kind │ zero │header_len│payload_len │ offset  │ synced_to │payload_crc │entry_crc │ header │ payload │
//! │ 4 B    │ u8   │ 3 B  │ u32      │ u32        │ u64     │ u64       │ u32        │ u32      │bincode │ bytes   │
//! └────────┴──────┴──────┴──────────┴────────────┴─────────┴───────────┴────────────┴──────────┴────────┴─────────┘
//!  kinds: 0 snapshot, 1 block, 2 claim, 3 gap, 4 advance, 5 retire, 6 loss      all integers little-endian
//! ```
//!
//! `entry_crc` = CRC32C(segment salt ‖ bytes 0..36 ‖ header). The random salt keeps entry-shaped bytes inside a payload
//! from passing as an entry when recovery searches behind a bad one. `synced_to` is the offset below which everything
//! was on stable storage when this entry was written. The *fingerprint* of an entry is CRC32C(header) in the upper half
//! and `payload_crc` in the lower: it does not depend on salt or place, so a copied entry keeps it.
//! Not here: files (`walk`), segments (`segment`), what a record means (`fold`).

use bytes::Bytes;
use garam_proto::Malformed;
use garam_proto::message::GapReason;

use crate::api::{EntryBody, Fingerprint};
use crate::fold::{ClaimRecord, LossRecord, Record};

pub(crate) const PREFIX_LEN: usize = 40;
/// The largest header: what `garam_proto::encode` lets through.
pub(crate) const MAX_HEADER: u32 = 256 * 1024;

const MAGIC: [u8; 4] = *b"GRe1";
const CRC_AT: usize = 36;

pub(crate) const SNAPSHOT: u8 = 0;
const BLOCK: u8 = 1;
const CLAIM: u8 = 2;
const GAP: u8 = 3;
const ADVANCE: u8 = 4;
const RETIRE: u8 = 5;
const LOSS: u8 = 6;

/// The fixed part of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub kind: u8,
    pub header_len: u32,
    pub payload_len: u32,
    pub offset: u64,
    pub synced_to: u64,
    pub payload_crc: u32,
    entry_crc: u32,
}

impl Prefix {
    /// Reads the prefix; its checksum needs the header and is checked by [`Prefix::covers`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Fields(bytes);
        let short = "the entry is cut short";
        if fields.take::<4>().ok_or(short)? != MAGIC {
            return Err("no entry begins here");
        }
        let [kind, zeros @ ..] = fields.take::<4>().ok_or(short)?;
        let prefix = Self {
            kind,
            header_len: u32::from_le_bytes(fields.take().ok_or(short)?),
            payload_len: u32::from_le_bytes(fields.take().ok_or(short)?),
            offset: u64::from_le_bytes(fields.take().ok_or(short)?),
            synced_to: u64::from_le_bytes(fields.take().ok_or(short)?),
            payload_crc: u32::from_le_bytes(fields.take().ok_or(short)?),
            entry_crc: u32::from_le_bytes(fields.take().ok_or(short)?),
        };
        if zeros != [0; 3] || prefix.header_len > MAX_HEADER {
            return Err("the entry's prefix is not valid");
        }
        Ok(prefix)
    }

    /// Whether this prefix and header were written together into the segment with this salt.
    pub(crate) fn covers(&self, salt: u64, prefix: &[u8], header: &[u8]) -> bool {
        prefix.get(..CRC_AT).is_some_and(|bytes| entry_crc(salt, bytes, header) == self.entry_crc)
    }

    pub(crate) fn total_len(&self) -> u64 {
        PREFIX_LEN as u64 + u64::from(self.header_len) + u64::from(self.payload_len)
    }
}

/// Where an entry stands, apart from what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub salt: u64,
    pub offset: u64,
    pub synced_to: u64,
}

/// Appends one entry to `out`.
pub(crate) fn write(
    out: &mut Vec<u8>,
    place: Place,
    kind: u8,
    header: &[u8],
    payload: &[u8],
    payload_crc: u32,
) -> Result<(), Malformed> {
    let (header_len, payload_len) = (length(header)?, length(payload)?);
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&header_len.to_le_bytes());
    out.extend_from_slice(&payload_len.to_le_bytes());
    out.extend_from_slice(&place.offset.to_le_bytes());
    out.extend_from_slice(&place.synced_to.to_le_bytes());
    out.extend_from_slice(&payload_crc.to_le_bytes());
    let crc = entry_crc(place.salt, out.get(start..).unwrap_or_default(), header);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(payload);
    Ok(())
}

/// Kind and header bytes of a record.
pub(crate) fn encode(record: &Record) -> Result<(u8, Vec<u8>), Malformed> {
    Ok(match record {
        Record::Block(block) => (BLOCK, garam_proto::encode("block entry", block)?),
        Record::Claim(claim) => (CLAIM, garam_proto::encode("claim entry", claim.as_ref())?),
        Record::Gap(gap) => (GAP, garam_proto::encode("gap entry", gap)?),
        Record::Advance(advance) => (ADVANCE, garam_proto::encode("advance entry", advance)?),
        Record::Retire(retire) => (RETIRE, garam_proto::encode("retire entry", retire)?),
        Record::Loss(loss) => (LOSS, garam_proto::encode("loss entry", loss)?),
    })
}

/// What an entry with a good checksum says. A kind that is unknown here stops the reader: it is never skipped.
pub(crate) fn decode(kind: u8, header: &[u8], payload_len: u32) -> Result<Record, String> {
    let text = |e: Malformed| e.to_string();
    let record = match kind {
        BLOCK => Record::Block(garam_proto::decode("block entry", header).map_err(text)?),
        CLAIM => {
            let claim: ClaimRecord = garam_proto::decode("claim entry", header).map_err(text)?;
            Record::Claim(Box::new(claim))
        }
        GAP => Record::Gap(garam_proto::decode("gap entry", header).map_err(text)?),
        ADVANCE => Record::Advance(garam_proto::decode("advance entry", header).map_err(text)?),
        RETIRE => Record::Retire(garam_proto::decode("retire entry", header).map_err(text)?),
        LOSS => {
            let loss: LossRecord = garam_proto::decode("loss entry", header).map_err(text)?;
            Record::Loss(Box::new(loss))
        }
        other => return Err(format!("entry kind {other} is unknown to this build: upgrade Garam")),
    };
    let expected = if let Record::Block(block) = &record { block.payload_len } else { 0 };
    if payload_len != expected {
        return Err(format!("the entry holds {payload_len} payload bytes, not {expected}"));
    }
    Ok(record)
}

/// The body a reader hands out.
pub(crate) fn body(record: Record, payload: Bytes) -> EntryBody {
    match record {
        Record::Block(header) => EntryBody::Block { header, payload },
        Record::Claim(_) => EntryBody::Claim,
        Record::Gap(gap) => EntryBody::Gap {
            from: gap.from,
            to: gap.to,
            at_least: gap.at_least,
            reason: gap.reason,
        },
        Record::Advance(advance) => EntryBody::Advance { from: advance.from, to: advance.to },
        Record::Retire(_) => EntryBody::Retire,
        // What an operator gave up to be able to go on; an entry that only takes a lost one's number moves nothing.
        Record::Loss(loss) if loss.from < loss.after.mark => EntryBody::Gap {
            from: loss.from,
            to: loss.after.mark,
            at_least: false,
            reason: GapReason::Accepted,
        },
        Record::Loss(loss) => EntryBody::Advance { from: loss.from, to: loss.after.mark },
    }
}

pub(crate) fn fingerprint(header: &[u8], payload_crc: u32) -> Fingerprint {
    Fingerprint(u64::from(crc32c::crc32c(header)) << 32 | u64::from(payload_crc))
}

fn entry_crc(salt: u64, prefix: &[u8], header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, prefix), header)
}

fn length(bytes: &[u8]) -> Result<u32, Malformed> {
    u32::try_from(bytes.len())
        .map_err(|_| Malformed { what: "entry", why: format!("{} bytes is too long", bytes.len()) })
}

/// Takes fixed-size fields off the front of foreign bytes.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}
