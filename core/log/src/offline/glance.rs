//! Says where a partition begins and ends, which life it lives, what its fingerprint is at an offset and where an origin
//! stands, from its files.
//!
//! In: the folder of a running or a stopped log. Out: bounds, ancestors, a fingerprint, an origin. Promise: nothing is written, locked
//! or created; at most two segments are read, whatever the log holds. Not here: checking anything else (`verify`).

use std::path::Path;
use std::sync::Arc;

use garam_proto::{LogOffset, OriginId, PartitionId};
use tokio::sync::watch;

use crate::api::{Ancestor, Bounds, Fingerprint, LogError, OriginState};
use crate::embedded::Env;
use crate::embedded::directory::partition_dir;
use crate::embedded::reader::Reader;
use crate::embedded::recovery::{self, damage, io, newer};
use crate::embedded::segment::{self, SegmentError};
use crate::embedded::shared::{PartitionShared, SegmentInfo};

/// A partition at a glance.
#[derive(Debug, Clone)]
pub struct Glance {
    pub bounds: Bounds,
    pub ancestors: Vec<Ancestor>,
    segments: Vec<SegmentInfo>,
}

/// Looks at a partition.
pub fn glance(dir: &Path, id: &PartitionId) -> Result<Glance, LogError> {
    let env = Env::default();
    let folder = partition_dir(dir, id);
    let named = recovery::list(&env, &folder)?;
    let (Some((start, _)), Some((base, path))) = (named.first(), named.last()) else {
        let why = format!("partition {id} has no segment in {}", folder.display());
        return Err(LogError::Invalid { why });
    };
    let refuse = |error: SegmentError| match error {
        SegmentError::Newer(found) => newer(path, found),
        SegmentError::Broken { at, why } => damage(id, *base, path, at, why),
        SegmentError::Io(error) => io("read", path, error),
    };
    let opened = segment::open(&*env.fs, path, None).map_err(refuse)?;
    let size = opened.walk.file().size().map_err(|e| io("read", path, e))?;
    let (incarnation, clock_ms) = (opened.header.incarnation, opened.header.clock_ms);
    let ancestors = segment::shared_below(&opened.snapshot.ancestors);
    let extent = recovery::extent(opened, size).map_err(refuse)?;
    let mut segments = Vec::new();
    for (at, path) in &named {
        let sealed = at != base;
        let bytes = match sealed {
            true => env.fs.open(path).and_then(|file| file.size()),
            false => Ok(extent.end_at),
        };
        let bytes = bytes.map_err(|e| io("read", path, e))?;
        segments.push(SegmentInfo { base: *at, path: path.clone(), bytes, clock_ms });
    }
    let (start, end) = (LogOffset(*start), LogOffset(extent.end));
    Ok(Glance { bounds: Bounds { incarnation, start, end }, ancestors, segments })
}

impl Glance {
    /// The fingerprint at an offset inside the bounds.
    pub fn fingerprint(&self, id: &PartitionId, at: LogOffset) -> Result<Fingerprint, LogError> {
        Ok(self.reader(id, at)?.fingerprint())
    }

    /// An origin as the partition knows it at its end.
    pub fn origin(
        &self,
        id: &PartitionId,
        origin: &OriginId,
    ) -> Result<Option<OriginState>, LogError> {
        Ok(self.reader(id, self.bounds.end)?.origin(origin))
    }

    fn reader(&self, id: &PartitionId, at: LogOffset) -> Result<Reader, LogError> {
        let (_published, end) = watch::channel(self.bounds.end.0);
        let life = (self.bounds.incarnation, self.ancestors.clone());
        let shared = PartitionShared::new(id.clone(), 0, life, self.segments.clone(), end);
        Reader::open(Env::default().fs, Arc::new(shared), at)
    }
}
