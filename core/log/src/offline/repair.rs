//! Makes a damaged partition one that can be opened and read to its end: what is lost becomes counted gaps, under a new
//! incarnation.
//!
//! In: the folder of a stopped log. Out: segments in which a loss entry stands for each number that cannot be read, and one
//! more segment that begins the new life; its ancestors say up to where the old cursors are good.
//! Promise: sound entries keep their number and their bytes, so a cursor behind the damage can be re-based exactly; the
//! damaged files are kept aside; every new segment is replayed by the fold while it is written, and all of them count in
//! one step or not at all (`commit`). A partition whose origins nobody knows any more is refused.

use std::path::{Path, PathBuf};

use garam_disk::DiskFile;
use garam_proto::{Incarnation, LogOffset, PartitionId};

use super::branch::branched;
use super::commit::{Exchange, NEW, What};
use super::mend;
use super::scan::{self, Part, Run, Survey, Surveyed};
use super::verify::Damage;
use crate::api::{Fingerprint, LogError};
use crate::embedded::Env;
use crate::embedded::directory::partition_dir;
use crate::embedded::entry::{self, Place};
use crate::embedded::recovery::{self, io, unread};
use crate::embedded::segment::{self, SegmentHeader, SnapshotHeader};
use crate::embedded::walk::Walk;
use crate::fold::{Fold, LossRecord, Record};

/// How many bytes are written at a time.
const CHUNK: usize = 1024 * 1024;

/// What a repair would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan {
    pub partition: PartitionId,
    pub incarnation: Incarnation,
    /// Cursors of today's incarnation stay good up to here; those above stop with choices.
    pub branch: LogOffset,
    pub start: LogOffset,
    pub end: LogOffset,
    pub damage: Vec<Damage>,
    /// Files that are written anew; the old ones are kept aside.
    pub rewritten: Vec<PathBuf>,
    /// Bytes that takes on disk, beside those kept aside.
    pub bytes: u64,
    /// Why it cannot be done.
    pub hopeless: Option<String>,
}

/// A repair that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    pub incarnation: Incarnation,
    pub aside: Vec<PathBuf>,
}

/// What a repair of the partition would do; `None` when it is sound.
pub fn plan_repair(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
) -> Result<Option<RepairPlan>, LogError> {
    let folder = partition_dir(dir, id);
    if recovery::list(env, &folder)?.is_empty() {
        let why = format!("partition {id} has no segment in {}", folder.display());
        return Err(LogError::Invalid { why });
    }
    let survey = scan::survey(env, dir, id, &mut |_| {})?;
    Ok(plan(id, &survey))
}

/// Does what the plan says. The log must be stopped: its lock is taken. Refused when the damage is not the planned one.
pub fn repair(env: &Env, dir: &Path, planned: &RepairPlan) -> Result<Repaired, LogError> {
    let lock_path = dir.join("LOCK");
    let lock = env.fs.lock(&lock_path).map_err(|e| io("lock", &lock_path, e))?;
    let _lock = lock.ok_or_else(|| LogError::Locked { path: dir.display().to_string() })?;
    let id = &planned.partition;
    let folder = partition_dir(dir, id);
    super::commit::finish(env, &folder)?;
    let survey = scan::survey(env, dir, id, &mut |_| {})?;
    if plan(id, &survey).as_ref() != Some(planned) {
        let why = format!("partition {id} has changed since the plan was made: look at it again");
        return Err(LogError::Invalid { why });
    }
    if let Some(why) = &planned.hopeless {
        let why = format!("partition {id} cannot be repaired: {why}; restore it from a backup");
        return Err(LogError::Invalid { why });
    }
    let mut incarnation = Incarnation::NIL;
    (env.random)(&mut incarnation.0).map_err(|e| io("draw an incarnation for", &folder, e))?;
    let steps = Rewrite { env, id, folder: &folder, survey: &survey }
        .everything(incarnation, planned.branch.0)?;
    let exchange = Exchange { tag: format!("damaged-{:.8}", incarnation.to_string()), steps };
    let before = recovery::list(env, &folder)?;
    exchange.commit(env, &folder)?;
    let aside = exchange.steps.iter().filter(|(base, _)| before.iter().any(|(b, _)| b == base));
    let aside = aside.map(|(base, _)| folder.join(exchange.aside(*base)));
    Ok(Repaired { incarnation, aside: aside.collect() })
}

fn plan(id: &PartitionId, survey: &Survey) -> Option<RepairPlan> {
    if survey.runs.is_empty() {
        return None;
    }
    let nothing = survey.segments.iter().all(|segment| segment.is_lost);
    let nothing = nothing.then(|| "no segment tells which origins it knew".to_owned());
    let cuts = survey.runs.iter().filter(|run| run.is_tail || !run.offsets.is_empty());
    let branch = cuts.map(|run| run.offsets.start).min().unwrap_or(survey.end).min(survey.end);
    let rewritten: Vec<&Surveyed> = touched(survey);
    Some(RepairPlan {
        partition: id.clone(),
        incarnation: survey.incarnation,
        branch: LogOffset(branch),
        start: LogOffset(survey.start()),
        end: LogOffset(survey.end),
        damage: survey.runs.iter().map(Damage::from).collect(),
        bytes: rewritten.iter().filter(|segment| !segment.is_lost).map(|s| s.bytes).sum(),
        rewritten: rewritten.iter().map(|segment| segment.path.clone()).collect(),
        hopeless: survey.hopeless.clone().or(nothing),
    })
}

