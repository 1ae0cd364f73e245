//! The writer's half of one partition: the fold, the entries not yet written, and the active segment.
//!
//! In: accepted records. Out: bytes in the active segment, written, synced and then published, in that order.
//! Promise: what [`Live::publish`] shows is on stable storage. After a failed write that left nothing behind (a full disk)
//! the partition returns to its last durable state; after any other failure it is given up, never retried: pages that
//! failed to sync read back as valid and would be taken for written.
//! Not here: whose turn it is and who is answered (`writer`), when a segment may go (`retention`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_disk::DiskFile;
use garam_proto::{Incarnation, LogOffset, Malformed, OriginId, PartitionId};
use tokio::sync::watch;

use super::entry::{self, Place};
use super::recovery::{self, Extent};
use super::segment::{self, SegmentHeader};
use super::shared::{Counters, PartitionShared};
use super::{Env, create};
use crate::api::{Fingerprint, LogError, OriginState};
use crate::fold::{Fold, Record};

/// A write buffer that grew beyond this for one large block is given back.
const KEEP_BUFFER: usize = 4 * 1024 * 1024;

/// A partition as the writer holds it.
pub(crate) struct Partition {
    pub shared: Arc<PartitionShared>,
    pub published: watch::Sender<u64>,
    /// Which stream of the writer it belongs to.
    pub stream: usize,
    /// `Err`: why it takes nothing until the core is restarted.
    pub live: Result<Live, LogError>,
    /// What is known of the origins of a partition that takes nothing: they must not be registered elsewhere.
    pub known: Option<Fold>,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub file: Arc<dyn DiskFile>,
    pub salt: u64,
    /// Where its first entry begins.
    pub entries_at: u64,
    /// Durable bytes.
    pub bytes: u64,
}

pub(crate) struct Live {
    pub fold: Fold,
    id: PartitionId,
    dir: PathBuf,
    incarnation: Incarnation,
    ancestors: Vec<(Incarnation, u64)>,
    active: Active,
    /// Accepted since the last publication, not durable.
    buffer: Vec<u8>,
    next: u64,
    durable: u64,
    fingerprint: Fingerprint,
    payload_bytes: u64,
    records: u64,
    /// Origins changed since the last publication.
    touched: BTreeSet<OriginId>,
}

impl Partition {
    /// Gives the partition up: it takes nothing until the core is restarted. What is durable stays readable.
    pub(crate) fn stop(&mut self, action: &str, error: &io::Error) -> LogError {
        let partition = self.shared.id.clone();
        let why = format!(
            "cannot {action}: {error}; nothing was retried, check the disk and restart the core"
        );
        tracing::error!(%partition, error = %error, action = "check the disk, then restart the core",
            "partition is stopped: cannot {action}");
        let fault = LogError::Stopped { partition, why };
        self.shared.set_fault(&fault);
        if let Ok(live) = std::mem::replace(&mut self.live, Err(fault.clone())) {
            self.known = Some(live.fold);
        }
        fault
    }

    /// Bytes on disk and waiting to be written.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.size().0 + self.live.as_ref().map_or(0, |live| live.buffer.len() as u64)
    }
}

