//! Tells whether everything in a log's folder can be read: every checksum, number, fingerprint and rule of the fold.
//!
//! In: the folder of a running or a stopped log. Out: per partition how much was checked, and every damage with its place,
//! its reason and what was lost there. Promise: nothing is written, locked or created; a segment that a running core trims
//! or an entry it is just writing is no damage.

use std::ops::Range;
use std::path::{Path, PathBuf};

use garam_proto::{Incarnation, LogOffset, OriginId, PartitionId};

use super::scan::{self, Run};
use crate::api::{Ancestor, LogError};
use crate::embedded::Env;
use crate::embedded::segment;
use crate::fold::LossRecord;

/// A partition that was read from its first to its last byte.
#[derive(Debug, Clone)]
pub struct Verified {
    pub partition: PartitionId,
    pub incarnation: Incarnation,
    pub ancestors: Vec<Ancestor>,
    pub start: LogOffset,
    /// One past the last sound entry.
    pub end: LogOffset,
    pub segments: usize,
    pub entries: u64,
    pub bytes: u64,
    pub damage: Vec<Damage>,
    /// Bytes behind the last entry that were never acknowledged: byte and reason. Usual after a crash or while running.
    pub torn: Option<(u64, String)>,
    /// Why `repair` cannot help, when it cannot.
    pub hopeless: Option<String>,
}

/// A place that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub bytes: Range<u64>,
    /// The numbers of the entries it took; empty when only a segment's front is damaged and can be made anew.
    pub offsets: Range<u64>,
    pub why: String,
    pub lost: Vec<Lost>,
    /// It reaches to the end, so nothing can be proved lost: agents answer to the mark before it and send again.
    pub is_tail: bool,
}

/// What an origin lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub origin: OriginId,
    pub host: String,
    pub path: String,
    pub from: u128,
    pub to: u128,
}

/// Reads everything. `progress` is told the bytes read so far, file by file.
pub fn verify(
    dir: &Path,
    partitions: &[PartitionId],
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Verified>, LogError> {
    verify_with(&Env::default(), dir, partitions, progress)
}

/// [`verify`] on a file system of the caller's.
pub fn verify_with(
    env: &Env,
    dir: &Path,
    partitions: &[PartitionId],
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Verified>, LogError> {
    let mut done = 0;
    let mut verified = Vec::new();
    for partition in partitions {
        let survey = scan::survey(env, dir, partition, &mut |bytes| {
            done += bytes;
            progress(done);
        })?;
        verified.push(Verified {
            partition: partition.clone(),
            incarnation: survey.incarnation,
            ancestors: segment::shared_below(&survey.ancestors),
            start: LogOffset(survey.start()),
            end: LogOffset(survey.end),
            segments: survey.segments.len(),
            entries: survey.entries,
            bytes: survey.segments.iter().map(|segment| segment.bytes).sum(),
            damage: survey.runs.iter().map(Damage::from).collect(),
            torn: survey.torn,
            hopeless: survey.hopeless,
        });
    }
    Ok(verified)
}

impl From<&Run> for Damage {
    fn from(run: &Run) -> Self {
        Self {
            file: run.file.clone(),
            bytes: run.bytes.clone(),
            offsets: run.offsets.clone(),
            why: run.why.clone(),
            lost: run.losses.iter().filter(|loss| loss.from < loss.after.mark).map(lost).collect(),
            is_tail: run.is_tail,
        }
    }
}

fn lost(loss: &LossRecord) -> Lost {
    Lost {
        origin: loss.after.origin,
        host: loss.after.host.clone(),
        path: loss.after.descriptor.label(),
        from: loss.from,
        to: loss.after.mark,
    }
}
