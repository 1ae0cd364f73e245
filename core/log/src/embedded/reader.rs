//! Reads a partition forward from any offset it holds.
//!
//! In: durable entries of the partition's segments. Out: entries in order, each with its origin as it stood then.
//! Promise: nothing at or above the durable end is looked at, not even read ahead; every entry has good checksums, the
//! expected offset and follows from those before it by the fold, or the reader says `Damaged` and stays where it is.
//! A reader begins at the snapshot of the segment that holds its first entry and folds forward: that is why there is no
//! index, and why starting costs at most one segment. A segment that is trimmed under a reader stays readable: it is open.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use garam_disk::Fs;
use garam_proto::{LogOffset, OriginId};
use tokio::sync::watch;

use super::entry;
use super::recovery::{self, damage, io, unread};
use super::segment::{self, Opened, SegmentError};
use super::shared::{PartitionShared, SegmentInfo};
use super::walk::{Walk, WalkError};
use crate::api::{Entry, Fingerprint, LogError, LogReader, OriginState};
use crate::fold::Fold;

pub(crate) struct Reader {
    fs: Arc<dyn Fs>,
    shared: Arc<PartitionShared>,
    end: watch::Receiver<u64>,
    /// The durable end when it was last looked at.
    known_end: u64,
    position: u64,
    fold: Fold,
    fingerprint: Fingerprint,
    segment: OpenSegment,
}

struct OpenSegment {
    walk: Walk,
    base: u64,
    path: PathBuf,
    /// Durable bytes as far as known.
    bytes: u64,
    /// Base of the segment behind it, once there is one.
    until: Option<u64>,
}

