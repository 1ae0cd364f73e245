//! Collects what a backup takes of a log, of a running core or a stopped one.
//!
//! In: partitions, in two groups. Out: open files with the bytes of each that count, and where each partition begins and
//! ends with them. Promise: nothing is written or locked; all files are open before any end is looked at, so that a running
//! core that trims takes nothing away; the ends of the first group are taken before those of the second. With quarantines
//! first, every record they name lies in the copy of its input, and every record below an input's start that was put aside
//! lies in the copy of the quarantine. The last file ends with its last whole entry; a damaged one is refused.
//! Not here: writing the copy and proving it (whoever takes the backup).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use garam_disk::DiskFile;
use garam_proto::{Incarnation, LogOffset, PartitionId};

use crate::api::LogError;
use crate::embedded::Env;
use crate::embedded::directory::partition_dir;
use crate::embedded::recovery::{self, damage, io, newer};
use crate::embedded::segment::{self, SegmentError};

/// A partition as a backup takes it.
pub struct Gathered {
    pub partition: PartitionId,
    pub incarnation: Incarnation,
    pub start: LogOffset,
    pub end: LogOffset,
    pub files: Vec<GatheredFile>,
}

/// A segment, open.
pub struct GatheredFile {
    /// Below the log's folder.
    pub name: String,
    pub file: Arc<dyn DiskFile>,
    /// What counts of it.
    pub bytes: u64,
}

type Opened = BTreeMap<u64, Arc<dyn DiskFile>>;

/// Collects the partitions, each from the segment that holds the offset `from` tells on.
pub fn gather(
    env: &Env,
    dir: &Path,
    groups: [&[PartitionId]; 2],
    from: &dyn Fn(&PartitionId) -> LogOffset,
) -> Result<Vec<Gathered>, LogError> {
    let mut opened = Vec::new();
    for id in groups.into_iter().flatten() {
        opened.push((id, open_all(env, dir, id, Opened::new())?));
    }
    let mut gathered = Vec::new();
    for (id, files) in opened {
        let files = open_all(env, dir, id, files)?;
        if !files.is_empty() {
            gathered.push(cut(env, dir, id, files, from(id))?);
        }
    }
    Ok(gathered)
}

/// Opens every segment; those that have gone since stay open as they were.
fn open_all(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    mut files: Opened,
) -> Result<Opened, LogError> {
    let folder = partition_dir(dir, id);
    let listed = env.fs.list(&folder).map_err(|e| io("list", &folder, e))?;
    if listed.iter().any(|listed| listed.name == super::commit::JOURNAL) {
        let why = format!("a repair of {id} was decided and is not finished: run it again");
        return Err(LogError::Invalid { why });
    }
    for (base, path) in recovery::list(env, &folder)? {
        match env.fs.open(&path) {
            Ok(file) => drop(files.insert(base, file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("open", &path, error)),
        }
    }
    Ok(files)
}

fn cut(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    files: Opened,
    from: LogOffset,
) -> Result<Gathered, LogError> {
    let folder = partition_dir(dir, id);
    let bases: Vec<u64> = files.keys().copied().collect();
    let needed = |base: &u64| {
        let next = bases.iter().find(|next| *next > base);
        next.is_none_or(|next| *next > from.0)
    };
    let mut gathered = Gathered {
        partition: id.clone(),
        incarnation: Incarnation::NIL,
        start: from,
        end: from,
        files: Vec::new(),
    };
    let newest = bases.last().copied();
    for (base, file) in files.into_iter().filter(|(base, _)| needed(base)) {
        let path = folder.join(segment::file_name(base));
        let mut bytes = file.size().map_err(|e| io("read", &path, e))?;
        if gathered.files.is_empty() {
            gathered.start = LogOffset(base);
        }
        if Some(base) == newest {
            let refuse = |error: SegmentError| match error {
                SegmentError::Newer(found) => newer(&path, found),
                SegmentError::Broken { at, why } => damage(id, base, &path, at, why),
                SegmentError::Io(error) => io("read", &path, error),
            };
            let opened = segment::open_file(file.clone(), Some(bytes)).map_err(refuse)?;
            let (header, snapshot) = (opened.header, opened.snapshot.clone());
            let extent = recovery::extent(opened, bytes).map_err(refuse)?;
            if let Some(broken) = &extent.broken
                && (broken.whole || recovery::is_damage(env, &path, &header, &snapshot, &extent)?)
            {
                return Err(damage(id, extent.end, &path, broken.at, broken.why.clone()));
            }
            bytes = extent.end_at;
            gathered.incarnation = header.incarnation;
            gathered.end = LogOffset(extent.end);
        }
        let name = format!("{}/{:04}/{}", id.stream, id.index, segment::file_name(base));
        gathered.files.push(GatheredFile { name, file, bytes });
    }
    Ok(gathered)
}
