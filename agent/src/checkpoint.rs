//! The checkpoint: what the agent may forget without losing anything, kept so that a restart is quick and exact.
//!
//! ```text
//! garam-agent-checkpoint 1 <crc32c of the body, 8 hex digits> <body length>\n
//! { "entries": [ … ] }                                       JSON, for people to read
//! ```
//!
//! In: entries from the engine, never ahead of an acknowledgement. Out: the same entries after a restart.
//! Promise: written to a new name, synced, renamed, folder synced; the previous generation stays as `checkpoint.prev`, and
//! only a whole one is ever moved there; a damaged file falls back to it, and without either the core's marks decide. A
//! failed save leaves what was there. A newer format stops the agent untouched.
//! Not here: when to write (the engine: at most once a second), the lock on the folder ([`crate::run`]).

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_disk::{Fs, RealFs};
use garam_proto::{Descriptor, FileDescriptor, Generation, LineageId, SourceName, StreamName};
use serde::{Deserialize, Serialize};

use crate::source::Expected;

const NAME: &str = "checkpoint";
const PREVIOUS: &str = "checkpoint.prev";
const TEMPORARY: &str = "checkpoint.tmp";
const WORD: &str = "garam-agent-checkpoint";
const FORMAT: u16 = 1;
/// No checkpoint is larger: half a million files.
const LARGEST: usize = 256 * 1024 * 1024;

/// What is remembered of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// [`Generation::NIL`] while the core was not asked yet.
    pub generation: Generation,
    pub source: SourceName,
    pub stream: StreamName,
    pub lineage: Option<LineageId>,
    pub descriptor: FileDescriptor,
    /// Where the origin began.
    pub start: u128,
    /// Everything below is acknowledged.
    pub mark: u128,
    pub tail_hash: u64,
    /// The largest end that was seen: what lies between `mark` and it is missed when the file is gone.
    pub seen: u128,
    /// The content cannot be read any more: `[mark, seen)` is a gap to report.
    pub lost: bool,
    pub source_epoch: u32,
    pub records_acked: u64,
    pub gap_bytes: u64,
    pub skipped_bytes: u64,
}

/// Why a checkpoint cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(
        "{path} has checkpoint format {found}, this agent reads up to {FORMAT}: upgrade the agent; nothing was changed"
    )]
    Newer { path: PathBuf, found: u16 },
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// What a state folder held.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No checkpoint at all: the agent runs here for the first time, or its state was lost.
    Nothing,
    Entries(Vec<Entry>),
    /// There were files, but none whole: the core's marks decide.
    Damaged,
}

/// The checkpoint of one state folder.
pub struct Store {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    /// The file `checkpoint` is whole, so that it may take the place of the generation before it.
    whole: bool,
}

impl Store {
    /// Reads the newest whole checkpoint of a state folder.
    pub fn open(fs: Arc<dyn Fs>, folder: &Path) -> Result<(Self, Loaded), CheckpointError> {
        let mut store = Self { fs, folder: folder.into(), whole: false };
        let mut loaded = Loaded::Nothing;
        for name in [NAME, PREVIOUS] {
            let path = folder.join(name);
            let decoded = match store.fs.read(&path, LARGEST) {
                Ok(bytes) => decode(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if is_damage(&error) => {
                    Decoded::Damaged("the disk does not give it back")
                }
                Err(source) => return Err(CheckpointError::Io { action: "read", path, source }),
            };
            match decoded {
                Decoded::Entries(entries) => {
                    store.whole = name == NAME;
                    return Ok((store, Loaded::Entries(entries)));
                }
                Decoded::Newer(found) => return Err(CheckpointError::Newer { path, found }),
                Decoded::Damaged(why) => {
                    loaded = Loaded::Damaged;
                    tracing::warn!(path = %path.display(), why, "checkpoint is damaged, going back");
                }
            }
        }
        Ok((store, loaded))
    }

    /// Replaces the checkpoint.
    pub fn save(&mut self, entries: &[Entry]) -> Result<(), CheckpointError> {
        let (path, temporary) = (self.folder.join(NAME), self.folder.join(TEMPORARY));
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| CheckpointError::Io { action, path, source }
        };
        // What an earlier attempt left goes first: pages that failed to reach the disk belong to that file, not to a new one.
        match self.fs.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &temporary)(error));
            }
            _ => {}
        }
        let file = self.fs.create(&temporary).map_err(failed("create", &temporary))?;
        file.write_all_at(&encode(entries), 0).map_err(failed("write", &temporary))?;
        file.sync().map_err(failed("sync", &temporary))?;
        // A rename that reports an error may have happened all the same: from here on `checkpoint` is replaced in place.
        if std::mem::take(&mut self.whole) {
            let previous = self.folder.join(PREVIOUS);
            self.fs.rename(&path, &previous).map_err(failed("rename", &path))?;
        }
        self.fs.rename(&temporary, &path).map_err(failed("rename", &temporary))?;
        self.whole = true;
        self.fs.sync_dir(&self.folder).map_err(failed("sync", &self.folder))
    }
}

