//! Opens a partition after whatever happened: finds its durable end, and rewrites its unsealed tail.
//!
//! In: a partition's folder. Out: its segments, its state at the end, and an active segment that is wholly on stable
//! storage. Promise: what was acknowledged is there; what was torn is cut; nothing is answered from pages that may never
//! have reached the disk, because the tail is *copied* and synced first (a failed sync leaves pages that read back as
//! valid). A crash during recovery changes nothing: the copy counts only once it has its name.
//!
//! ```text
//! newest segment   header ✓ snapshot ✓ entry ✓ entry ✓ entry ✗ ...
//!                                                       │
//!     below `durable_to`, or whole but not following from those before it, or an entry header behind it
//!     (right salt, right checksum) has `synced_to` above it?
//!         yes: damage. The partition serves what lies before it and stops there; nothing is deleted.
//!         no:  torn tail, never acknowledged. Cut here.
//! ```
//!
//! Sealed segments are not walked (their readers check them), so the cost grows with the unsealed tail only.
//! Not here: what a record means (`fold`), what the disk layout is (`segment`), trimming (`retention`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_proto::{Incarnation, PartitionId};

use super::entry::{self, PREFIX_LEN, Prefix};
use super::partition::Live;
use super::segment::{self, Opened, SegmentError, SegmentHeader, SnapshotHeader};
use super::shared::SegmentInfo;
use super::walk::WalkError;
use super::{Env, create};
use crate::api::{Ancestor, Fingerprint, LogError, OriginState};
use crate::fold::{Fold, Record};
use crate::offline::commit;

/// A partition as it was found.
pub(crate) struct Recovered {
    pub incarnation: Incarnation,
    pub ancestors: Vec<Ancestor>,
    pub segments: Vec<SegmentInfo>,
    pub end: u64,
    /// The writer's half, or why there can be none.
    pub live: Result<Live, LogError>,
    /// What is known of the origins of a partition that cannot be written: they must not be registered elsewhere.
    pub known: Option<Fold>,
}

/// Where the good entries of a segment end.
pub(crate) struct Extent {
    pub fold: Fold,
    pub end: u64,
    pub end_at: u64,
    pub fingerprint: Fingerprint,
    pub entries: u64,
    pub broken: Option<Broken>,
}

/// The first entry that is not good.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub at: u64,
    pub why: String,
    /// Its checksums are good, but it does not follow, or this build does not know it. No crash leaves such an entry.
    pub whole: bool,
}

/// The segments of a partition by name, oldest first, with the newest header of each.
pub(crate) fn list(env: &Env, dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let names = env.fs.list(dir).map_err(|e| io("list", dir, e))?;
    let segments = names.iter().filter(|listed| !listed.is_dir);
    let named = segments.filter_map(|f| Some((segment::parse_name(&f.name)?, dir.join(&f.name))));
    Ok(named.collect())
}

/// Refuses a folder written by a newer build, before anything in it is changed.
pub(crate) fn check_versions(env: &Env, dir: &Path) -> Result<(), LogError> {
    for (_, path) in list(env, dir)? {
        let mut bytes = [0; segment::HEADER_LEN];
        let file = env.fs.open(&path).map_err(|e| io("open", &path, e))?;
        file.read_full_at(&mut bytes, 0).map_err(|e| io("read", &path, e))?;
        if let Err(SegmentError::Newer(found)) = SegmentHeader::parse(&bytes) {
            return Err(newer(&path, found));
        }
    }
    Ok(())
}