/// The segments that are written anew: the damaged ones, one behind whose beginning tells of a lost entry, and the newest,
/// whose tail must be known to be durable before anything follows it.
fn touched(survey: &Survey) -> Vec<&Surveyed> {
    let mut found = Vec::new();
    let mut ends_lost = false;
    for (index, segment) in survey.segments.iter().enumerate() {
        let newest = index + 1 == survey.segments.len();
        let lost = segment.parts.iter().any(|part| matches!(part, Part::Lost(_)));
        if newest || lost || ends_lost || !segment.is_intact || segment.is_lost {
            found.push(segment);
        }
        ends_lost = match segment.parts.last() {
            Some(part) => matches!(part, Part::Lost(_)),
            None => ends_lost,
        };
    }
    found
}

struct Rewrite<'a> {
    env: &'a Env,
    id: &'a PartitionId,
    folder: &'a Path,
    survey: &'a Survey,
}

/// The state behind the last entry that was written.
struct Written {
    fold: Fold,
    fingerprint: Fingerprint,
}

impl Rewrite<'_> {
    /// Writes every new segment and the one that begins the new life; returns what is to be exchanged.
    fn everything(
        &self,
        incarnation: Incarnation,
        branch: u64,
    ) -> Result<Vec<(u64, What)>, LogError> {
        let survey = self.survey;
        let again: Vec<u64> = touched(survey).iter().map(|segment| segment.base).collect();
        let mut steps = Vec::new();
        let mut carried: Option<Written> = None;
        for (index, segment) in survey.segments.iter().enumerate() {
            let next = survey.segments.get(index + 1);
            if segment.is_lost {
                steps.push((segment.base, What::PutAside));
            } else if !again.contains(&segment.base) {
                carried = match next {
                    Some(next) if !next.is_intact => Some(self.walked(segment)?),
                    _ => None,
                };
            } else if next.is_none() && segment.base == survey.end {
                carried = Some(self.beginning(segment, carried)?);
            } else {
                let begun = self.beginning(segment, carried)?;
                let end = next.map_or(survey.end, |next| next.base);
                carried = Some(self.segment(segment, begun, end)?);
                steps.push((segment.base, What::Replace));
            }
        }
        let Some(Written { fold, fingerprint }) = carried else {
            return Err(LogError::Invalid { why: format!("partition {} is empty", self.id) });
        };
        if fold != survey.fold {
            return Err(self.differs(survey.end));
        }
        let (newest_clock, forgot) = survey
            .segments
            .last()
            .map_or((0, 0), |newest| (newest.header.clock_ms, newest.snapshot.forgot_before_ms));
        let snapshot = SnapshotHeader {
            ancestors: branched(&survey.incarnation, branch, &survey.ancestors),
            fingerprint: fingerprint.0,
            durable_to: survey.end,
            forgot_before_ms: forgot,
            epochs: 0,
            origins: 0,
        };
        let header =
            SegmentHeader { base: survey.end, incarnation, salt: 0, clock_ms: newest_clock };
        let out = Out::create(self, header, snapshot, &fold)?;
        out.finish()?;
        steps.push((survey.end, What::Replace));
        Ok(steps)
    }

    /// The state a segment begins with: as it says, or as the one before it ends.
    fn beginning(&self, segment: &Surveyed, carried: Option<Written>) -> Result<Written, LogError> {
        let said = if segment.is_intact {
            let opened = segment::open(&*self.env.fs, &segment.path, None);
            let fold = opened.and_then(|opened| opened.fold());
            Some(fold.map_err(|e| unread(self.id, segment.base, &segment.path, e))?)
        } else {
            segment.salvaged.clone()
        };
        match (said, carried) {
            (Some(fold), Some(carried)) => {
                let mut expected = carried.fold;
                expected.forget(segment.snapshot.forgot_before_ms);
                if !expected.is_restated_by(&fold) {
                    return Err(self.differs(segment.base));
                }
                Ok(Written { fold, fingerprint: carried.fingerprint })
            }
            (Some(fold), None) => {
                Ok(Written { fold, fingerprint: Fingerprint(segment.snapshot.fingerprint) })
            }
            (None, Some(mut carried)) => {
                carried.fold.forget(segment.snapshot.forgot_before_ms);
                Ok(carried)
            }
            (None, None) => Err(self.differs(segment.base)),
        }
    }

    /// The state behind a sound segment.
    fn walked(&self, segment: &Surveyed) -> Result<Written, LogError> {
        let refuse = |e| unread(self.id, segment.base, &segment.path, e);
        let opened = segment::open(&*self.env.fs, &segment.path, None);
        let opened = opened.map_err(refuse)?;
        let extent = recovery::extent(opened, segment.bytes).map_err(refuse)?;
        Ok(Written { fold: extent.fold, fingerprint: extent.fingerprint })
    }

    /// Writes one segment anew, its lost numbers taken by losses.
    fn segment(&self, segment: &Surveyed, begun: Written, end: u64) -> Result<Written, LogError> {
        let snapshot = SnapshotHeader {
            fingerprint: begun.fingerprint.0,
            durable_to: end,
            ..segment.snapshot.clone()
        };
        let mut out = Out::create(self, segment.header, snapshot, &begun.fold)?;
        out.written = begun;
        let file = self.env.fs.open(&segment.path).map_err(|e| io("open", &segment.path, e))?;
        for part in &segment.parts {
            match part {
                Part::Sound(bytes) => {
                    let mut walk = Walk::new(file.clone(), segment.salt, bytes.start);
                    loop {
                        let found = walk
                            .step(bytes.end, true)
                            .map_err(|e| unread(self.id, out.next, &segment.path, e))?;
                        let Some(found) = found else { break };
                        let crc = found.prefix.payload_crc;
                        out.entry(found.prefix.kind, &found.header, &found.payload, crc)?;
                    }
                }
                Part::Lost(run) => {
                    let run = self.survey.runs.get(*run).filter(|run| !run.is_tail);
                    run.map_or(Ok(()), |run| out.losses(run))?;
                }
            }
        }
        if out.next != end {
            return Err(self.differs(out.next));
        }
        out.finish()
    }

    /// What was written and what the sound entries prove differ: nothing is exchanged.
    fn differs(&self, offset: u64) -> LogError {
        let why = format!(
            "partition {} cannot be repaired: what is left does not fit together at offset {offset}; restore it from a backup",
            self.id
        );
        LogError::Invalid { why }
    }
}