/// Whether the disk lost the bytes, as opposed to the agent not being let near them.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Reads the newest whole checkpoint of a state folder, without the intent to write one.
pub fn load(folder: &Path) -> Result<Loaded, CheckpointError> {
    Store::open(Arc::new(RealFs), folder).map(|(_, loaded)| loaded)
}

/// What one file of a state folder holds.
#[derive(Debug, PartialEq, Eq)]
pub enum FileState {
    Absent,
    Whole(Vec<Entry>),
    Damaged(&'static str),
    Newer(u16),
}

/// Looks at both generations and changes nothing: the newer one first.
pub fn inspect(folder: &Path) -> Result<[(PathBuf, FileState); 2], CheckpointError> {
    let look = |name| {
        let path = folder.join(name);
        let state = match RealFs.read(&path, LARGEST) {
            Ok(bytes) => match decode(&bytes) {
                Decoded::Entries(entries) => FileState::Whole(entries),
                Decoded::Newer(found) => FileState::Newer(found),
                Decoded::Damaged(why) => FileState::Damaged(why),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Absent,
            Err(error) if is_damage(&error) => FileState::Damaged("the disk does not give it back"),
            Err(source) => return Err(CheckpointError::Io { action: "read", path, source }),
        };
        Ok((path, state))
    };
    Ok([look(NAME)?, look(PREVIOUS)?])
}

enum Decoded {
    Entries(Vec<Entry>),
    Newer(u16),
    Damaged(&'static str),
}

fn encode_body(entries: &[Entry]) -> Vec<u8> {
    let stored = Stored { entries: entries.iter().map(StoredEntry::from).collect() };
    // Serialising numbers and strings cannot fail.
    serde_json::to_vec(&stored).unwrap_or_default()
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let body = encode_body(entries);
    let mut out =
        format!("{WORD} {FORMAT} {:08x} {}\n", crc32c::crc32c(&body), body.len()).into_bytes();
    out.extend_from_slice(&body);
    out
}

fn decode(bytes: &[u8]) -> Decoded {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(128)]) else {
        return Decoded::Damaged("no header line");
    };
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let Ok(header) = std::str::from_utf8(header) else {
        return Decoded::Damaged("the header line is not text");
    };
    let mut words = header.split(' ');
    if words.next() != Some(WORD) {
        return Decoded::Damaged("not a checkpoint");
    }
    let Some(format) = words.next().and_then(|format| format.parse::<u16>().ok()) else {
        return Decoded::Damaged("unknown format");
    };
    // Compared as text: a flipped bit may leave the same number in other letters.
    let crc = words.next() == Some(format!("{:08x}", crc32c::crc32c(body)).as_str());
    let whole = crc && words.next() == Some(body.len().to_string().as_str());
    match (format.cmp(&FORMAT), whole) {
        (Ordering::Less, _) => return Decoded::Damaged("unknown format"),
        (Ordering::Equal, false) => return Decoded::Damaged("checksum or length differs"),
        // What this version would write itself is no newer format: a bit of its number is flipped.
        (Ordering::Greater, true) if body_of(body).is_ok_and(|own| encode_body(&own) == body) => {
            return Decoded::Damaged("the format number is wrong");
        }
        (Ordering::Greater, _) => return Decoded::Newer(format),
        (Ordering::Equal, true) => {}
    }
    match body_of(body) {
        Ok(entries) => Decoded::Entries(entries),
        Err(why) => Decoded::Damaged(why),
    }
}

fn body_of(body: &[u8]) -> Result<Vec<Entry>, &'static str> {
    let stored = serde_json::from_slice::<Stored>(body).map_err(|_| "the body does not parse")?;
    let entries = stored.entries.into_iter().map(StoredEntry::into_entry).collect::<Option<_>>();
    entries.ok_or("an entry has a malformed id or name")
}