/// Opens or creates a partition. `clock_ms`: the log clock now.
pub(crate) fn open(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    clock_ms: u64,
) -> Result<Recovered, LogError> {
    make_folder(env, dir)?;
    commit::finish(env, dir)?;
    remove_leftovers(env, dir)?;
    let named = list(env, dir)?;
    let Some(((base, path), sealed)) = named.split_last() else {
        return create::first(env, dir, id, clock_ms);
    };
    let mut segments = Vec::new();
    for (base, path) in sealed {
        segments.push(sealed_info(env, *base, path)?);
    }
    let opened = match segment::open(&*env.fs, path, None) {
        Ok(opened) if opened.header.base == *base => opened,
        Ok(_) => {
            return Ok(unreadable(env, id, segments, *base, path, 0, "its name and base differ"));
        }
        Err(SegmentError::Newer(found)) => return Err(newer(path, found)),
        Err(SegmentError::Broken { at, why }) => {
            return Ok(unreadable(env, id, segments, *base, path, at, &why));
        }
        Err(SegmentError::Io(error)) => return Err(io("read", path, error)),
    };
    let size = opened.walk.file().size().map_err(|e| io("read", path, e))?;
    let (header, snapshot) = (opened.header, opened.snapshot.clone());
    let extent = match extent(opened, size) {
        Ok(extent) => extent,
        Err(SegmentError::Broken { at, why }) => {
            return Ok(unreadable(env, id, segments, *base, path, at, &why));
        }
        Err(SegmentError::Newer(found)) => return Err(newer(path, found)),
        Err(SegmentError::Io(error)) => return Err(io("read", path, error)),
    };
    if let Some(Broken { at, why, whole }) = extent.broken.clone() {
        if whole || is_damage(env, path, &header, &snapshot, &extent)? {
            tracing::error!(partition = %id, offset = extent.end, file = %path.display(), at, why,
                action = "restore the partition from a backup, or accept the loss with an operator's decision",
                "partition is damaged below its durable end");
            let bytes = extent.end_at;
            let info =
                SegmentInfo { base: *base, path: path.clone(), bytes, clock_ms: header.clock_ms };
            segments.push(info);
            return Ok(Recovered {
                incarnation: header.incarnation,
                ancestors: segment::shared_below(&snapshot.ancestors),
                segments,
                end: extent.end,
                live: Err(damage(id, extent.end, path, at, why)),
                known: Some(extent.fold),
            });
        }
        tracing::warn!(partition = %id, offset = extent.end, file = %path.display(), at, cut = size - at, why,
            "cutting a torn tail that was never acknowledged");
    }
    create::copy_tail(env, dir, id, segments, path, header, snapshot, extent)
}

/// The folder of a partition, and the names that lead to it, on stable storage. A folder that is there already may have been
/// made by a process that died before it could sync its name: what is written into it now must not be lost with it.
fn make_folder(env: &Env, dir: &Path) -> Result<(), LogError> {
    env.fs.create_dir(dir).map_err(|e| io("create", dir, e))?;
    // The stream's folder, the log's, and what the log lies in.
    for above in dir.ancestors().skip(1).take(3) {
        env.fs.sync_dir(above).map_err(|e| io("sync", above, e))?;
    }
    Ok(())
}

/// Walks a segment from its snapshot to the first entry that is not good, or to its end.
pub(crate) fn extent(mut opened: Opened, size: u64) -> Result<Extent, SegmentError> {
    let mut extent = Extent {
        fold: opened.fold()?,
        end: opened.header.base,
        end_at: opened.entries_at(),
        fingerprint: Fingerprint(opened.snapshot.fingerprint),
        entries: 0,
        broken: None,
    };
    loop {
        let found = match opened.walk.step(size, true) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(extent),
            Err(WalkError::Broken { at, why }) => {
                extent.broken = Some(Broken { at, why, whole: false });
                return Ok(extent);
            }
            Err(WalkError::Io(error)) => return Err(SegmentError::Io(error)),
        };
        if let Err(why) = replay(&mut extent.fold, &found.prefix, &found.header, extent.end) {
            extent.broken = Some(Broken { at: found.at, why, whole: true });
            return Ok(extent);
        }
        extent.end += 1;
        extent.entries += 1;
        extent.end_at = opened.walk.at();
        extent.fingerprint = entry::fingerprint(&found.header, found.prefix.payload_crc);
    }
}

/// Checks an entry's place and content against everything before it, and moves the fold past it.
pub(crate) fn replay(
    fold: &mut Fold,
    prefix: &Prefix,
    header: &[u8],
    expected: u64,
) -> Result<(Record, Arc<OriginState>), String> {
    if prefix.offset != expected {
        return Err(format!("the entry says it is {}, not {expected}", prefix.offset));
    }
    let record = entry::decode(prefix.kind, header, prefix.payload_len)?;
    let state = fold.replay(&record)?;
    Ok((record, state))
}

/// Whether the entry that is not good was on stable storage once.
pub(crate) fn is_damage(
    env: &Env,
    path: &Path,
    header: &SegmentHeader,
    snapshot: &SnapshotHeader,
    extent: &Extent,
) -> Result<bool, LogError> {
    was_durable(env, path, (header.salt, snapshot.durable_to), (extent.end, extent.end_at))
}

