//! Looks into a log folder without opening it as a log: for `garam log inspect`, `tap`, `dlq`, and for oracles.
//!
//! In: the folder of a running or a stopped log. Out: what lies in it (streams, partitions, segments, origins) with every
//! problem found, and the entries of a partition in order. Promise: nothing is written, locked or created.
//! Of a running log the newest entries may be shown before they are durable, and an entry that is just being written
//! looks like a torn tail. Not here: repairing anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_proto::{Incarnation, LogOffset, PartitionId, StreamName};
use tokio::sync::watch;

use crate::api::{Ancestor, Bounds, Entry, LogError, OriginState};
use crate::embedded::Env;
use crate::embedded::directory::partition_dir;
use crate::embedded::reader::Reader;
use crate::embedded::recovery::{self, Broken, Extent, damage};
use crate::embedded::segment::{self, SegmentError, SegmentHeader, SnapshotHeader};
use crate::embedded::shared::{PartitionShared, SegmentInfo};

/// One partition as it lies on disk.
#[derive(Debug, Clone)]
pub struct PartitionReport {
    pub partition: PartitionId,
    pub incarnation: Incarnation,
    /// The incarnations this one branched from, the newest first.
    pub ancestors: Vec<Ancestor>,
    pub start: LogOffset,
    /// One past the last good entry.
    pub end: LogOffset,
    pub bytes: u64,
    pub segments: Vec<SegmentReport>,
    /// As they stand at `end`.
    pub origins: Vec<OriginState>,
    pub problems: Vec<Problem>,
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    pub file: PathBuf,
    pub base: LogOffset,
    /// One past its last good entry.
    pub end: LogOffset,
    pub entries: u64,
    pub bytes: u64,
    pub incarnation: Incarnation,
    /// Log clock when it began, milliseconds.
    pub clock_ms: u64,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub file: PathBuf,
    pub at: u64,
    /// The first offset that cannot be read because of it.
    pub offset: LogOffset,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// Bytes behind the last whole entry, never acknowledged: cut when the log is opened. Usual after a crash.
    TornTail,
    /// Something that was durable cannot be read.
    Damage,
    /// Written by a newer build.
    NewerFormat,
}

/// Everything in the folder, by stream and partition. Reads and checks every entry.
pub fn inspect(dir: &Path) -> Result<Vec<PartitionReport>, LogError> {
    let env = Env::default();
    let mut reports = Vec::new();
    for partition in partitions_in(dir)? {
        reports.push(survey(&env, dir, &partition)?.0);
    }
    Ok(reports)
}

/// The partitions that lie in the folder.
pub fn partitions_in(dir: &Path) -> Result<Vec<PartitionId>, LogError> {
    std::fs::metadata(dir).map_err(|e| recovery::io("open", dir, e))?;
    partitions(&Env::default(), dir)
}

/// [`partitions_in`] on a file system of the caller's.
pub fn partitions_with(env: &Env, dir: &Path) -> Result<Vec<PartitionId>, LogError> {
    partitions(env, dir)
}

/// The entries of a partition, from `from` or its start on. Ends at the last good one, or with an error at damage.
pub fn entries(
    dir: &Path,
    partition: &PartitionId,
    from: Option<LogOffset>,
) -> Result<Entries, LogError> {
    let env = Env::default();
    let folder = partition_dir(dir, partition);
    std::fs::metadata(&folder).map_err(|e| recovery::io("open", &folder, e))?;
    let (_, shared, published) = survey(&env, dir, partition)?;
    let from = from.unwrap_or(shared.bounds().start);
    let reader = Reader::open(env.fs, Arc::new(shared), from)?;
    Ok(Entries { reader, failed: false, _published: published })
}

/// See [`entries`].
pub struct Entries {
    reader: Reader,
    failed: bool,
    _published: watch::Sender<u64>,
}