/// The form on disk: positions and hashes as text, since JSON readers lose bits of large numbers.
#[derive(Serialize, Deserialize)]
struct Stored {
    entries: Vec<StoredEntry>,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    generation: String,
    source: String,
    stream: String,
    lineage: Option<String>,
    path: PathBytes,
    file_system: String,
    inode: u64,
    birth_ns: Option<i64>,
    head_len: u32,
    head_hash: String,
    start: String,
    mark: String,
    tail_hash: String,
    seen: String,
    lost: bool,
    source_epoch: u32,
    records_acked: u64,
    gap_bytes: u64,
    #[serde(default)]
    skipped_bytes: u64,
}

/// A path as text where it is text, else as bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathBytes {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        let descriptor = &entry.descriptor;
        let path = match String::from_utf8(descriptor.path.clone()) {
            Ok(text) => PathBytes::Text(text),
            Err(error) => PathBytes::Bytes(error.into_bytes()),
        };
        Self {
            generation: entry.generation.to_string(),
            source: entry.source.to_string(),
            stream: entry.stream.to_string(),
            lineage: entry.lineage.map(|lineage| hex(lineage.0)),
            path,
            file_system: hex(descriptor.file_system),
            inode: descriptor.inode,
            birth_ns: descriptor.birth_ns,
            head_len: descriptor.head_len,
            head_hash: hex(descriptor.head_hash),
            start: entry.start.to_string(),
            mark: entry.mark.to_string(),
            tail_hash: hex(entry.tail_hash),
            seen: entry.seen.to_string(),
            lost: entry.lost,
            source_epoch: entry.source_epoch,
            records_acked: entry.records_acked,
            gap_bytes: entry.gap_bytes,
            skipped_bytes: entry.skipped_bytes,
        }
    }
}

impl StoredEntry {
    fn into_entry(self) -> Option<Entry> {
        let path = match self.path {
            PathBytes::Text(text) => text.into_bytes(),
            PathBytes::Bytes(bytes) => bytes,
        };
        Some(Entry {
            generation: self.generation.parse().ok()?,
            source: SourceName::new(self.source).ok()?,
            stream: StreamName::new(self.stream).ok()?,
            lineage: match self.lineage {
                Some(lineage) => Some(LineageId(unhex(&lineage)?)),
                None => None,
            },
            descriptor: FileDescriptor {
                path,
                file_system: unhex(&self.file_system)?,
                inode: self.inode,
                birth_ns: self.birth_ns,
                head_len: self.head_len,
                head_hash: unhex(&self.head_hash)?,
            },
            start: self.start.parse().ok()?,
            mark: self.mark.parse().ok()?,
            tail_hash: unhex(&self.tail_hash)?,
            seen: self.seen.parse().ok()?,
            lost: self.lost,
            source_epoch: self.source_epoch,
            records_acked: self.records_acked,
            gap_bytes: self.gap_bytes,
            skipped_bytes: self.skipped_bytes,
        })
    }
}

impl Entry {
    pub fn described(&self) -> Descriptor {
        Descriptor::File(self.descriptor.clone())
    }

    /// What a source is told of it before the first search.
    pub fn expected(&self) -> Expected {
        Expected {
            descriptor: self.descriptor.clone(),
            mark: self.mark,
            tail_hash: self.tail_hash,
            seen: self.seen,
        }
    }
}

fn hex(value: u64) -> String {
    format!("{value:016x}")
}

fn unhex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