/// Whether the entry that should stand at byte `end_at` under the number `end` was on stable storage once.
pub(crate) fn was_durable(
    env: &Env,
    path: &Path,
    (salt, durable_to): (u64, u64),
    (end, end_at): (u64, u64),
) -> Result<bool, LogError> {
    if end < durable_to {
        return Ok(true);
    }
    let file = env.fs.open(path).map_err(|e| io("open", path, e))?;
    let size = file.size().map_err(|e| io("read", path, e))?;
    let len = usize::try_from(size.saturating_sub(end_at)).unwrap_or(usize::MAX);
    let mut rest = vec![0; len];
    let filled = file.read_full_at(&mut rest, end_at).map_err(|e| io("read", path, e))?;
    rest.truncate(filled);
    Ok(proves_damage(&rest, salt, end))
}

/// Whether a valid entry header stands anywhere in `rest` that says everything up to beyond `bad` was durable.
fn proves_damage(rest: &[u8], salt: u64, bad: u64) -> bool {
    let starts =
        rest.windows(PREFIX_LEN).enumerate().filter(|(_, window)| window.starts_with(b"GRe1"));
    starts.into_iter().any(|(at, window)| {
        let Ok(prefix) = Prefix::parse(window) else { return false };
        let header_at = at + PREFIX_LEN;
        let header = rest.get(header_at..header_at + prefix.header_len as usize);
        prefix.synced_to > bad
            && prefix.offset > bad
            && header.is_some_and(|header| prefix.covers(salt, window, header))
    })
}

fn sealed_info(env: &Env, base: u64, path: &Path) -> Result<SegmentInfo, LogError> {
    let file = env.fs.open(path).map_err(|e| io("open", path, e))?;
    let bytes = file.size().map_err(|e| io("read", path, e))?;
    // A sealed segment with a bad header is its reader's to report; its age is then unknown and counts as young.
    let clock_ms = clock_of(env, path).unwrap_or(u64::MAX);
    Ok(SegmentInfo { base, path: path.to_path_buf(), bytes, clock_ms })
}

/// The log clock when a segment began, if its header can be read.
pub(crate) fn clock_of(env: &Env, path: &Path) -> Option<u64> {
    let mut front = [0; segment::HEADER_LEN];
    env.fs.open(path).ok()?.read_full_at(&mut front, 0).ok()?;
    Some(SegmentHeader::parse(&front).ok()?.clock_ms)
}

/// The newest segment cannot even be begun: serve those before it, write nothing.
fn unreadable(
    env: &Env,
    id: &PartitionId,
    segments: Vec<SegmentInfo>,
    base: u64,
    path: &Path,
    at: u64,
    why: &str,
) -> Recovered {
    tracing::error!(partition = %id, offset = base, file = %path.display(), at, why,
        action = "restore the partition from a backup", "newest segment cannot be opened");
    let before = segments.last().and_then(|info| segment::open(&*env.fs, &info.path, None).ok());
    Recovered {
        incarnation: before.as_ref().map_or(Incarnation::NIL, |opened| opened.header.incarnation),
        ancestors: before
            .map_or(Vec::new(), |opened| segment::shared_below(&opened.snapshot.ancestors)),
        segments,
        end: base,
        live: Err(damage(id, base, path, at, why.to_owned())),
        known: None,
    }
}

fn remove_leftovers(env: &Env, dir: &Path) -> Result<(), LogError> {
    for listed in env.fs.list(dir).map_err(|e| io("list", dir, e))? {
        let unnamed =
            listed.name.ends_with(segment::TEMPORARY) || listed.name.ends_with(commit::NEW);
        if !listed.is_dir && unnamed {
            let path = dir.join(&listed.name);
            env.fs.remove(&path).map_err(|e| io("remove", &path, e))?;
        }
    }
    Ok(())
}

pub(crate) fn io(action: &'static str, path: &Path, error: std::io::Error) -> LogError {
    LogError::Io { action, path: path.display().to_string(), error: error.into() }
}

pub(crate) fn newer(path: &Path, found: u16) -> LogError {
    LogError::NewerFormat { path: path.display().to_string(), found, supported: segment::VERSION }
}

/// What an operator is told of a segment that cannot be read: only bytes that are wrong are damage, a disk that does not
/// answer is not.
pub(crate) fn unread(
    id: &PartitionId,
    offset: u64,
    path: &Path,
    error: impl Into<SegmentError>,
) -> LogError {
    match error.into() {
        SegmentError::Newer(found) => newer(path, found),
        SegmentError::Broken { at, why } => damage(id, offset, path, at, why),
        SegmentError::Io(error) => io("read", path, error),
    }
}

pub(crate) fn damage(id: &PartitionId, offset: u64, path: &Path, at: u64, why: String) -> LogError {
    LogError::Damaged {
        partition: id.clone(),
        offset: garam_proto::LogOffset(offset),
        file: path.display().to_string(),
        at,
        why,
    }
}
