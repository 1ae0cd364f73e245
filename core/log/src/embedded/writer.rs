//! The writer thread: the only one that appends, for all partitions of a log folder ("one syncer per disk").
//!
//! In: requests from a bounded queue. Out: answers, in the order of the requests. Each round collects what is waiting (up
//! to 1 MiB, 2 ms, or an empty queue), decides it by the fold, writes each dirty partition with one call, syncs each
//! once, publishes the durable ends, and answers: group commit.
//! Promise: no answer rests on anything that is not durable, not even `Repeat`; a partition that fails is answered and
//! given up alone. A thread that is stuck in a system call is seen by its heartbeat and never replaced: its process ends.
//! Not here: what may be appended (`fold`), bytes (`partition`), which segments go (`retention`).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garam_proto::{PartitionId, StreamName};
use tokio::sync::mpsc;

use super::Env;
use super::clock::{LogClock, Saved};
use super::config::{LogConfig, StreamConfig};
use super::directory::Directory;
use super::partition::Partition;
use super::registry::Registry;
use super::request::{Queued, Request, Waiting, answer};
use super::reserve::Reserve;
use super::shared::Counters;
use crate::api::{Append, AppendBody, Appended, LogError, OriginState};
use crate::fold::{AdvanceRecord, GapRecord, Record, RetireRecord, Verdict};

/// A round ends at this many bytes,
const ROUND_BYTES: usize = 1024 * 1024;
/// or after this time.
const ROUND_TIME: Duration = Duration::from_millis(2);
/// What an entry takes on disk beside its payload, roughly.
const ENTRY_OVERHEAD: u64 = 256;
const SAVE_CLOCK_EVERY_MS: u64 = 60_000;

pub(crate) struct Writer {
    pub env: Env,
    pub config: LogConfig,
    pub directory: Arc<Directory>,
    pub clock: LogClock,
    pub streams: Vec<Stream>,
    pub stream_numbers: HashMap<StreamName, usize>,
    pub partitions: Vec<Partition>,
    pub registry: Registry,
    /// Partitions with entries that wait to be written.
    pub dirty: Vec<usize>,
    pub clock_saved_ms: u64,
    pub reserve: Reserve,
    /// Held as long as the thread lives.
    pub _lock: Box<dyn Send + Sync>,
}

pub(crate) struct Stream {
    pub config: StreamConfig,
    pub segment_size: u64,
    pub partitions: Vec<usize>,
    /// Bytes on disk, plus those accepted in this round.
    pub bytes: u64,
    /// Why nothing is taken until the next upkeep.
    pub full: Option<String>,
    /// Monotonic time since when every upkeep found it so.
    pub full_since: Option<Duration>,
    /// The last write was refused by a full disk.
    pub disk_full: bool,
}

