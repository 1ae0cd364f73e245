//! A segment: one file of consecutive entries, beginning with everything a reader must know to start there.
//!
//! `<dir>/<stream>/<partition, 4 digits>/<base offset, 20 digits>.seg`
//!
//! ```text
//!  0           8        10      12          16           24           40      48        56      60    64
//! ┌───────────┬────────┬───────┬───────────┬────────────┬────────────┬───────┬─────────┬───────┬─────┐
//! │ "GARAMLOG"│version │ flags │header_len │ base_offset│ incarnation│ salt  │clock_ms │crc32c │zero │   header
//! │ 8 B       │u16 = 1 │u16 = 0│ u32 = 64  │ u64        │ 16 B       │ u64   │ u64     │ u32   │ 4 B │   all LE
//! └───────────┴────────┴───────┴───────────┴────────────┴────────────┴───────┴─────────┴───────┴─────┘
//! ┌──────────────────────────────────────────────────────────────────────────────────────────────────┐
//! │ snapshot: entry of kind 0 at offset `base_offset`; header = SnapshotHeader, payload =            │
//! │           epochs × (u32 len | SavedEpoch), then origins × (u32 len | SavedOrigin)                │
//! ├──────────────────────────────────────────────────────────────────────────────────────────────────┤
//! │ entries base_offset, base_offset + 1, …                                                          │
//! └──────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A segment gets its name by a rename, after header, snapshot and (for a recovered tail) entries are synced; what has
//! a name is whole up to `durable_to`. A segment keeps the incarnation it was begun under: after a branch (restore, repair)
//! the newest one has a new incarnation, whose `ancestors` name those of the segments before it. `clock_ms` is the log clock when its base was reached: the age of the segment
//! before it. Not here: when to begin one (`partition`), which one counts after a crash (`recovery`).

use std::path::Path;
use std::sync::Arc;

use bincode::{Decode, Encode};
use garam_disk::{DiskFile, Fs};
use garam_proto::{Incarnation, LogOffset, Malformed};

use super::entry::{self, Place};
use super::walk::{Found, Walk, WalkError};
use crate::api::Ancestor;
use crate::fold::{Fold, SavedEpoch, SavedOrigin};

pub(crate) const VERSION: u16 = 1;
pub(crate) const HEADER_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"GARAMLOG";
const CRC_AT: usize = 56;
const SUFFIX: &str = ".seg";
/// What a segment is called until it counts.
pub(crate) const TEMPORARY: &str = ".tmp";

/// The fixed first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub base: u64,
    pub incarnation: Incarnation,
    pub salt: u64,
    pub clock_ms: u64,
}

/// The header of the snapshot entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SnapshotHeader {
    /// The incarnations this one branched from, and where each ended; the newest first.
    pub ancestors: Vec<(Incarnation, u64)>,
    /// Of the entry before the base; 0 when there is none.
    pub fingerprint: u64,
    /// Entries below this offset were on stable storage when the file got its name.
    pub durable_to: u64,
    /// Origins that retired before this log-clock time are no longer in the snapshot.
    pub forgot_before_ms: u64,
    pub epochs: u32,
    pub origins: u32,
}

/// Ancestors a partition remembers. A cursor of an older one is no longer recognised and stops its pipeline.
pub(crate) const MAX_ANCESTORS: usize = 256;

/// What each ancestor still shares with the newest life: nothing at or above any later branch.
pub(crate) fn shared_below(ancestors: &[(Incarnation, u64)]) -> Vec<Ancestor> {
    let mut lowest = u64::MAX;
    let shared = ancestors.iter().map(|&(incarnation, branch)| {
        lowest = lowest.min(branch);
        Ancestor { incarnation, until: LogOffset(lowest) }
    });
    shared.collect()
}

/// Why a segment cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error("log format {0} is newer than {VERSION}")]
    Newer(u16),
    #[error("byte {at}: {why}")]
    Broken { at: u64, why: String },
    #[error(transparent)]
    Io(std::io::Error),
}

impl From<WalkError> for SegmentError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Broken { at, why } => Self::Broken { at, why },
            WalkError::Io(error) => Self::Io(error),
        }
    }
}

pub(crate) fn file_name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}

/// The base offset a file name stands for, if it is a segment's.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.incarnation.0);
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.clock_ms.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        let mut bytes = [0; HEADER_LEN];
        bytes.iter_mut().zip(out).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SegmentError> {
        let broken = |why: &str| SegmentError::Broken { at: 0, why: why.into() };
        let short = || broken("the segment header is cut short");
        let mut fields = entry::Fields(bytes);
        if fields.take::<8>().ok_or_else(short)? != MAGIC {
            return Err(broken("this is not a segment of a Garam log"));
        }
        let version = u16::from_le_bytes(fields.take().ok_or_else(short)?);
        if version > VERSION {
            return Err(SegmentError::Newer(version));
        }
        let flags = u16::from_le_bytes(fields.take().ok_or_else(short)?);
        let header_len = u32::from_le_bytes(fields.take().ok_or_else(short)?);
        let header = Self {
            base: u64::from_le_bytes(fields.take().ok_or_else(short)?),
            incarnation: Incarnation(fields.take().ok_or_else(short)?),
            salt: u64::from_le_bytes(fields.take().ok_or_else(short)?),
            clock_ms: u64::from_le_bytes(fields.take().ok_or_else(short)?),
        };
        let crc = u32::from_le_bytes(fields.take().ok_or_else(short)?);
        let zero = fields.take::<4>().ok_or_else(short)?;
        let covered = bytes.get(..CRC_AT).ok_or_else(short)?;
        if crc32c::crc32c(covered) != crc || zero != [0; 4] {
            return Err(broken("the segment header's checksum differs"));
        }
        if version != VERSION || flags != 0 || header_len as usize != HEADER_LEN {
            return Err(broken("the segment header has fields this build does not know"));
        }
        Ok(header)
    }
}

