//! A spool: what cannot be read again is kept on the disk until the core has it.
//!
//! ```text
//! listener ─► Inlet ─► writer thread: append ─► fdatasync ─► readable ─► the file source ships it ─► acknowledged: removed
//!                      STATE_DIR/spool/NAME/log.N, lines, a new N every few MiB
//! ```
//!
//! In: batches of whole lines. Out: segment files that `source/file` tails like any other files. Promise: only what is synced
//! may be read, so that a power cut never takes back what the core has; a segment is removed only when it is closed and the
//! core holds all of it; segments never take more than the limit. When the limit is reached whoever can wait waits, and
//! whoever cannot is told to drop and count.
//! Here: which segments there are and how far each may be read. In `writer` how they are written, in `segment` how they are
//! found again after a crash, in `inlet` the way in, in `counts` what is counted. Not here: what a line means, who sent it.

mod counts;
mod inlet;
mod segment;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use garam_disk::Fs;
use garam_proto::{SourceName, StreamName};
use tokio::sync::{Notify, watch};

pub use counts::{Counts, SpoolStatus};
pub use inlet::{Batch, Inlet};
use segment::Left;
pub(super) use segment::number_of;
pub use writer::{Writer, Written};

/// Beside the checkpoint.
const FOLDER: &str = "spool";
const NOTE: &str = "note";
/// A spool is cut into about so many segments, so that acknowledged ones make room early.
const SEGMENTS: u64 = 8;
const LARGEST_SEGMENT: u64 = 16 * 1024 * 1024;
const SMALLEST_SEGMENT: u64 = 64 * 1024;

/// What every table with a spool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolPlan {
    pub name: SourceName,
    pub stream: StreamName,
    /// Largest size of the spool.
    pub limit: u64,
    /// How long a message that is written may wait to be synced.
    pub sync: Duration,
}

/// Finds in a line what has to be remembered of it: where reading goes on behind it.
pub type NoteOf = fn(&[u8]) -> Option<Vec<u8>>;

/// One spool of the state folder.
pub struct Spool {
    pub name: SourceName,
    pub counts: Counts,
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    note_of: Option<NoteOf>,
    state: Mutex<State>,
    /// The largest number a segment ever had in this process.
    newest: AtomicU64,
    /// The note that is on the disk, as far as is known.
    saved: Mutex<Option<Vec<u8>>>,
    /// Something was removed, or the limit was raised.
    room: Notify,
    /// Whether nothing can be taken in now: no room in the spool, or none on the disk.
    full: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    limit: u64,
    segments: BTreeMap<u64, Segment>,
    note: Option<Vec<u8>>,
}

/// What is known of one segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    /// What it takes on the disk.
    bytes: u64,
    /// How far it is synced, in whole lines.
    readable: u64,
    /// It will not grow any more.
    closed: bool,
}

impl Spool {
    /// Opens the spool of a table, with what an earlier run left in it. With `note_of` it remembers what that finds in the
    /// last line, also when the line itself is long gone.
    pub fn open(
        fs: Arc<dyn Fs>,
        state_dir: &Path,
        plan: &SpoolPlan,
        note_of: Option<NoteOf>,
    ) -> io::Result<Arc<Self>> {
        let folder = folder(state_dir, &plan.name);
        fs.create_dir(&folder)?;
        let Left { segments, last_line } = segment::recover(&*fs, &folder)?;
        let note = match last_line.zip(note_of).and_then(|(line, note_of)| note_of(&line)) {
            Some(note) => Some(note),
            None => segment::get(&*fs, &folder, NOTE)?,
        };
        Ok(Arc::new(Self {
            name: plan.name.clone(),
            counts: Counts::default(),
            fs,
            folder,
            note_of,
            newest: AtomicU64::new(segments.keys().next_back().copied().unwrap_or(0)),
            state: Mutex::new(State { limit: plan.limit, segments, note }),
            saved: Mutex::new(None),
            room: Notify::new(),
            full: watch::Sender::new(false),
        }))
    }

    /// What `note_of` found in the last synced line.
    pub fn note(&self) -> Option<Vec<u8>> {
        self.state().note.clone()
    }

    /// Remembers this, durably, as if a line had said it.
    pub fn keep_note(&self, note: Vec<u8>) -> io::Result<()> {
        self.state().note = Some(note);
        self.save_note()
    }

    fn takes_notes(&self) -> bool {
        self.note_of.is_some()
    }

    fn note_line(&self, line: &[u8]) {
        if let Some(note) = self.note_of.and_then(|note_of| note_of(line)) {
            self.state().note = Some(note);
        }
    }

    fn save_note(&self) -> io::Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let note = self.note_of.and(self.note());
        if let Some(note) = note.filter(|note| saved.as_ref() != Some(note)) {
            segment::put(&*self.fs, &self.folder, NOTE, &note)?;
            *saved = Some(note);
        }
        Ok(())
    }

    /// The glob that names its segments.
    pub fn glob(&self) -> String {
        let folder = globset::escape(&self.folder.to_string_lossy());
        format!("{folder}/{}*", segment::BASE)
    }

    pub fn set_limit(&self, limit: u64) {
        self.state().limit = limit;
        self.room.notify_one();
    }

    /// How far a segment may be read.
    pub(super) fn readable(&self, number: u64) -> u64 {
        self.state().segments.get(&number).map_or(0, |segment| segment.readable)
    }

    /// Whether a segment will not grow any more.
    pub(super) fn is_closed(&self, number: u64) -> bool {
        self.state().segments.get(&number).is_some_and(|segment| segment.closed)
    }

    /// Removes a closed segment: the core has all of it.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        if !self.is_closed(number) {
            return Ok(());
        }
        // What is known of its last line must outlive it.
        self.save_note()?;
        match self.fs.remove(&self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.state().segments.remove(&number);
        self.room.notify_one();
        Ok(())
    }

    pub fn used(&self) -> u64 {
        self.state().used()
    }

    pub fn limit(&self) -> u64 {
        self.state().limit
    }

    fn segment_size(&self) -> u64 {
        (self.limit() / SEGMENTS).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(segment::name(number))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Where the spool of a source lies.
pub fn folder(state_dir: &Path, name: &SourceName) -> PathBuf {
    state_dir.join(FOLDER).join(name.as_str())
}

/// Spools in a state folder that hold something although nobody in `named` writes into them any more.
pub fn orphans(state_dir: &Path, named: &[&SourceName]) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = std::fs::read_dir(state_dir.join(FOLDER)) else { return Vec::new() };
    let is_named = |path: &Path| named.iter().any(|name| folder(state_dir, name) == path);
    let folders = entries.filter_map(Result::ok).map(|entry| entry.path());
    let orphans = folders.filter(|path| !is_named(path));
    orphans
        .map(|path| (segment::bytes_in(&path), path))
        .filter(|o| o.0 > 0)
        .map(|(b, p)| (p, b))
        .collect()
}
