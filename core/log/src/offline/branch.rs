//! Begins a new life of a partition at its end: same entries so far, another future.
//!
//! In: a partition whose segments are whole and synced. Out: one more segment, empty, under a new incarnation that names the
//! one before it and where it branched. Promise: the segments before it are not touched; one rename makes it so.

use std::path::Path;

use garam_proto::{Incarnation, PartitionId};

use crate::api::LogError;
use crate::embedded::directory::partition_dir;
use crate::embedded::recovery::{self, damage, io, unread};
use crate::embedded::segment::{self, SegmentHeader};
use crate::embedded::{Env, create};

/// Begins a new life at the end of a partition of the log in `dir`. Every source epoch is raised by `raise_epochs`, so that
/// generations minted from now on are newer than any that was minted after the copy this partition came from.
pub fn begin_new_life(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    raise_epochs: u32,
) -> Result<Incarnation, LogError> {
    let folder = partition_dir(dir, id);
    let Some((base, path)) = recovery::list(env, &folder)?.pop() else {
        let why = format!("partition {id} has no segment in {}", folder.display());
        return Err(LogError::Invalid { why });
    };
    let refuse = |error| unread(id, base, &path, error);
    let opened = segment::open(&*env.fs, &path, None).map_err(refuse)?;
    let size = opened.walk.file().size().map_err(|e| io("read", &path, e))?;
    let (old, snapshot) = (opened.header, opened.snapshot.clone());
    let extent = recovery::extent(opened, size).map_err(refuse)?;
    if let Some(broken) = extent.broken {
        return Err(damage(id, extent.end, &path, broken.at, broken.why));
    }
    let mut incarnation = Incarnation::NIL;
    (env.random)(&mut incarnation.0).map_err(|e| io("draw an incarnation for", &folder, e))?;
    let salt = env.random_u64().map_err(|e| io("draw a salt for", &folder, e))?;
    let header = SegmentHeader { base: extent.end, incarnation, salt, clock_ms: old.clock_ms };
    let ancestors = branched(&old.incarnation, extent.end, &snapshot.ancestors);
    let mut fold = extent.fold;
    fold.raise_epochs(raise_epochs);
    let forgot = snapshot.forgot_before_ms;
    create::write_segment(env, &folder, &header, &ancestors, extent.fingerprint, forgot, &fold)
        .map_err(|(action, path, error)| io(action, &path, error))?;
    Ok(incarnation)
}

/// The ancestors of a life that branches from `parent` at `at`.
pub(crate) fn branched(
    parent: &Incarnation,
    at: u64,
    before: &[(Incarnation, u64)],
) -> Vec<(Incarnation, u64)> {
    let all = std::iter::once((*parent, at)).chain(before.iter().copied());
    all.take(segment::MAX_ANCESTORS).collect()
}