impl Live {
    pub(crate) fn new(
        id: &PartitionId,
        dir: &Path,
        incarnation: Incarnation,
        ancestors: Vec<(Incarnation, u64)>,
        active: Active,
        extent: Extent,
    ) -> Self {
        Self {
            fold: extent.fold,
            id: id.clone(),
            dir: dir.to_path_buf(),
            incarnation,
            ancestors,
            active,
            buffer: Vec::new(),
            next: extent.end,
            durable: extent.end,
            fingerprint: extent.fingerprint,
            payload_bytes: 0,
            records: 0,
            touched: BTreeSet::new(),
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Bytes of entries in the active segment, written or waiting.
    pub(crate) fn active_len(&self) -> u64 {
        self.active.bytes - self.active.entries_at + self.buffer.len() as u64
    }

    /// Numbers an accepted record, encodes it, and moves the state past it. Not durable yet.
    pub(crate) fn stage(
        &mut self,
        record: &Record,
        payload: &[u8],
    ) -> Result<(LogOffset, Arc<OriginState>), LogError> {
        let refused = |e: Malformed| LogError::Invalid { why: e.to_string() };
        let (kind, header) = entry::encode(record).map_err(refused)?;
        let payload_crc = if let Record::Block(block) = record { block.payload_crc } else { 0 };
        let place = Place { salt: self.active.salt, offset: self.next, synced_to: self.durable };
        entry::write(&mut self.buffer, place, kind, &header, payload, payload_crc)
            .map_err(refused)?;
        let state = self.fold.apply(record).ok_or_else(|| LogError::UnknownOrigin {
            partition: self.id.clone(),
            origin: *record.origin(),
        })?;
        self.fingerprint = entry::fingerprint(&header, payload_crc);
        self.payload_bytes += payload.len() as u64;
        self.records +=
            if let Record::Block(block) = record { u64::from(block.records) } else { 0 };
        self.touched.insert(*record.origin());
        let offset = LogOffset(self.next);
        self.next += 1;
        Ok((offset, state))
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        self.active.file.write_all_at(&self.buffer, self.active.bytes)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.active.file.sync()
    }

    /// Shows readers what was written and synced.
    pub(crate) fn publish(&mut self, shared: &PartitionShared, published: &watch::Sender<u64>) {
        let counters = &shared.counters;
        Counters::add(&counters.entries, self.next - self.durable);
        Counters::add(&counters.payload_bytes, std::mem::take(&mut self.payload_bytes));
        Counters::add(&counters.records, std::mem::take(&mut self.records));
        Counters::add(&counters.syncs, 1);
        self.active.bytes += self.buffer.len() as u64;
        self.durable = self.next;
        let touched = std::mem::take(&mut self.touched);
        shared.show_origins(touched.iter().filter_map(|origin| self.fold.get(origin).cloned()));
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BUFFER);
        if let Some(segment) = shared.segments().last_mut() {
            segment.bytes = self.active.bytes;
        }
        published.send_replace(self.durable);
    }

    /// Returns to the last durable state after a write that may have left a part: the part is cut off, and the state
    /// folded anew from the segment, as recovery does.
    pub(crate) fn undo(&mut self) -> Result<(), io::Error> {
        self.buffer.clear();
        self.payload_bytes = 0;
        self.records = 0;
        self.touched.clear();
        self.active.file.set_len(self.active.bytes)?;
        let opened = segment::open_file(self.active.file.clone(), Some(self.active.bytes))
            .map_err(io::Error::other)?;
        let extent = recovery::extent(opened, self.active.bytes).map_err(io::Error::other)?;
        if extent.end != self.durable {
            return Err(io::Error::other(format!(
                "the segment holds entries up to {}, not {}",
                extent.end, self.durable
            )));
        }
        self.fold = extent.fold;
        self.fingerprint = extent.fingerprint;
        self.next = self.durable;
        Ok(())
    }

    /// Seals the active segment and begins the next one. Nothing may be waiting to be written.
    /// Returns the origins the new segment's snapshot leaves out.
    pub(crate) fn roll(
        &mut self,
        env: &Env,
        shared: &PartitionShared,
        clock_ms: u64,
        forget_before_ms: u64,
    ) -> Result<Vec<Arc<OriginState>>, (&'static str, io::Error)> {
        let salt = env.random_u64().map_err(|e| ("draw a salt", e))?;
        let header =
            SegmentHeader { base: self.next, incarnation: self.incarnation, salt, clock_ms };
        let mut fold = self.fold.clone();
        let forgotten = fold.forget(forget_before_ms);
        let (active, info) = create::write_segment(
            env,
            &self.dir,
            &header,
            &self.ancestors,
            self.fingerprint,
            forget_before_ms,
            &fold,
        )
        .map_err(|(action, _, error)| (action, error))?;
        self.fold = fold;
        self.active = active;
        shared.segments().push(info);
        shared.hide_origins(&forgotten);
        Ok(forgotten)
    }
}