impl Reader {
    /// Opens a reader that stands before `from`. Blocks for as long as walking there takes.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        shared: Arc<PartitionShared>,
        from: LogOffset,
    ) -> Result<Self, LogError> {
        let bounds = shared.known_bounds()?;
        let outside = || out_of_range(&shared, from.0);
        if from < bounds.start || from > bounds.end {
            return Err(outside());
        }
        let Some((info, until)) = shared.segment_of(from.0) else {
            return Err(shared.fault().unwrap_or_else(outside));
        };
        let opened = match segment::open(&*fs, &info.path, Some(info.bytes)) {
            Err(SegmentError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(outside());
            }
            opened => opened.map_err(|e| unread(&shared.id, info.base, &info.path, e))?,
        };
        check_identity(&shared, &info, &opened)?;
        let mut reader = Self {
            fold: opened.fold().map_err(|e| unread(&shared.id, info.base, &info.path, e))?,
            fingerprint: Fingerprint(opened.snapshot.fingerprint),
            position: info.base,
            known_end: bounds.end.0,
            end: shared.end.clone(),
            segment: OpenSegment {
                walk: opened.walk,
                base: info.base,
                path: info.path,
                bytes: info.bytes,
                until,
            },
            fs,
            shared,
        };
        while reader.position < from.0 {
            reader.step(false)?;
        }
        Ok(reader)
    }

    /// The fingerprint at the position: that of the entry before it.
    /// An origin as it stands before the next entry.
    pub(crate) fn origin(&self, origin: &OriginId) -> Option<OriginState> {
        self.fold.get(origin).map(|state| OriginState::clone(state))
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The next entry if it is durable already.
    pub(crate) fn advance(&mut self) -> Result<Option<Entry>, LogError> {
        if self.position >= self.known_end {
            self.known_end = *self.end.borrow_and_update();
        }
        if self.position >= self.known_end {
            return match self.shared.fault() {
                Some(fault @ LogError::Damaged { .. }) => Err(fault),
                _ => Ok(None),
            };
        }
        if self.segment.until == Some(self.position) {
            self.cross()?;
        }
        self.step(true).map(Some)
    }

    /// Reads the entry at the position, which is durable.
    fn step(&mut self, with_payload: bool) -> Result<Entry, LogError> {
        loop {
            let found = self.segment.walk.step(self.segment.bytes, with_payload);
            let found = match found {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.look_further()?;
                    continue;
                }
                Err(WalkError::Broken { at, why }) => return Err(self.damaged(at, why)),
                Err(WalkError::Io(error)) => return Err(io("read", &self.segment.path, error)),
            };
            let checked =
                recovery::replay(&mut self.fold, &found.prefix, &found.header, self.position);
            let (record, origin) = checked.map_err(|why| self.damaged(found.at, why))?;
            self.fingerprint = entry::fingerprint(&found.header, found.prefix.payload_crc);
            let offset = LogOffset(self.position);
            self.position += 1;
            let body = entry::body(record, found.payload);
            return Ok(Entry { offset, fingerprint: self.fingerprint, origin, body });
        }
    }

    /// The known part of the segment is read: there is more of it, or another one, since the position is durable.
    fn look_further(&mut self) -> Result<(), LogError> {
        let at = self.segment.walk.at();
        let (bytes, until) = match self.shared.extent_of(self.segment.base) {
            Some(extent) => extent,
            // Trimmed meanwhile, so it was sealed: the open file is complete.
            None => {
                let size = self.segment.walk.file().size();
                (size.map_err(|e| io("read", &self.segment.path, e))?, Some(self.position))
            }
        };
        self.segment.until = until;
        if bytes > self.segment.bytes {
            self.segment.bytes = bytes;
            return Ok(());
        }
        if until == Some(self.position) {
            return self.cross();
        }
        Err(self.damaged(at, format!("the segment ends before offset {}", self.position)))
    }

    /// Goes on to the segment that begins at the position.
    fn cross(&mut self) -> Result<(), LogError> {
        let Some((info, until)) = self.shared.segment_of(self.position) else {
            return Err(out_of_range(&self.shared, self.position));
        };
        if info.base != self.position {
            return Err(out_of_range(&self.shared, self.position));
        }
        let opened = segment::open(&*self.fs, &info.path, Some(info.bytes))
            .map_err(|e| unread(&self.shared.id, info.base, &info.path, e))?;
        check_identity(&self.shared, &info, &opened)?;
        let mut fold = self.fold.clone();
        fold.forget(opened.snapshot.forgot_before_ms);
        if opened.snapshot.fingerprint != self.fingerprint.0
            || opened.snapshot.origins as usize != fold.len()
        {
            let why = "its snapshot does not follow from the segment before it".to_owned();
            return Err(damage(&self.shared.id, info.base, &info.path, 0, why));
        }
        self.fold = fold;
        self.segment = OpenSegment {
            walk: opened.walk,
            base: info.base,
            path: info.path,
            bytes: info.bytes,
            until,
        };
        Ok(())
    }

    fn damaged(&self, at: u64, why: String) -> LogError {
        damage(&self.shared.id, self.position, &self.segment.path, at, why)
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Entry, LogError> {
        loop {
            if let Some(entry) = self.advance()? {
                return Ok(entry);
            }
            // The end was marked as seen before it was found to be reached, so no publication is missed.
            self.end.changed().await.map_err(|_| LogError::Closed)?;
        }
    }

    async fn try_next(&mut self) -> Result<Option<Entry>, LogError> {
        self.advance()
    }

    fn position(&self) -> LogOffset {
        LogOffset(self.position)
    }
}

fn check_identity(
    shared: &PartitionShared,
    info: &SegmentInfo,
    opened: &Opened,
) -> Result<(), LogError> {
    if opened.header.base == info.base && shared.descends_from(opened.header.incarnation) {
        return Ok(());
    }
    let why = "the segment belongs to another place or another incarnation".to_owned();
    Err(damage(&shared.id, info.base, &info.path, 0, why))
}

fn out_of_range(shared: &PartitionShared, offset: u64) -> LogError {
    let bounds = shared.bounds();
    LogError::OutOfRange {
        partition: shared.id.clone(),
        offset: LogOffset(offset),
        start: bounds.start,
        end: bounds.end,
    }
}