/// Header and snapshot as they stand at the front of a segment.
pub(crate) fn front(
    header: &SegmentHeader,
    snapshot: &SnapshotHeader,
    fold: &Fold,
) -> Result<Vec<u8>, Malformed> {
    let mut payload = Vec::new();
    for epoch in fold.saved_epochs() {
        push_item(&mut payload, &garam_proto::encode("saved epoch", &epoch)?);
    }
    for origin in fold.saved_origins() {
        push_item(&mut payload, &garam_proto::encode("saved origin", &origin)?);
    }
    let encoded = garam_proto::encode("snapshot", snapshot)?;
    let mut out = header.encode().to_vec();
    let place = Place { salt: header.salt, offset: header.base, synced_to: header.base };
    let crc = crc32c::crc32c(&payload);
    entry::write(&mut out, place, entry::SNAPSHOT, &encoded, &payload, crc)?;
    Ok(out)
}

/// An opened segment, standing before its first entry.
pub(crate) struct Opened {
    pub header: SegmentHeader,
    pub snapshot: SnapshotHeader,
    pub walk: Walk,
    state: Found,
}

/// Opens a segment and checks header and snapshot header. The snapshot's origins are only decoded by [`Opened::fold`].
/// `limit`: bytes that may be read; the file's size when unknown.
pub(crate) fn open(fs: &dyn Fs, path: &Path, limit: Option<u64>) -> Result<Opened, SegmentError> {
    let file = fs.open(path).map_err(SegmentError::Io)?;
    open_file(file, limit)
}

pub(crate) fn open_file(
    file: Arc<dyn DiskFile>,
    limit: Option<u64>,
) -> Result<Opened, SegmentError> {
    let limit = match limit {
        Some(limit) => limit,
        None => file.size().map_err(SegmentError::Io)?,
    };
    let mut front = Walk::new(file.clone(), 0, 0);
    let header = SegmentHeader::parse(&front.fetch(HEADER_LEN, limit)?)?;
    let mut walk = Walk::new(file, header.salt, HEADER_LEN as u64);
    let at = HEADER_LEN as u64;
    let broken = |why: String| SegmentError::Broken { at, why };
    let state = walk
        .step(limit, false)?
        .ok_or_else(|| broken("the segment ends before its snapshot".into()))?;
    if state.prefix.kind != entry::SNAPSHOT || state.prefix.offset != header.base {
        return Err(broken("the segment does not begin with its snapshot".into()));
    }
    let snapshot: SnapshotHeader =
        garam_proto::decode("snapshot", &state.header).map_err(|e| broken(e.to_string()))?;
    Ok(Opened { header, snapshot, walk, state })
}

impl Opened {
    /// The state of all origins at the segment's base.
    pub(crate) fn fold(&self) -> Result<Fold, SegmentError> {
        fold_of(&self.walk, &self.state, &self.snapshot)
    }

    /// Where the first entry begins.
    pub(crate) fn entries_at(&self) -> u64 {
        self.state.at + self.state.prefix.total_len()
    }
}

/// The state of all origins that a snapshot entry holds.
fn fold_of(walk: &Walk, state: &Found, snapshot: &SnapshotHeader) -> Result<Fold, SegmentError> {
    let payload = walk.payload_of(state)?;
    let broken = |why: String| SegmentError::Broken { at: state.at, why };
    let mut rest: &[u8] = &payload;
    let mut epochs: Vec<SavedEpoch> = Vec::new();
    for _ in 0..snapshot.epochs {
        let item = take_item(&mut rest).ok_or_else(|| broken("a saved epoch is cut".into()))?;
        let epoch = garam_proto::decode("saved epoch", item);
        epochs.push(epoch.map_err(|e| broken(e.to_string()))?);
    }
    let mut origins: Vec<SavedOrigin> = Vec::new();
    for _ in 0..snapshot.origins {
        let item = take_item(&mut rest).ok_or_else(|| broken("a saved origin is cut".into()))?;
        let origin = garam_proto::decode("saved origin", item);
        origins.push(origin.map_err(|e| broken(e.to_string()))?);
    }
    if !rest.is_empty() {
        return Err(broken(format!("{} bytes follow the last saved origin", rest.len())));
    }
    Ok(Fold::from_saved(epochs, origins))
}

/// Snapshot and state of a segment whose header cannot be read, when the snapshot entry `found` is good.
pub(crate) fn snapshot_of(walk: &Walk, found: &Found) -> Option<(SnapshotHeader, Fold)> {
    let snapshot: SnapshotHeader = garam_proto::decode("snapshot", &found.header).ok()?;
    let fold = fold_of(walk, found, &snapshot).ok()?;
    Some((snapshot, fold))
}

fn push_item(out: &mut Vec<u8>, item: &[u8]) {
    // An item is at most `entry::MAX_HEADER` long, so the cast cannot cut.
    out.extend_from_slice(&(item.len() as u32).to_le_bytes());
    out.extend_from_slice(item);
}

fn take_item<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (item, after) = (after.get(..len)?, after.get(len..)?);
    *rest = after;
    Some(item)
}
