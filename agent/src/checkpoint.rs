//! The checkpoint: what the agent may forget without losing anything, kept so that a restart is quick and exact.
//!
//! ```text
//! garam-agent-checkpoint 1 <crc32c of the body, 8 hex digits> <body length>\n
//! { "entries": [ … ] }                                       JSON, for people to read
//! ```
//!
//! In: entries from the engine, never ahead of an acknowledgement. Out: the same entries after a restart.
//! Promise: written to a new name, synced, renamed, folder synced; the previous generation stays as `checkpoint.prev`; a
//! damaged file falls back to it, and without either the core's marks decide. A newer format stops the agent untouched.
//! Not here: when to write (the engine: at most once a second), the lock on the folder ([`crate::run`]).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use garam_proto::{Descriptor, FileDescriptor, Generation, LineageId, SourceName, StreamName};
use serde::{Deserialize, Serialize};

const NAME: &str = "checkpoint";
const PREVIOUS: &str = "checkpoint.prev";
const TEMPORARY: &str = "checkpoint.tmp";
const WORD: &str = "garam-agent-checkpoint";
const FORMAT: u16 = 1;

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

/// Reads the newest whole checkpoint of a state folder.
pub fn load(folder: &Path) -> Result<Loaded, CheckpointError> {
    let mut damaged = false;
    for name in [NAME, PREVIOUS] {
        let path = folder.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(CheckpointError::Io { action: "read", path, source }),
        };
        match decode(&bytes) {
            Decoded::Entries(entries) => return Ok(Loaded::Entries(entries)),
            Decoded::Newer(found) => return Err(CheckpointError::Newer { path, found }),
            Decoded::Damaged(why) => {
                damaged = true;
                tracing::warn!(path = %path.display(), why, "checkpoint is damaged, going back");
            }
        }
    }
    Ok(if damaged { Loaded::Damaged } else { Loaded::Nothing })
}

/// Replaces the checkpoint of a state folder.
pub fn save(folder: &Path, entries: &[Entry]) -> Result<(), CheckpointError> {
    let (path, temporary) = (folder.join(NAME), folder.join(TEMPORARY));
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { action, path, source }
    };
    let mut file = File::create(&temporary).map_err(failed("create", &temporary))?;
    file.write_all(&encode(entries)).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("sync", &temporary))?;
    match fs::rename(&path, folder.join(PREVIOUS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("rename", &path)(error));
        }
        _ => {}
    }
    fs::rename(&temporary, &path).map_err(failed("rename", &temporary))?;
    let folder_file = File::open(folder).map_err(failed("open", folder))?;
    folder_file.sync_all().map_err(failed("sync", folder))
}

enum Decoded {
    Entries(Vec<Entry>),
    Newer(u16),
    Damaged(&'static str),
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let stored = Stored { entries: entries.iter().map(StoredEntry::from).collect() };
    // Serialising numbers and strings cannot fail.
    let body = serde_json::to_vec(&stored).unwrap_or_default();
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
    match words.next().and_then(|format| format.parse::<u16>().ok()) {
        Some(FORMAT) => {}
        Some(format) if format > FORMAT => return Decoded::Newer(format),
        _ => return Decoded::Damaged("unknown format"),
    }
    let crc = words.next().and_then(|crc| u32::from_str_radix(crc, 16).ok());
    let len = words.next().and_then(|len| len.parse::<usize>().ok());
    if len != Some(body.len()) || crc != Some(crc32c::crc32c(body)) {
        return Decoded::Damaged("checksum or length differs");
    }
    let Ok(stored) = serde_json::from_slice::<Stored>(body) else {
        return Decoded::Damaged("the body does not parse");
    };
    match stored.entries.into_iter().map(StoredEntry::into_entry).collect() {
        Some(entries) => Decoded::Entries(entries),
        None => Decoded::Damaged("an entry has a malformed id or name"),
    }
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
        })
    }
}

impl Entry {
    pub fn described(&self) -> Descriptor {
        Descriptor::File(self.descriptor.clone())
    }
}

fn hex(value: u64) -> String {
    format!("{value:016x}")
}

fn unhex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mark: u128) -> Entry {
        Entry {
            generation: Generation([7; 16]),
            source: SourceName::new("s").unwrap(),
            stream: StreamName::new("t").unwrap(),
            lineage: Some(LineageId(u64::MAX)),
            descriptor: FileDescriptor {
                path: b"/var/log/\xff.log".to_vec(),
                file_system: u64::MAX,
                inode: 3,
                birth_ns: Some(1),
                head_len: 4096,
                head_hash: u64::MAX - 1,
            },
            start: 0,
            mark,
            tail_hash: 9,
            seen: mark + 1,
            lost: false,
            source_epoch: 1,
            records_acked: 2,
            gap_bytes: 0,
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), Loaded::Nothing);
        save(folder.path(), &[entry(1 << 100)]).unwrap();
        assert_eq!(load(folder.path()).unwrap(), Loaded::Entries(vec![entry(1 << 100)]));
    }

    #[test]
    fn a_checkpoint_torn_at_any_byte_falls_back_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &[entry(1)]).unwrap();
        save(folder.path(), &[entry(2)]).unwrap();
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(load(folder.path()).unwrap(), Loaded::Entries(vec![entry(1)]), "cut {len}");
            let mut zeroed = whole.clone();
            zeroed[len..].fill(0);
            fs::write(&path, &zeroed).unwrap();
            assert_eq!(load(folder.path()).unwrap(), Loaded::Entries(vec![entry(1)]), "NUL {len}");
        }
        fs::write(folder.path().join(PREVIOUS), "").unwrap();
        assert_eq!(load(folder.path()).unwrap(), Loaded::Damaged);
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, format!("{WORD} 2 0 0\n")).unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Newer { found: 2, .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{WORD} 2 0 0\n"));
    }
}