impl Iterator for Entries {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.reader.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

fn partitions(env: &Env, dir: &Path) -> Result<Vec<PartitionId>, LogError> {
    let mut found = Vec::new();
    for listed in env.fs.list(dir).map_err(|e| recovery::io("list", dir, e))? {
        let Ok(stream) = StreamName::new(listed.name.clone()) else { continue };
        if !listed.is_dir {
            continue;
        }
        let folder = dir.join(&listed.name);
        for partition in env.fs.list(&folder).map_err(|e| recovery::io("list", &folder, e))? {
            if let Ok(index) = partition.name.parse() {
                found.push(PartitionId { stream: stream.clone(), index });
            }
        }
    }
    Ok(found)
}

/// Walks a partition and shows it like an open one, up to its last good entry.
fn survey(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
) -> Result<(PartitionReport, PartitionShared, watch::Sender<u64>), LogError> {
    let mut report = PartitionReport {
        partition: id.clone(),
        incarnation: Incarnation::NIL,
        ancestors: Vec::new(),
        start: LogOffset::ZERO,
        end: LogOffset::ZERO,
        bytes: 0,
        segments: Vec::new(),
        origins: Vec::new(),
        problems: Vec::new(),
    };
    let mut infos = Vec::new();
    let mut before: Option<Extent> = None;
    let named = recovery::list(env, &partition_dir(dir, id))?;
    for (index, (base, path)) in named.iter().enumerate() {
        let newest = index + 1 == named.len();
        match look(env, &mut report, before.as_ref(), *base, path, newest)? {
            Some((extent, info)) => {
                infos.push(info);
                before = Some(extent);
            }
            None => break,
        }
    }
    if let Some(extent) = before {
        report.end = LogOffset(extent.end);
        report.origins = extent.fold.origins().map(|state| state.as_ref().clone()).collect();
    }
    report.start = report.segments.first().map_or(report.end, |segment| segment.base);
    report.bytes = report.segments.iter().map(|segment| segment.bytes).sum();
    let (published, end) = watch::channel(report.end.0);
    let life = (report.incarnation, report.ancestors.clone());
    let shared = PartitionShared::new(id.clone(), 0, life, infos, end);
    if let Some(problem) = report.problems.iter().find(|p| p.kind != ProblemKind::TornTail) {
        let Problem { offset, file, at, why, .. } = problem;
        shared.set_fault(&damage(id, offset.0, file, *at, why.clone()));
    }
    Ok((report, shared, published))
}

/// Adds one segment to the report. `None` when what follows cannot be trusted any more.
fn look(
    env: &Env,
    report: &mut PartitionReport,
    before: Option<&Extent>,
    base: u64,
    path: &Path,
    newest: bool,
) -> Result<Option<(Extent, SegmentInfo)>, LogError> {
    let problem = |kind, at, offset, why: String| Problem {
        kind,
        file: path.to_path_buf(),
        at,
        offset: LogOffset(offset),
        why,
    };
    let opened = segment::open(&*env.fs, path, None).and_then(|opened| {
        let size = opened.walk.file().size().map_err(SegmentError::Io)?;
        let (header, snapshot) = (opened.header, opened.snapshot.clone());
        let at_base = opened.fold()?;
        Ok((header, snapshot, at_base, recovery::extent(opened, size)?, size))
    });
    let (header, snapshot, at_base, extent, size) = match opened {
        Ok(opened) => opened,
        Err(SegmentError::Newer(version)) => {
            let why = SegmentError::Newer(version).to_string();
            report.problems.push(problem(ProblemKind::NewerFormat, 0, base, why));
            return Ok(None);
        }
        Err(SegmentError::Broken { at, why }) => {
            report.problems.push(problem(ProblemKind::Damage, at, base, why));
            return Ok(None);
        }
        Err(SegmentError::Io(error)) => return Err(recovery::io("read", path, error)),
    };
    if let Some(before) = before {
        let mut expected = before.fold.clone();
        expected.forget(snapshot.forgot_before_ms);
        let follows = before.end == base
            && before.fingerprint.0 == snapshot.fingerprint
            && continues(&header, &snapshot, report.incarnation)
            && if header.incarnation == report.incarnation {
                expected == at_base
            } else {
                expected.is_restated_by(&at_base)
            };
        if !follows {
            let why = "its snapshot does not follow from the segment before it".into();
            report.problems.push(problem(ProblemKind::Damage, 0, base, why));
            return Ok(None);
        }
    }
    report.incarnation = header.incarnation;
    report.ancestors = segment::shared_below(&snapshot.ancestors);
    report.segments.push(SegmentReport {
        file: path.to_path_buf(),
        base: LogOffset(base),
        end: LogOffset(extent.end),
        entries: extent.entries,
        bytes: size,
        incarnation: header.incarnation,
        clock_ms: header.clock_ms,
    });
    let bytes = extent.end_at;
    let info = SegmentInfo { base, path: path.to_path_buf(), bytes, clock_ms: header.clock_ms };
    if let Some(Broken { at, why, whole }) = extent.broken.clone() {
        let torn =
            newest && !whole && !recovery::is_damage(env, path, &header, &snapshot, &extent)?;
        let kind = if torn { ProblemKind::TornTail } else { ProblemKind::Damage };
        report.problems.push(problem(kind, at, extent.end, why));
    }
    Ok(Some((extent, info)))
}

/// Whether a segment is of the same life as the one before it, or of one that branched from it.
fn continues(header: &SegmentHeader, snapshot: &SnapshotHeader, before: Incarnation) -> bool {
    header.incarnation == before || snapshot.ancestors.iter().any(|(older, _)| *older == before)
}

/// Where a partition begins and ends on disk, without keeping anything open.
pub fn bounds(dir: &Path, partition: &PartitionId) -> Result<Bounds, LogError> {
    Ok(survey(&Env::default(), dir, partition)?.1.bounds())
}
