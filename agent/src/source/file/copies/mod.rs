//! Compressed files among the others: which of them hold what another file held, and which are files of their own.
//!
//! ```text
//! sighted ─► waiting ─survey─► whole ─┬─ what an open file holds ─► twin ─ that is let go ─► its body
//!               ▲                     └─ anything else ───────────────────────────────────► met
//!               └─ incomplete: until it grows, or stayed as it is for `compressed_wait` ─► damaged, met
//! ```
//!
//! In: paths of the walk. Out: [`Met`]s, or a new body for a handle. Promise: a copy is never read beside its original; it
//! takes the original's place, with its position, when that is let go; a copy still being written is not begun; what
//! nobody knows is read whole. Whether a file that is gone was this one is the engine's question: content decides.
//! Here: what is known of them. In `waiting` the way to a decision, in `twins` copies and their originals, in `content` what tells them, in `grown`
//! files that became longer. Not here: decompression ([`super::packed`]), the pass through a file ([`super::survey`]).

mod content;
mod grown;
#[cfg(test)]
mod tests;
mod twins;
mod waiting;

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use garam_proto::{Descriptor, SourceName};

pub(super) use content::begins;

use super::open::OpenFile;
use super::packed::{Packed, head};
use super::plain::PlainFile;
use super::survey::Report;
use super::unpack::Format;
use super::{FileSet, Files, Key, identity};
use crate::config::{Compressed, StartAt};
use crate::source::{Expected, Handle, Met};

/// A file last written so long ago is taken for written.
const SETTLED: Duration = Duration::from_secs(5);
/// Surveyed files that hold what an open one holds.
const MOST_RIVALS: usize = 16;

/// What is known of compressed files that are not read (yet).
#[derive(Default)]
pub(super) struct Copies {
    waiting: HashMap<Key, Waiting>,
    running: Option<(Key, Receiver<io::Result<Report>>)>,
    twins: HashMap<Key, Twin>,
    /// Files that grew after they were met: what they hold now is looked at again.
    grown: Vec<Handle>,
    growing: Option<(Handle, Receiver<io::Result<Report>>)>,
    /// What the checkpoint knew, as long as that may spare a pass through a file.
    expected: Vec<Expected>,
    searched: bool,
}

/// A compressed file before anything is decided about it.
struct Waiting {
    file: Found,
    stage: Stage,
    /// An open file begins as this one does: it is probably its copy.
    alike: bool,
}

struct Twin {
    file: Found,
    packed: Packed,
    of: Handle,
}

/// A compressed file and where it belongs.
struct Found {
    plain: PlainFile,
    format: Format,
    head: Vec<u8>,
    source: SourceName,
    at_end: bool,
    lineage: Vec<u8>,
    /// Size and modification time as the walk saw them, now and at the walk before.
    stamp: Stamp,
    stamp_before: Option<Stamp>,
}

enum Stage {
    /// To be surveyed when it did not change between two walks.
    New,
    Surveying {
        stamp: Stamp,
    },
    /// Not whole as it is. It may still be written.
    Doubtful {
        stamp: Stamp,
        since: Instant,
        report: Option<Report>,
    },
}

/// What lies where a file is sought.
pub(super) enum Sought {
    Ordinary,
    Packed(Box<Met>),
    /// Compressed, and to be met by a search.
    Waiting,
}

type Stamp = (u64, i64, i64);

fn stamp(found: &Metadata) -> Stamp {
    (found.size(), found.mtime(), found.mtime_nsec())
}

impl Copies {
    pub(super) fn begin_search(&mut self) {
        self.each(|file| file.plain.begin_search());
    }

    /// Before the walks of a search.
    pub(super) fn begin_round(&mut self) {
        if std::mem::replace(&mut self.searched, true) && self.waiting.is_empty() {
            self.expected = Vec::new();
        }
        self.each(|file| file.stamp_before = Some(file.stamp));
    }

