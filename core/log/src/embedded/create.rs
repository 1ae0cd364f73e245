//! Writes segments that begin: the first of a partition, the next one, and the copy of a recovered tail.
//!
//! In: the state at a base offset, and for a copy the entries behind it. Out: a file with a name. Promise: it gets its name
//! by a rename after everything in it is synced, and the folder is synced after that; before, it is a temporary file that
//! the next start removes. Not here: what the bytes are (`segment`, `entry`), when one is due (`partition`, `recovery`).

use std::path::{Path, PathBuf};

use garam_proto::{Incarnation, PartitionId};

use super::Env;
use super::entry::{self, Place, Prefix};
use super::partition::{Active, Live};
use super::recovery::{Extent, Recovered, io, unread};
use super::segment::{self, SegmentHeader, SnapshotHeader};
use super::shared::SegmentInfo;
use crate::api::{Fingerprint, LogError};
use crate::fold::Fold;

/// How many bytes of a copied tail are written at a time.
const COPY_CHUNK: usize = 1024 * 1024;

/// Writes the good part of the newest segment into a new file of the same base, which then takes its name.
#[expect(clippy::too_many_arguments, reason = "one call, the state of the segment being replaced")]
pub(crate) fn copy_tail(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    mut segments: Vec<SegmentInfo>,
    path: &Path,
    old: SegmentHeader,
    old_snapshot: SnapshotHeader,
    extent: Extent,
) -> Result<Recovered, LogError> {
    let mut opened = segment::open(&*env.fs, path, Some(extent.end_at))
        .map_err(|e| unread(id, old.base, path, e))?;
    let at_base = opened.fold().map_err(|e| unread(id, old.base, path, e))?;
    let salt = env.random_u64().map_err(|e| io("draw a salt for", path, e))?;
    let header = SegmentHeader { salt, ..old };
    let snapshot = SnapshotHeader { durable_to: extent.end, ..old_snapshot };
    let front = segment::front(&header, &snapshot, &at_base)
        .map_err(|e| LogError::Invalid { why: e.to_string() })?;

    let temporary = dir.join(segment::file_name(old.base) + segment::TEMPORARY);
    let file = env.fs.create(&temporary).map_err(|e| io("create", &temporary, e))?;
    let entries_at = front.len() as u64;
    let (mut chunk, mut written) = (front, 0);
    loop {
        let found =
            opened.walk.step(extent.end_at, true).map_err(|e| unread(id, extent.end, path, e))?;
        if chunk.len() >= COPY_CHUNK || found.is_none() {
            file.write_all_at(&chunk, written).map_err(|e| io("write", &temporary, e))?;
            written += chunk.len() as u64;
            chunk.clear();
        }
        let Some(found) = found else { break };
        let Prefix { kind, offset, synced_to, payload_crc, .. } = found.prefix;
        let place = Place { salt, offset, synced_to };
        entry::write(&mut chunk, place, kind, &found.header, &found.payload, payload_crc)
            .map_err(|e| LogError::Invalid { why: e.to_string() })?;
    }
    file.sync().map_err(|e| io("sync", &temporary, e))?;
    env.fs.rename(&temporary, path).map_err(|e| io("rename", &temporary, e))?;
    env.fs.sync_dir(dir).map_err(|e| io("sync", dir, e))?;

    let info = SegmentInfo {
        base: old.base,
        path: path.to_path_buf(),
        bytes: written,
        clock_ms: old.clock_ms,
    };
    segments.push(info);
    let active = Active { file, salt, entries_at, bytes: written };
    let ancestors = segment::shared_below(&snapshot.ancestors);
    let live = Live::new(id, dir, old.incarnation, snapshot.ancestors, active, extent);
    Ok(Recovered {
        incarnation: old.incarnation,
        ancestors,
        segments,
        end: live.next(),
        live: Ok(live),
        known: None,
    })
}

/// Begins a new partition, as a new incarnation.
pub(crate) fn first(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    clock_ms: u64,
) -> Result<Recovered, LogError> {
    let mut incarnation = Incarnation::NIL;
    (env.random)(&mut incarnation.0).map_err(|e| io("draw an incarnation for", dir, e))?;
    let salt = env.random_u64().map_err(|e| io("draw a salt for", dir, e))?;
    let header = SegmentHeader { base: 0, incarnation, salt, clock_ms };
    let fold = Fold::default();
    let (active, info) = write_segment(env, dir, &header, &[], Fingerprint(0), 0, &fold)
        .map_err(|(action, path, e)| io(action, &path, e))?;
    let extent = Extent {
        fold,
        end: 0,
        end_at: active.bytes,
        fingerprint: Fingerprint(0),
        entries: 0,
        broken: None,
    };
    let live = Live::new(id, dir, incarnation, Vec::new(), active, extent);
    let (ancestors, segments) = (Vec::new(), vec![info]);
    Ok(Recovered { incarnation, ancestors, segments, end: 0, live: Ok(live), known: None })
}

/// Writes an empty segment and gives it its name. On an error nothing with a name was changed.
pub(crate) fn write_segment(
    env: &Env,
    dir: &Path,
    header: &SegmentHeader,
    ancestors: &[(Incarnation, u64)],
    fingerprint: Fingerprint,
    forgot_before_ms: u64,
    fold: &Fold,
) -> Result<(Active, SegmentInfo), (&'static str, PathBuf, std::io::Error)> {
    let snapshot = SnapshotHeader {
        ancestors: ancestors.to_vec(),
        fingerprint: fingerprint.0,
        durable_to: header.base,
        forgot_before_ms,
        epochs: count(fold.saved_epochs().count()),
        origins: count(fold.len()),
    };
    let path = dir.join(segment::file_name(header.base));
    let temporary = dir.join(segment::file_name(header.base) + segment::TEMPORARY);
    let at = |action: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| (action, path, error)
    };
    let front = segment::front(header, &snapshot, fold)
        .map_err(|e| at("encode", &path)(std::io::Error::other(e)))?;
    let file = env.fs.create(&temporary).map_err(at("create", &temporary))?;
    file.write_all_at(&front, 0).map_err(at("write", &temporary))?;
    file.sync().map_err(at("sync", &temporary))?;
    env.fs.rename(&temporary, &path).map_err(at("rename", &temporary))?;
    env.fs.sync_dir(dir).map_err(at("sync", dir))?;
    let bytes = front.len() as u64;
    let active = Active { file, salt: header.salt, entries_at: bytes, bytes };
    Ok((active, SegmentInfo { base: header.base, path, bytes, clock_ms: header.clock_ms }))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