impl Writer {
    /// Serves the queue until every sender is gone.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut upkeep_at = Instant::now();
        loop {
            let wait = upkeep_at.saturating_duration_since(Instant::now());
            match tokio::time::timeout(wait, queue.recv()).await {
                Ok(Some(first)) => {
                    self.directory.heart.busy(&*self.env.time);
                    self.round(first, &mut queue);
                }
                Ok(None) => break,
                Err(_) => {}
            }
            if Instant::now() >= upkeep_at {
                self.directory.heart.busy(&*self.env.time);
                self.upkeep();
                upkeep_at = Instant::now() + self.config.upkeep_every;
            }
            self.directory.heart.idle();
        }
        self.save_clock();
    }

    fn round(&mut self, first: Queued, queue: &mut mpsc::Receiver<Queued>) {
        let started = Instant::now();
        let mut waiting = Vec::new();
        let mut permits = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(queued) = next {
            bytes += queued.bytes;
            permits.push(queued.permit);
            waiting.push(self.decide(queued.request));
            let more = bytes < ROUND_BYTES && started.elapsed() < ROUND_TIME;
            next = if more { queue.try_recv().ok() } else { None };
        }
        #[cfg(debug_assertions)]
        let waiting = super::canary::answer_early(waiting);
        let failed = self.make_durable();
        for decided in waiting {
            Self::answer(decided, &failed);
        }
        drop(permits);
        self.roll_long_segments();
    }

    fn decide(&mut self, request: Request) -> Waiting {
        match request {
            Request::Append { partition, append, answer } => {
                Waiting::Append { partition, result: self.append(partition, append), answer }
            }
            Request::Claim { claim, answer } => {
                let (partition, result) = match self.place_of(&claim) {
                    Ok(partition) => (partition, self.claim(partition, *claim)),
                    Err(error) => (usize::MAX, Err(error)),
                };
                Waiting::Claim { partition, result, answer }
            }
            Request::AddStream { config, answer } => {
                Waiting::Stream { result: self.add_stream(config), answer }
            }
            Request::ChangeStream { config, answer } => {
                Waiting::Stream { result: self.change_stream(config), answer }
            }
        }
    }

    fn append(&mut self, number: usize, append: Append) -> Result<Appended, LogError> {
        let clock_ms = self.clock.now_ms(&*self.env.time);
        let (record, payload) = record_of(append, clock_ms);
        let partition = self.partitions.get(number).ok_or(LogError::Closed)?;
        let live = partition.live.as_ref().map_err(Clone::clone)?;
        match live.fold.decide(&record) {
            Verdict::Accept => {}
            Verdict::Repeat { mark } => {
                Counters::add(&partition.shared.counters.repeats, 1);
                return Ok(Appended::Repeat { mark });
            }
            Verdict::Reposition { mark, tail_hash, resume } => {
                return Ok(Appended::Reposition { mark, tail_hash, resume });
            }
            Verdict::Stale => {
                Counters::add(&partition.shared.counters.stale, 1);
                return Ok(Appended::Stale);
            }
            Verdict::Unknown => {
                let partition = partition.shared.id.clone();
                return Err(LogError::UnknownOrigin { partition, origin: *record.origin() });
            }
            Verdict::Invalid(why) => return Err(LogError::Invalid { why: why.into() }),
        }
        let (offset, state) = self.stage(number, &record, &payload)?;
        Ok(Appended::Durable { offset, mark: state.mark })
    }

    /// Puts an accepted record behind the others of its partition, if its stream has room.
    pub(crate) fn stage(
        &mut self,
        number: usize,
        record: &Record,
        payload: &[u8],
    ) -> Result<(garam_proto::LogOffset, Arc<OriginState>), LogError> {
        let (stream, id) = match self.partitions.get(number) {
            Some(partition) => (partition.stream, partition.shared.id.clone()),
            None => return Err(LogError::Closed),
        };
        if !self.relieves(stream, record.origin()) {
            self.make_room(stream).map_err(|why| LogError::Full { partition: id, why })?;
        }
        let partition = self.partitions.get_mut(number).ok_or(LogError::Closed)?;
        let live = partition.live.as_mut().map_err(|fault| fault.clone())?;
        let was_clean = !live.is_dirty();
        let staged = live.stage(record, payload)?;
        if was_clean {
            self.dirty.push(number);
        }
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.bytes += payload.len() as u64 + ENTRY_OVERHEAD;
        }
        Ok(staged)
    }

    /// Writes and syncs what this round accepted, and publishes it. Returns what failed, and how.
    fn make_durable(&mut self) -> Vec<(usize, LogError)> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut failed = Vec::new();
        for &number in &dirty {
            let written = match self.partitions.get(number).map(|p| &p.live) {
                Some(Ok(live)) => live.write(),
                _ => continue,
            };
            if let Err(error) = written {
                failed.push((number, self.write_failed(number, &error)));
            }
        }
        for &number in
            dirty.iter().filter(|n| !failed.iter().any(|(f, _)| f == *n)).collect::<Vec<_>>()
        {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            let Ok(live) = &mut partition.live else { continue };
            #[cfg(debug_assertions)]
            super::canary::publish_early(|| live.publish(&partition.shared, &partition.published));
            match live.sync() {
                Ok(()) => {
                    live.publish(&partition.shared, &partition.published);
                    if let Some(stream) = self.streams.get_mut(partition.stream) {
                        stream.disk_full = false;
                    }
                }
                Err(error) => {
                    let fault = partition.stop("sync the log", &error);
                    failed.push((number, fault));
                }
            }
        }
        self.count_bytes(&dirty);
        failed
    }

    /// A full disk leaves the partition as it was; its stream holds until the next upkeep. Anything else stops it.
    fn write_failed(&mut self, number: usize, error: &io::Error) -> LogError {
        let Some(partition) = self.partitions.get_mut(number) else { return LogError::Closed };
        if !is_full(error) {
            return partition.stop("write the log", error);
        }
        let undone = match &mut partition.live {
            Ok(live) => live.undo(),
            Err(fault) => return fault.clone(),
        };
        if let Err(error) = undone {
            return partition.stop("take back a write that the full disk refused", &error);
        }
        let (stream, id) = (partition.stream, partition.shared.id.clone());
        let why = self.disk_is_full(stream, error);
        self.relearn();
        LogError::Full { partition: id, why }
    }

    pub(crate) fn answer(waiting: Waiting, failed: &[(usize, LogError)]) {
        let failure = |number: usize| {
            failed.iter().find(|(failed, _)| *failed == number).map(|(_, error)| error.clone())
        };
        match waiting {
            Waiting::Append { partition, result, answer: to } => {
                answer(to, result.and_then(|ok| failure(partition).map_or(Ok(ok), Err)));
            }
            Waiting::Claim { partition, result, answer: to } => {
                answer(to, result.and_then(|ok| failure(partition).map_or(Ok(ok), Err)));
            }
            Waiting::Stream { result, answer: to } => answer(to, result),
        }
    }

    fn roll_long_segments(&mut self) {
        for number in 0..self.partitions.len() {
            let Some(partition) = self.partitions.get(number) else { continue };
            let Some(stream) = self.streams.get(partition.stream) else { continue };
            let Ok(live) = &partition.live else { continue };
            if live.active_len() >= stream.segment_size && stream.full.is_none() {
                self.roll(number);
            }
        }
    }

    fn roll(&mut self, number: usize) {
        let clock_ms = self.clock.now_ms(&*self.env.time);
        let Some(partition) = self.partitions.get_mut(number) else { return };
        let Some(stream) = self.streams.get(partition.stream) else { return };
        let forget_before_ms = clock_ms.saturating_sub(stream.config.retain_ms());
        let Ok(live) = &mut partition.live else { return };
        match live.roll(&self.env, &partition.shared, clock_ms, forget_before_ms) {
            Ok(forgotten) if forgotten.is_empty() => {}
            Ok(_) => self.relearn(),
            Err((action, error)) if is_full(&error) && action != "sync" => {
                let stream = partition.stream;
                self.disk_is_full(stream, &error);
            }
            Err((action, error)) => {
                partition.stop(&format!("{action} a new segment"), &error);
            }
        }
        self.count_bytes(&[number]);
    }

    /// The stream holds until the next upkeep tries again.
    fn disk_is_full(&mut self, stream: usize, error: &io::Error) -> String {
        let why = format!("the disk is full ({error}): free space, the log goes on by itself");
        if let Some(state) = self.streams.get_mut(stream) {
            state.disk_full = true;
        }
        self.set_full(stream, why.clone());
        self.reserve.give(&*self.env.fs);
        why
    }

    fn upkeep(&mut self) {
        self.open_what_had_no_room();
        let no_reserve = self.look_after_reserve();
        for number in 0..self.streams.len() {
            let Some(stream) = self.streams.get_mut(number) else { continue };
            stream.full = None;
            let is_quarantine = stream.config.name.as_str().starts_with('_');
            self.trim(number);
            if let Some(why) = no_reserve.as_ref().filter(|_| !is_quarantine) {
                self.set_full(number, why.clone());
                continue;
            }
            // Says "full" again where that is still so.
            if self.make_room(number).is_ok() || self.detach(number) {
                self.show_full(number);
                if let Some(stream) = self.streams.get_mut(number) {
                    stream.full_since = None;
                }
            }
        }
        self.forget_rejoined();
        self.roll_long_segments();
        if self.clock.now_ms(&*self.env.time) >= self.clock_saved_ms + SAVE_CLOCK_EVERY_MS {
            self.save_clock();
        }
    }

    /// Takes the reserve again if it was given. `Some`: why sources still have to wait.
    fn look_after_reserve(&mut self) -> Option<String> {
        let was_given = self.reserve.is_given();
        let missing = self.reserve.restore(&*self.env.fs);
        if was_given && missing.is_none() {
            self.streams.iter_mut().for_each(|stream| stream.disk_full = false);
        }
        missing
    }

    fn save_clock(&mut self) {
        let saved = Saved {
            clock_ms: self.clock.now_ms(&*self.env.time),
            wall_ms: self.env.time.wall_ms(),
        };
        self.clock_saved_ms = saved.clock_ms;
        if let Err(error) = saved.store(&*self.env.fs, &self.config.dir) {
            tracing::warn!(%error, "cannot save the log clock; ages will look younger after a restart");
        }
    }

    /// Builds the registry anew from the folds, after some of what it had learnt was taken back.
    fn relearn(&mut self) {
        let mut registry = Registry::default();
        for (number, partition) in self.partitions.iter().enumerate() {
            let fold = partition.live.as_ref().ok().map(|live| &live.fold);
            if let Some(fold) = fold.or(partition.known.as_ref()) {
                registry.learn_all(partition.stream, number, fold);
            }
        }
        self.registry = registry;
    }

    pub(crate) fn partition_dir(&self, id: &PartitionId) -> PathBuf {
        super::directory::partition_dir(&self.config.dir, id)
    }
}

/// Whether the disk (or the user's quota on it) has no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn record_of(append: Append, clock_ms: u64) -> (Record, bytes::Bytes) {
    let Append { origin, session, body } = append;
    let record = match body {
        AppendBody::Block { header, payload } => return (Record::Block(header), payload),
        AppendBody::Gap { from, to, at_least, reason } => {
            Record::Gap(GapRecord { origin, session, from, to, at_least, reason, clock_ms })
        }
        AppendBody::Advance { from, to, tail_hash, resume } => {
            Record::Advance(AdvanceRecord { origin, session, from, to, tail_hash, resume })
        }
        AppendBody::Retire { mark } => {
            Record::Retire(RetireRecord { origin, session, mark, clock_ms })
        }
    };
    (record, bytes::Bytes::new())
}