    fn each(&mut self, act: impl FnMut(&mut Found)) {
        let waiting = self.waiting.values_mut().map(|waiting| &mut waiting.file);
        waiting.chain(self.twins.values_mut().map(|twin| &mut twin.file)).for_each(act);
    }

    fn end_search(&mut self, now: Instant) {
        self.each(|file| file.plain.end_search(now));
        self.waiting.retain(|_, waiting| waiting.file.plain.has_name());
        self.twins.retain(|_, twin| twin.file.plain.has_name());
    }

    /// Takes note of a path of a compressed file that is known but not open.
    pub(super) fn sight(&mut self, key: Key, path: &Path, found: &Metadata) -> bool {
        let twin = self.twins.get_mut(&key).map(|twin| &mut twin.file);
        let file = self.waiting.get_mut(&key).map(|waiting| &mut waiting.file).or(twin);
        let Some(file) = file else { return false };
        if !file.plain.is_it(found) {
            self.waiting.remove(&key);
            self.twins.remove(&key);
            return false;
        }
        file.plain.sighted(path);
        file.stamp = stamp(found);
        // What it held when it was compared is no longer all of it.
        if let Some(twin) = self.twins.get(&key)
            && twin.packed.size != found.size()
            && let Some(twin) = self.twins.remove(&key)
        {
            self.waiting.insert(key, Waiting { file: twin.file, stage: Stage::New, alike: true });
        }
        true
    }

    /// Whether a file that is gone may turn up in one that was not looked through yet.
    pub(super) fn may_hold(&self, original: &Path) -> bool {
        self.waiting.values().any(|waiting| identity::is_kin(waiting.file.plain.path(), original))
    }

    /// Whether the next search has nothing to decide about what is known already.
    pub(super) fn is_settled(&self) -> bool {
        let surveying = self.running.is_some() || self.growing.is_some();
        self.waiting.is_empty() && self.grown.is_empty() && !surveying
    }

    pub(super) fn grew(&mut self, handle: Handle) {
        if !self.grown.contains(&handle) {
            self.grown.push(handle);
        }
    }
}

impl Files {
    pub(super) fn expect_known(&mut self, known: Vec<Expected>) {
        self.copies.expected = known;
    }

    /// Takes a new file that is compressed into the waiting ones. False when it is an ordinary one.
    pub(super) fn sight_packed(
        &mut self,
        set: usize,
        path: &Path,
        found: &Metadata,
    ) -> io::Result<bool> {
        let key = identity::key(found);
        let Some(begin) = identity::begin(path)? else { return Ok(true) };
        let Some(format) = Format::of(&begin) else {
            // A copy that was only just created shows nothing yet; it is looked at again.
            return Ok(begin.is_empty() && identity::has_packed_name(path));
        };
        let Some(set) = self.sets.get(set) else { return Ok(true) };
        if set.compressed == Compressed::Skip {
            tracing::info!(path = %path.display(), "a compressed file is not read (compressed = \"skip\")");
            self.note_skipped(key);
            return Ok(true);
        }
        let Some(file) = Found::open(set, path, format, self.at_end)? else { return Ok(true) };
        if Format::of(&file.head).is_some() {
            tracing::warn!(path = %path.display(), "compressed twice, not read");
            self.note_skipped(key);
            return Ok(true);
        }
        let alike = !self.alike(&file).is_empty();
        self.copies.waiting.insert(key, Waiting { file, stage: Stage::New, alike });
        Ok(true)
    }