/// A segment that is being written, replayed as it goes.
struct Out<'a> {
    id: &'a PartitionId,
    file: std::sync::Arc<dyn DiskFile>,
    path: PathBuf,
    salt: u64,
    buffer: Vec<u8>,
    at: u64,
    next: u64,
    written: Written,
}

impl<'a> Out<'a> {
    fn create(
        rewrite: &Rewrite<'a>,
        header: SegmentHeader,
        snapshot: SnapshotHeader,
        fold: &Fold,
    ) -> Result<Self, LogError> {
        let env = rewrite.env;
        let path = rewrite.folder.join(segment::file_name(header.base) + NEW);
        let salt = env.random_u64().map_err(|e| io("draw a salt for", &path, e))?;
        let header = SegmentHeader { salt, ..header };
        let snapshot = SnapshotHeader {
            epochs: count(fold.saved_epochs().count()),
            origins: count(fold.len()),
            ..snapshot
        };
        let fingerprint = Fingerprint(snapshot.fingerprint);
        let buffer = segment::front(&header, &snapshot, fold)
            .map_err(|e| LogError::Invalid { why: e.to_string() })?;
        let file = env.fs.create(&path).map_err(|e| io("create", &path, e))?;
        let written = Written { fold: fold.clone(), fingerprint };
        let (id, next) = (rewrite.id, header.base);
        Ok(Self { id, file, path, salt, buffer, at: 0, next, written })
    }

    fn entry(
        &mut self,
        kind: u8,
        header: &[u8],
        payload: &[u8],
        payload_crc: u32,
    ) -> Result<(), LogError> {
        let refuse = |why: String| LogError::Invalid {
            why: format!("entry {} of {} does not follow any more: {why}", self.next, self.id),
        };
        let record = entry::decode(kind, header, length(payload)).map_err(refuse)?;
        self.written.fold.replay(&record).map_err(refuse)?;
        // Synced as a whole before it has its name.
        let place = Place { salt: self.salt, offset: self.next, synced_to: self.next };
        entry::write(&mut self.buffer, place, kind, header, payload, payload_crc)
            .map_err(|e| LogError::Invalid { why: e.to_string() })?;
        self.written.fingerprint = entry::fingerprint(header, payload_crc);
        self.next += 1;
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// One entry for every number of the run.
    fn losses(&mut self, run: &Run) -> Result<(), LogError> {
        let mut losses = run.losses.iter();
        for _ in run.offsets.clone() {
            let loss = match losses.next() {
                Some(loss) => loss.clone(),
                None => self.nothing(),
            };
            let (kind, header) = entry::encode(&Record::Loss(Box::new(loss)))
                .map_err(|e| LogError::Invalid { why: e.to_string() })?;
            self.entry(kind, &header, &[], 0)?;
        }
        Ok(())
    }

    /// Takes a number and moves nothing.
    fn nothing(&self) -> LossRecord {
        match self.written.fold.saved_origins().next() {
            Some(after) => LossRecord { registers: false, from: after.mark, after },
            None => mend::nobody(),
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.file.write_all_at(&self.buffer, self.at).map_err(|e| io("write", &self.path, e))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Written, LogError> {
        self.flush()?;
        self.file.sync().map_err(|e| io("sync", &self.path, e))?;
        Ok(self.written)
    }
}

fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
