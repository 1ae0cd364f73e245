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
//! Not here: decompression ([`super::packed`]), the pass through a file ([`super::survey`]).

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use garam_proto::hash::head_hash;
use garam_proto::{Descriptor, FileDescriptor, SourceName};

use super::packed::{Packed, head};
use super::plain::PlainFile;
use super::survey::{Report, Rival, Survey, Task};
use super::unpack::Format;
use super::{FileSet, Files, Key, OpenFile, identity, same_file};
use crate::config::{Compressed, StartAt};
use crate::source::{Copied, Expected, Handle, Met};

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

    /// What was read to its end before the agent was stopped needs no survey.
    fn admit_known(&mut self, met: &mut Vec<Met>) {
        let new = self.copies.waiting.iter().filter(|(_, w)| matches!(w.stage, Stage::New));
        let known: Vec<(Key, Packed)> = new
            .filter_map(|(&key, w)| self.known_as(&w.file).map(|packed| (key, packed)))
            .collect();
        for (key, packed) in known {
            if let Some(waiting) = self.copies.waiting.remove(&key) {
                met.extend(self.admit(waiting.file, packed, None));
            }
        }
    }

    /// The content of a file that the checkpoint remembers as read to its end.
    fn known_as(&self, file: &Found) -> Option<Packed> {
        let now = file.plain.describe_as(&file.head);
        let entry = self.copies.expected.iter().find(|entry| {
            entry.mark >= entry.seen
                && same_file(&entry.descriptor, &now, true)
                && begins(&file.head, &entry.descriptor)
        })?;
        let end = u64::try_from(entry.mark).ok()?;
        let head = file.head.clone();
        Some(Packed::finished(file.format, head, file.stamp.0, end, entry.tail_hash))
    }

    fn start_survey(&mut self, now: Instant) {
        let ready = |waiting: &&Waiting| {
            matches!(waiting.stage, Stage::New)
                && waiting.file.stamp_before == Some(waiting.file.stamp)
        };
        let candidates = self.copies.waiting.iter().filter(|(_, waiting)| ready(waiting));
        let oldest = candidates.min_by_key(|(_, waiting)| waiting.file.age()).map(|(key, _)| *key);
        let Some(key) = oldest else { return };
        let Some(mut waiting) = self.copies.waiting.remove(&key) else { return };
        match self.task(&mut waiting.file).and_then(Task::start) {
            Ok(report) => {
                waiting.stage = Stage::Surveying { stamp: waiting.file.stamp };
                self.copies.running = Some((key, report));
            }
            Err(error) => {
                self.report(waiting.file.plain.path(), &error);
                let stamp = waiting.file.stamp;
                waiting.stage = Stage::Doubtful { stamp, since: now, report: None };
            }
        }
        self.copies.waiting.insert(key, waiting);
    }

    fn task(&mut self, file: &mut Found) -> io::Result<Task> {
        let mut rivals = Vec::new();
        for handle in self.alike(file) {
            rivals.extend(self.rival(handle));
        }
        let expected = self.copies.expected.iter();
        let marks = expected
            .filter(|entry| begins(&file.head, &entry.descriptor))
            .filter_map(|entry| u64::try_from(entry.mark).ok())
            .collect();
        file.plain.unpark()?;
        let raw = file.plain.file()?.try_clone();
        file.plain.park();
        Ok(Task { file: raw?, format: file.format, marks, rivals })
    }

    /// Open files of the same table whose names and heads say that this may be their copy.
    fn alike(&self, file: &Found) -> Vec<Handle> {
        let mut alike: Vec<Handle> = self
            .open
            .iter()
            .filter(|(_, open)| {
                open.source == file.source
                    && identity::is_kin(file.plain.path(), open.plain.path())
                    && open.may_begin_with(&file.head)
            })
            .map(|(&handle, _)| handle)
            .collect();
        alike.sort_unstable();
        alike.truncate(MOST_RIVALS);
        alike
    }

    fn rival(&mut self, handle: Handle) -> Option<Rival> {
        if let Ok(open) = self.opened(handle) {
            let format = open.packed.as_ref().map(Packed::format);
            let file = open.plain.file().ok()?.try_clone().ok()?;
            return Some(Rival::Open { handle, file, format });
        }
        let (end, tail) = self.open.get(&handle)?.looked_at;
        Some(Rival::Gone { handle, end: u64::try_from(end).ok()?, tail })
    }

    fn surveyed(&mut self, key: Key, report: io::Result<Report>, met: &mut Vec<Met>, now: Instant) {
        let Some(mut waiting) = self.copies.waiting.remove(&key) else { return };
        let stamp = waiting.file.stamp;
        let changed = !matches!(waiting.stage, Stage::Surveying { stamp: then } if then == stamp);
        waiting.stage = match report {
            _ if changed => Stage::New,
            Ok(report) if report.survey.fault.is_none() => {
                met.extend(self.resolve(key, waiting.file, report));
                return;
            }
            Ok(report) => {
                tracing::debug!(
                    path = %waiting.file.plain.path().display(), why = report.survey.fault,
                    "a compressed file is not whole, waiting"
                );
                Stage::Doubtful { stamp, since: now, report: Some(report) }
            }
            Err(error) => {
                self.report(waiting.file.plain.path(), &error);
                Stage::Doubtful { stamp, since: now, report: None }
            }
        };
        self.copies.waiting.insert(key, waiting);
    }

    /// What changed is surveyed again; what stayed incomplete for long is damaged.
    fn settle_doubtful(&mut self, met: &mut Vec<Met>, now: Instant) {
        let mut given_up = Vec::new();
        for (&key, waiting) in &mut self.copies.waiting {
            let Stage::Doubtful { stamp, since, report } = &waiting.stage else { continue };
            let patience = self
                .sets
                .iter()
                .find(|set| set.name == waiting.file.source)
                .map_or(SETTLED, |set| set.compressed_wait);
            if *stamp != waiting.file.stamp || (report.is_none() && now - *since >= SETTLED) {
                waiting.stage = Stage::New;
            } else if now - *since >= patience && report.is_some() {
                given_up.push(key);
            }
        }
        for key in given_up {
            let Some(waiting) = self.copies.waiting.remove(&key) else { continue };
            let Stage::Doubtful { report: Some(report), .. } = waiting.stage else { continue };
            tracing::warn!(
                path = %waiting.file.plain.path().display(),
                format = waiting.file.format.name(),
                error = report.survey.fault,
                readable = report.survey.lines_end,
                "a compressed file is damaged or was never finished: its whole lines are read, the rest is lost"
            );
            met.extend(self.resolve(key, waiting.file, report));
        }
    }

    /// Decides what a surveyed file is.
    fn resolve(&mut self, key: Key, file: Found, report: Report) -> Option<Met> {
        let packed = Packed::new(file.format, file.head.clone(), report.survey);
        match report.twin.filter(|twin| self.open.contains_key(twin)) {
            Some(of) => {
                tracing::info!(
                    path = %file.plain.path().display(), of = %self.open.get(&of)?.plain.path().display(),
                    "a compressed copy of a file that is being read"
                );
                self.copies.twins.insert(key, Twin { file, packed, of });
                None
            }
            None => self.admit(file, packed, None),
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

    /// Looks again at files that became longer after they were met.
    fn tend_grown(&mut self) {
        if let Some((handle, report)) = self.copies.growing.take() {
            match report.try_recv() {
                Err(TryRecvError::Empty) => self.copies.growing = Some((handle, report)),
                Ok(Ok(report)) => self.regrow(handle, report.survey),
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => {}
            }
        }
        if self.copies.growing.is_none()
            && let Some(handle) = self.copies.grown.pop()
            && let Ok(open) = self.opened(handle)
            && let Some(packed) = &open.packed
            && let Ok(file) = open.plain.file().and_then(std::fs::File::try_clone)
        {
            let format = packed.format();
            let task = Task { file, format, marks: Vec::new(), rivals: Vec::new() };
            self.copies.growing = task.start().ok().map(|report| (handle, report));
        }
    }

    fn regrow(&mut self, handle: Handle, survey: Survey) {
        if let Some(packed) = self.open.get_mut(&handle).and_then(|open| open.packed.as_mut()) {
            packed.grow(survey);
            self.changed.push(handle);
        }
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

    /// Puts the compressed copy of a file into its place, so that the handle stays and the content goes on.
    pub(super) fn replace_by_copy(&mut self, handle: Handle, position: u128) -> Copied {
        let Some(open) = self.open.get(&handle) else { return Copied::No };
        let key = self
            .copies
            .twins
            .iter()
            .filter(|(_, twin)| twin.of == handle && u128::from(twin.packed.end()) >= position)
            .min_by_key(|(_, twin)| twin.file.age())
            .map(|(key, _)| *key);
        let Some(twin) = key.and_then(|key| self.copies.twins.remove(&key)) else {
            let may_come = |waiting: &Waiting| {
                waiting.file.source == open.source
                    && identity::is_kin(waiting.file.plain.path(), open.plain.path())
                    && open.may_begin_with(&waiting.file.head)
            };
            let wait = self.copies.waiting.values().any(may_come);
            return if wait { Copied::Later } else { Copied::No };
        };
        let Some(open) = self.open.get_mut(&handle) else { return Copied::No };
        tracing::info!(
            path = %open.plain.path().display(), copy = %twin.file.plain.path().display(),
            "goes on in its compressed copy"
        );
        let old = open.plain.key();
        let mut packed = twin.packed;
        packed.was_as_long_as(open.plain.size_seen());
        open.plain = twin.file.plain;
        open.packed = Some(packed);
        let new = open.plain.key();
        let described = open.describe();
        if self.by_key.get(&old) == Some(&handle) {
            self.by_key.remove(&old);
        }
        self.by_key.insert(new, handle);
        self.budget.remove(handle);
        match described {
            Ok(descriptor) => Copied::Taken(Descriptor::File(descriptor)),
            Err(_) => Copied::No,
        }
    }

    /// An original is closed: copies that did not take its place hold nothing more when it was read to its end; they are
    /// met as read. Else they are looked at again.
    pub(super) fn orphan_copies(&mut self, of: Handle, was_read: bool) {
        let orphans: Vec<Key> = self
            .copies
            .twins
            .iter()
            .filter(|(_, twin)| twin.of == of)
            .map(|(key, _)| *key)
            .collect();
        for key in orphans {
            let Some(Twin { file, mut packed, .. }) = self.copies.twins.remove(&key) else {
                continue;
            };
            if was_read {
                packed.forgive();
                let end = packed.end();
                let met = self.admit(file, packed, Some(end));
                self.late.extend(met);
            } else {
                let waiting = Waiting { file, stage: Stage::New, alike: false };
                self.copies.waiting.insert(key, waiting);
            }
        }
    }

    pub(super) fn next_handle(&mut self) -> Handle {
        let handle = Handle(self.next);
        self.next += 1;
        handle
    }

    /// Whether a compressed file holds what a file held that is gone: by content.
    pub(super) fn is_copy_of(
        &mut self,
        handle: Handle,
        entry: &Expected,
        own: bool,
    ) -> io::Result<bool> {
        let registered = &entry.descriptor;
        let Some(open) = self.open.get_mut(&handle) else { return Ok(false) };
        let path = identity::path_of(registered);
        let kin = identity::is_kin(open.plain.path(), &path);
        let Some(packed) = &mut open.packed else { return Ok(false) };
        if registered.head_len == 0 || !begins(packed.head(), registered) {
            return Ok(false);
        }
        let long_head = registered.head_len as usize >= garam_proto::hash::HEAD_MIN_BYTES;
        let long = long_head && entry.mark >= super::plain::FULL_TAIL;
        if !own && !long {
            return Ok(false);
        }
        // The original is still there: what it holds is read from it.
        if own && identity::find_sibling(registered, &path).is_some() {
            return Ok(false);
        }
        let damaged = packed.lost_from();
        if own && damaged.is_none() && u128::from(packed.end()) < entry.seen {
            return Ok(false);
        }
        if own && !kin && !long {
            return Ok(false);
        }
        let same = match damaged {
            Some(readable) if u128::from(readable) < entry.mark => own && kin && long_head,
            _ => {
                if u128::from(packed.end()) < entry.mark {
                    return Ok(false);
                }
                self.view(handle, |bytes| bytes.tail_hash(entry.mark))? == entry.tail_hash
            }
        };
        if same
            && let Some(packed) = self.open.get_mut(&handle).and_then(|open| open.packed.as_mut())
            && let Ok(seen) = u64::try_from(entry.seen)
        {
            packed.was_as_long_as(seen);
        }
        Ok(same)
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

/// Whether content with this head may be that of a registered file.
pub(super) fn begins(head: &[u8], registered: &FileDescriptor) -> bool {
    head.get(..registered.head_len as usize)
        .is_some_and(|head| head_hash(head) == registered.head_hash)
}

fn is_settled(found: &Metadata) -> bool {
    let modified = found.modified().ok();
    let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age >= SETTLED)
}