    /// Opens a compressed file that no search finds; it is looked through at once.
    pub(super) fn seek_packed(&mut self, set: usize, path: &Path) -> io::Result<Sought> {
        let key = identity::key(&std::fs::metadata(path)?);
        if self.copies.waiting.contains_key(&key) || self.copies.twins.contains_key(&key) {
            return Ok(Sought::Waiting);
        }
        let begin = identity::begin(path)?.unwrap_or_default();
        let (Some(format), Some(set)) = (Format::of(&begin), self.sets.get(set)) else {
            return Ok(Sought::Ordinary);
        };
        let mut file = match Found::open(set, path, format, false)? {
            Some(file) if set.compressed == Compressed::Read => file,
            _ => return Ok(Sought::Waiting),
        };
        let packed = match self.known_as(&file) {
            Some(packed) => packed,
            None => {
                let report = self.task(&mut file)?.run()?;
                Packed::new(format, file.head.clone(), report.survey)
            }
        };
        let met = self.admit(file, packed, None);
        Ok(met.map_or(Sought::Waiting, |met| Sought::Packed(Box::new(met))))
    }

    /// Goes on with the waiting ones after a search; what is to be read is added to `met`.
    pub(super) fn tend_copies(&mut self, met: &mut Vec<Met>, now: Instant) {
        self.copies.end_search(now);
        self.tend_grown();
        self.admit_known(met);
        if let Some((key, report)) = self.copies.running.take() {
            match report.try_recv() {
                Err(TryRecvError::Empty) => self.copies.running = Some((key, report)),
                Ok(report) => self.surveyed(key, report, met, now),
                Err(TryRecvError::Disconnected) => {
                    self.surveyed(key, Err(io::Error::other("the survey broke off")), met, now);
                }
            }
        }
        self.settle_doubtful(met, now);
        if self.copies.running.is_none() {
            self.start_survey(now);
        }
    }

    /// Gives a compressed file a handle.
    fn admit(&mut self, file: Found, packed: Packed, start: Option<u64>) -> Option<Met> {
        let set = self.sets.iter().find(|set| set.name == file.source)?.clone();
        let start = start.or(file.at_end.then(|| packed.end())).unwrap_or(0);
        let handle = self.next_handle();
        let age = file.age();
        let opened = OpenFile {
            packed: Some(packed),
            lineage: file.lineage.clone(),
            age,
            ..OpenFile::new(file.plain, &set)
        };
        let met = Met {
            handle,
            source: set.name.clone(),
            stream: set.stream.clone(),
            descriptor: Descriptor::File(opened.describe().ok()?),
            lineage_key: file.lineage,
            age,
            start: u128::from(start),
            max_record: set.max_record,
            flush_partial: set.flush_after(),
        };
        self.by_key.insert(opened.plain.key(), handle);
        self.open.insert(handle, Box::new(opened));
        Some(met)
    }

    /// Whether something older of the same lineage is not known well enough to be read yet.
    pub(super) fn awaits_copy(&self, handle: Handle) -> bool {
        let Some(open) = self.open.get(&handle) else { return false };
        self.copies.waiting.values().any(|waiting| {
            !waiting.alike
                && !matches!(waiting.stage, Stage::Doubtful { .. })
                && waiting.file.lineage == open.lineage
                && waiting.file.age() < open.age
        })
    }
}

impl Found {
    fn open(set: &FileSet, path: &Path, format: Format, at_end: bool) -> io::Result<Option<Self>> {
        let Some(mut plain) = PlainFile::open(path)? else { return Ok(None) };
        let found = plain.file()?.metadata()?;
        let head = head(format, plain.file()?)?;
        plain.sighted(path);
        plain.park();
        let stamp = stamp(&found);
        Ok(Some(Self {
            plain,
            format,
            head,
            source: set.name.clone(),
            at_end: at_end && set.start_at == StartAt::End,
            lineage: set.lineage_path(path).into_os_string().into_encoded_bytes(),
            stamp,
            stamp_before: is_settled(&found).then_some(stamp),
        }))
    }

    /// Compressing keeps the time of the last write. Whatever was born then or later is younger, also in the same tick of the
    /// kernel's clock.
    fn age(&self) -> i128 {
        let (_, seconds, nanos) = self.stamp;
        self.plain.age().min(i128::from(seconds) * 1_000_000_000 + i128::from(nanos)) - 1
    }
}

fn is_settled(found: &Metadata) -> bool {
    let modified = found.modified().ok();
    let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age >= SETTLED)
}
