//! Files as a source: sets of globs, one reader per file identity, and descriptors within a budget.
//!
//! In: [`FileSet`]s from the configuration. Out: origins (one per device and inode) and their bytes.
//! Promise: two globs, a hard link or a symlink never make two readers of one file; a renamed or unlinked file stays open
//! until the engine closes it (beyond the budget, files that are read to their end are parked); directories, FIFOs, sockets and devices are passed over without being opened.
//! Here: which files are known. In `budget` which of them are open, in `discover` the walk, in `watch` what the kernel tells of folders, in
//! `identity` what a file is, in `plain` its bytes, in `reader` the blocks they are cut into, in `inspect` a look from outside a running agent.
//! Compressed files: in `unpack` the decoders, in `packed` their content by position, in `survey` the pass before they are read, in
//! `copies` which of them hold what another file held.

mod budget;
mod bytes;
mod copies;
mod discover;
mod identity;
mod inspect;
mod packed;
mod plain;
mod reader;
mod survey;
mod unpack;
mod watch;

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garam_proto::hash::head_hash;
use garam_proto::message::GapReason;
use garam_proto::{Descriptor, FileDescriptor, FileMatch, SourceName};

use budget::{Budget, Worth};
use bytes::Bytes;
use copies::{Copies, Sought};
pub use discover::{BadGlob, FileSet, Step};
pub use inspect::{Condition, inspect};
use packed::Packed;
use plain::PlainFile;
use reader::Reader;
use watch::{Inotify, Nobody, Watch};

use crate::config::StartAt;
use crate::source::spool::{self, SpoolStatus};
use crate::source::{
    Copied, CutLimits, Expected, Fit, Handle, Known, Look, Met, Place, Read, Seen, Source, Tail,
};

/// How long a file that left the globs is watched for late writers before it may be closed.
pub const HOLD: Duration = Duration::from_secs(60);

/// How often one search walks at most: files may be rotated faster than they can be walked over.
const MOST_WALKS: u32 = 5;

/// Compressed files that are remembered as not to be read.
const MOST_SKIPPED: usize = 100_000;

/// Files that are decompressed at a time: each holds a window, and those of zstd may be large.
const MOST_CURSORS: usize = 4;

/// A decoder that was not used for so long makes room for another.
const CURSOR_REST: Duration = Duration::from_secs(10);

/// A file's identity inside this process: device and inode, which cannot be reused while the file is open.
type Key = (u64, u64);

/// A file that is read: its bytes, and where they are cut.
struct OpenFile {
    plain: PlainFile,
    /// What the file holds, when that is compressed.
    packed: Option<Packed>,
    reader: Reader,
    source: SourceName,
    lineage: Vec<u8>,
    age: i128,
    /// How far it had been read at the last look, and the hash before that.
    looked_at: (u128, u64),
    /// Length and hash of the head of a parked file.
    head: (u32, u64),
}

impl OpenFile {
    fn new(plain: PlainFile, set: &FileSet) -> Self {
        Self {
            lineage: set.lineage_path(plain.path()).into_os_string().into_encoded_bytes(),
            age: plain.age(),
            plain,
            packed: None,
            reader: Reader::new(set.rules.clone()),
            source: set.name.clone(),
            looked_at: (0, 0),
            head: (0, 0),
        }
    }

    fn describe(&self) -> io::Result<FileDescriptor> {
        match &self.packed {
            Some(packed) => Ok(self.plain.describe_as(packed.head())),
            None => self.plain.describe(),
        }
    }

    /// Whether its content can begin so.
    fn may_begin_with(&self, head: &[u8]) -> bool {
        match (&self.packed, self.plain.file()) {
            (Some(packed), _) => packed.head().starts_with(head),
            (None, Ok(file)) => identity::head(file, head.len()).is_ok_and(|own| own == head),
            // Parked: by what was seen of it.
            (None, Err(_)) => {
                let (len, hash) = self.head;
                head.get(..len as usize).is_some_and(|head| head_hash(head) == hash)
            }
        }
    }

    fn head_matches(&self, registered: &FileDescriptor) -> io::Result<bool> {
        match &self.packed {
            Some(packed) => Ok(copies::begins(packed.head(), registered)),
            None => self.plain.head_matches(registered),
        }
    }

    fn is_idle(&self) -> bool {
        self.packed.as_ref().map_or_else(|| self.plain.is_idle(), Packed::is_idle)
    }

    fn cursor_age(&self) -> Option<Duration> {
        self.packed.as_ref().and_then(Packed::cursor_age)
    }
}

/// All `[[file]]` tables of an agent.
pub struct Files {
    sets: Vec<FileSet>,
    hold: Duration,
    /// Each in a place of its own: a table of very many is half empty.
    open: HashMap<Handle, Box<OpenFile>>,
    by_key: HashMap<Key, Handle>,
    next: u64,
    budget: Budget,
    /// Files that a search saw changed.
    changed: Vec<Handle>,
    /// Whether `start_at = "end"` still applies: only to what the first search of a first start finds.
    at_end: bool,
    /// Paths whose trouble was reported already.
    reported: HashSet<PathBuf>,
    watch: Box<dyn Watch>,
    /// A file of the last search has several names: it may change in a folder that nobody searches.
    named_twice: bool,
    /// Characters that stand for bytes which are no text, since somebody asked.
    replaced: u64,
    /// Compressed files that are not to be read.
    skipped: HashSet<Key>,
    copies: Copies,
    /// What is to be met at the next search.
    late: Vec<Met>,
}

impl Files {
    /// `first_start`: no state was found, so that `start_at = "end"` counts for the files present now.
    /// At most `descriptors` files are held open, as far as their bytes do not depend on it.
    /// Nobody watches folders until [`Files::watch`].
    pub fn new(sets: Vec<FileSet>, first_start: bool, hold: Duration, descriptors: usize) -> Self {
        Self {
            sets,
            hold,
            open: HashMap::new(),
            by_key: HashMap::new(),
            next: 0,
            budget: Budget::new(descriptors),
            changed: Vec::new(),
            at_end: first_start,
            reported: HashSet::new(),
            watch: Box::new(Nobody),
            named_twice: false,
            replaced: 0,
            skipped: HashSet::new(),
            copies: Copies::default(),
            late: Vec::new(),
        }
    }

    /// Has the kernel tell what changes in the folders; gives what is readable when it does, if it can.
    pub fn watch(&mut self) -> Option<OwnedFd> {
        match Inotify::new() {
            Ok(watch) => self.watch = Box::new(watch),
            Err(error) => tracing::warn!(
                %error, action = "raise fs.inotify.max_user_instances and restart",
                "folders cannot be watched: all are searched every ship.discover"
            ),
        }
        self.watch.bell()
    }

    /// The content of a file, with its descriptor open.
    fn view<T>(
        &mut self,
        handle: Handle,
        act: impl FnOnce(&dyn Bytes) -> io::Result<T>,
    ) -> io::Result<T> {
        let open = self.opened(handle)?;
        match &open.packed {
            Some(packed) => act(&packed.view(open.plain.file()?)),
            None => act(&open.plain),
        }
    }

    /// The hash before a position of a compressed file, when it is known without decompressing anything.
    fn known_tail(&self, handle: Handle, position: u128) -> Option<u64> {
        let file = self.open.get(&handle)?;
        let packed = file.packed.as_ref()?;
        let (looked_at, tail) = file.looked_at;
        packed.known_tail(position).or_else(|| (looked_at == position).then_some(tail))
    }

    /// The file with its descriptor open.
    fn opened(&mut self, handle: Handle) -> io::Result<&mut OpenFile> {
        let closed = || io::Error::other("the file was closed");
        if self.open.get(&handle).ok_or_else(closed)?.plain.is_parked() {
            self.make_room();
            self.open.get_mut(&handle).ok_or_else(closed)?.plain.unpark()?;
        }
        self.budget.touch(handle);
        self.open.get_mut(&handle).map(Box::as_mut).ok_or_else(closed)
    }

    /// Parks files until one more descriptor fits into the budget.
    fn make_room(&mut self) {
        let worth = |open: &HashMap<Handle, Box<OpenFile>>, handle| match open.get(&handle) {
            Some(file) if !file.plain.has_name() => Worth::Needed,
            Some(file) if !file.is_idle() => Worth::Named,
            _ => Worth::Idle,
        };
        while let Some(handle) = self.budget.surplus(|handle| worth(&self.open, handle)) {
            self.budget.remove(handle);
            if let Some(file) = self.open.get_mut(&handle) {
                let head = file.plain.describe().map(|now| (now.head_len, now.head_hash));
                file.head = head.unwrap_or_default();
                file.plain.park();
                file.packed.iter().for_each(Packed::drop_cursor);
            }
        }
    }

    /// One walk over all sets; what is new is opened and added to `met`.
    fn walk(&mut self, met: &mut Vec<Met>) {
        for file in self.open.values_mut() {
            file.plain.begin_search();
        }
        self.copies.begin_search();
        let mut found = Vec::new();
        let mut troubles = Vec::new();
        for (index, set) in self.sets.iter().enumerate() {
            set.walk(&mut |step| match step {
                Step::Folder(folder) => self.watch.cover(folder),
                Step::Found { path, is_link } => found.push((index, path, is_link)),
                Step::Trouble { path, error } => troubles.push((path, error)),
            });
        }
        for (path, error) in troubles {
            self.report(&path, &error);
        }
        for (set, path, is_link) in found {
            // The file behind a link changes in a folder of its own.
            let target = is_link.then(|| path.canonicalize().ok()).flatten();
            if let Some(folder) = target.as_deref().and_then(Path::parent) {
                self.watch.cover(folder);
            }
            met.extend(self.sight(set, &path));
        }
    }

    /// Takes note of a change the kernel told of. True when only a search can tell what it means.
    fn heard(&mut self, path: &Path) -> bool {
        let Ok(Some(found)) = identity::file_at(path) else { return false };
        let known = self.by_key.get(&identity::key(&found)).copied();
        let file = known.and_then(|handle| self.open.get(&handle));
        match (known, file) {
            (Some(handle), Some(file)) if file.plain.is_it(&found) => {
                if file.plain.has_changed(&found) {
                    self.changed.push(handle);
                }
                false
            }
            _ => self.names(path),
        }
    }

    fn names(&self, path: &Path) -> bool {
        self.sets.iter().any(|set| set.matches(path))
    }

    /// Takes note of a path found by the walk; opens it when its file is new.
    fn sight(&mut self, set: usize, path: &Path) -> Option<Met> {
        match identity::file_at(path) {
            Ok(Some(found)) => {
                self.named_twice |= found.nlink() > 1;
                let key = identity::key(&found);
                if let Some(&handle) = self.by_key.get(&key) {
                    if self.sight_again(handle, path, &found) {
                        return None;
                    }
                    self.by_key.remove(&key);
                }
                if self.copies.sight(key, path, &found)
                    || self.skipped.contains(&key)
                    || self.sets.get(set).is_some_and(|set| set.is_too_old(&found))
                {
                    return None;
                }
                match self.sight_packed(set, path, &found) {
                    Ok(true) => return None,
                    Ok(false) => {}
                    Err(error) => {
                        self.report(path, &error);
                        return None;
                    }
                }
            }
            Ok(None) => return None,
            Err(error) => {
                self.report(path, &error);
                return None;
            }
        }
        match self.take(set, path) {
            Ok(met) => {
                self.reported.remove(path);
                met
            }
            Err(error) => {
                self.report(path, &error);
                None
            }
        }
    }

    fn note_skipped(&mut self, key: Key) {
        if self.skipped.len() == MOST_SKIPPED {
            self.skipped.clear();
        }
        self.skipped.insert(key);
    }

    /// Takes note that a known file is still there. False when its inode went to another file while it was parked.
    fn sight_again(&mut self, handle: Handle, path: &Path, found: &Metadata) -> bool {
        let Some(file) = self.open.get_mut(&handle) else { return false };
        if !file.plain.is_it(found) {
            return false;
        }
        file.plain.sighted(path);
        match &file.packed {
            Some(packed) if packed.size < found.len() => self.copies.grew(handle),
            Some(_) => {}
            None if file.plain.has_changed(found) => self.changed.push(handle),
            None => {}
        }
        true
    }

    /// Opens a file and gives it a handle, unless it is open already under another name.
    fn take(&mut self, set: usize, path: &Path) -> io::Result<Option<Met>> {
        self.make_room();
        let Some(mut file) = PlainFile::open(path)? else { return Ok(None) };
        if self.by_key.contains_key(&file.key()) {
            return Ok(None);
        }
        let handle = self.next_handle();
        let Some(set) = self.sets.get(set) else { return Ok(None) };
        let mut age = file.age();
        if let Some(spool) = &set.spool {
            let Some(number) = spool::number_of(path) else { return Ok(None) };
            file.belong_to(spool.clone(), number);
            age = i128::from(number);
        }
        let start = match set.start_at {
            StartAt::End if self.at_end => set.aligned(reader::last_line_start(&file)?),
            _ => 0,
        };
        let met = Met {
            handle,
            source: set.name.clone(),
            stream: set.stream.clone(),
            descriptor: Descriptor::File(file.describe()?),
            lineage_key: set.lineage_path(path).into_os_string().into_encoded_bytes(),
            age,
            start,
            max_record: set.max_record,
            flush_partial: set.flush_after(),
        };
        file.sighted(path);
        self.by_key.insert(file.key(), handle);
        let opened = Box::new(OpenFile::new(file, set));
        self.open.insert(handle, opened);
        self.budget.touch(handle);
        Ok(Some(met))
    }

    fn report(&mut self, path: &Path, error: &io::Error) {
        // A file may vanish between the walk and the open: not worth a word.
        if error.kind() == io::ErrorKind::NotFound || self.reported.contains(path) {
            return;
        }
        if self.reported.len() < 10_000 {
            self.reported.insert(path.into());
        }
        tracing::warn!(
            path = %path.display(),
            %error,
            action = "grant the agent's user read access, or exclude the path; it is tried again",
            "cannot read file"
        );
    }
}

impl Source for Files {
    /// A walk is no picture of one moment: of a rotation under way it may show the new file and miss the old one, under
    /// either name. So it is walked again until nothing new is found, and nothing of it is read before.
    fn discover(&mut self) -> Vec<Met> {
        let mut met = std::mem::take(&mut self.late);
        self.copies.begin_round();
        self.watch.begin_search();
        self.named_twice = false;
        for _ in 0..MOST_WALKS {
            let before = met.len();
            self.walk(&mut met);
            // Whatever an earlier walk missed is read whole rather than not at all.
            self.at_end = false;
            if met.len() == before {
                break;
            }
        }
        self.watch.end_search();
        let now = Instant::now();
        for file in self.open.values_mut() {
            file.plain.end_search(now);
        }
        self.tend_copies(&mut met, now);
        // Birth times are as coarse as the kernel's tick: of two files of one tick the one written last is the younger.
        met.sort_by_cached_key(|met| {
            (met.age, self.open.get(&met.handle).map(|file| file.plain.tie()))
        });
        met
    }

    fn seek(&mut self, wanted: &Descriptor) -> Option<Met> {
        let Descriptor::File(wanted) = wanted else { return None };
        let path = identity::path_of(wanted);
        let set = self.sets.iter().position(|set| set.matches(&path))?;
        let found = identity::find_sibling(wanted, &path)?;
        let met = match self.seek_packed(set, &found).ok()? {
            Sought::Ordinary => self.take(set, &found).ok().flatten()?,
            Sought::Packed(met) => *met,
            Sought::Waiting => return None,
        };
        let file = &mut self.open.get_mut(&met.handle)?.plain;
        if !self.sets.iter().any(|set| set.matches(&found)) {
            file.begin_search();
            file.end_search(Instant::now());
        }
        let lineage_key = self.sets.get(set)?.lineage_path(&path);
        Some(Met { lineage_key: lineage_key.into_os_string().into_encoded_bytes(), ..met })
    }

    fn is_reachable(&self, wanted: &Descriptor) -> bool {
        let Descriptor::File(wanted) = wanted else { return false };
        // Of a path that no table names any more, absence means nothing.
        let path = identity::path_of(wanted);
        self.sets.iter().any(|set| set.matches(&path))
            && !self.copies.may_hold(&path)
            && identity::folder_is_there(wanted)
    }

    fn fit(&mut self, handle: Handle, known: Known<'_>) -> io::Result<Fit> {
        let Descriptor::File(registered) = known.descriptor else { return Ok(Fit::No) };
        let file = self.opened(handle)?;
        let now = file.describe()?;
        let head_matches = file.head_matches(registered)?;
        let packed = file.packed.is_some();
        let fit = match (same_file(registered, &now, known.own), head_matches) {
            (true, false) => return Ok(Fit::Rewritten),
            (true, true) => {
                if let (Some(packed), Ok(seen)) = (&mut file.packed, u64::try_from(known.seen)) {
                    packed.was_as_long_as(seen);
                }
                Fit::Exact
            }
            (false, _) if packed => {
                let entry = Expected::of(registered, &known);
                let copy = self.is_copy_of(handle, &entry, known.own)?;
                return Ok(if copy { Fit::ByContent } else { Fit::No });
            }
            (false, _) => match registered.compare(&now, head_matches) {
                FileMatch::ByContent if known.mark >= plain::FULL_TAIL => Fit::ByContent,
                _ => return Ok(Fit::No),
            },
        };
        // The core has no hash where nothing was shipped yet.
        let unknown = known.tail_hash == 0 && known.mark > 0;
        match (self.check_tail(handle, known.mark, known.tail_hash)?, fit) {
            (Tail::Same, fit) => Ok(fit),
            (Tail::Differs, Fit::Exact) if unknown => Ok(Fit::Exact),
            (_, Fit::Exact) => Ok(Fit::Rewritten),
            _ => Ok(Fit::No),
        }
    }

    fn describe(&mut self, handle: Handle) -> io::Result<Descriptor> {
        Ok(Descriptor::File(self.opened(handle)?.describe()?))
    }

    fn check_tail(&mut self, handle: Handle, position: u128, tail_hash: u64) -> io::Result<Tail> {
        match self.known_tail(handle, position) {
            Some(known) if known == tail_hash => Ok(Tail::Same),
            Some(_) => Ok(Tail::Differs),
            None => self.view(handle, |bytes| bytes.check_tail(position, tail_hash)),
        }
    }

    fn tail_hash(&mut self, handle: Handle, position: u128) -> io::Result<u64> {
        match self.known_tail(handle, position) {
            Some(known) => Ok(known),
            None => self.view(handle, |bytes| bytes.tail_hash(position)),
        }
    }

    fn look(&mut self, handle: Handle, position: u128, tail_hash: u64) -> io::Result<Seen> {
        let hold = self.hold;
        if let Some(file) = self.open.get_mut(&handle) {
            file.looked_at = (position, tail_hash);
            if file.packed.is_some() {
                return file.look_packed(position, hold);
            }
        }
        let parked = self.open.get_mut(&handle).filter(|file| file.plain.is_parked());
        match parked.and_then(|file| file.plain.glance(hold)) {
            Some(look) if look.unlinked && look.end > position => {
                return Ok(Seen::Broken(GapReason::Removed));
            }
            Some(look) if look.end >= position => return Ok(Seen::Live(look)),
            _ => {}
        }
        self.opened(handle)?.plain.look(position, tail_hash, hold)
    }

    fn read(
        &mut self,
        handle: Handle,
        position: u128,
        tail_hash: u64,
        limits: &CutLimits,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Read> {
        if self.is_final(handle) {
            self.approach(handle, position)?;
        }
        let OpenFile { plain, packed, reader, .. } = self.opened(handle)?;
        let read = match packed {
            Some(packed) => {
                let view = packed.view(plain.file()?);
                reader.read(&view, position, tail_hash, limits, buffer)
            }
            None => reader.read(plain, position, tail_hash, limits, buffer),
        };
        let replaced = reader.replaced();
        self.replaced += replaced;
        read
    }

    fn replaced(&mut self) -> u64 {
        std::mem::take(&mut self.replaced)
    }

    fn listen(&mut self) -> bool {
        let heard = self.watch.hear();
        let mut unclear = heard.unclear || heard.names.iter().any(|path| self.names(path));
        for path in &heard.changed {
            unclear |= self.heard(path);
        }
        unclear
    }

    fn is_watched(&self) -> bool {
        let waits = !self.late.is_empty() || !self.copies.is_settled();
        self.watch.is_complete() && !self.named_twice && !waits
    }

    /// What a spool has written is readable when it is synced, a moment later.
    fn grows_unseen(&self, handle: Handle) -> bool {
        self.open.get(&handle).is_some_and(|file| file.plain.segment().is_some())
    }

    fn expect(&mut self, known: Vec<Expected>) {
        self.expect_known(known);
    }

    fn is_final(&self, handle: Handle) -> bool {
        self.open.get(&handle).is_some_and(|file| file.packed.is_some())
    }

    fn awaits(&self, handle: Handle) -> bool {
        self.awaits_copy(handle)
    }

    fn lost_from(&self, handle: Handle) -> Option<u128> {
        self.open.get(&handle)?.packed.as_ref()?.lost_from().map(u128::from)
    }

    fn take_copy(&mut self, handle: Handle, position: u128) -> Copied {
        self.replace_by_copy(handle, position)
    }

    /// The core registered the original under the name it had before it was rotated.
    fn sought(&mut self, handle: Handle) -> io::Result<Descriptor> {
        let file = self.opened(handle)?;
        let mut descriptor = file.describe()?;
        if file.packed.is_some() {
            let original = identity::unrotated(file.plain.path());
            descriptor.path = original.into_os_string().into_encoded_bytes();
        }
        Ok(Descriptor::File(descriptor))
    }

    fn changed(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.changed)
    }

    fn reload(&mut self, files: Vec<FileSet>) {
        self.sets = files;
        self.reported.clear();
        for file in self.open.values_mut() {
            let set = self.sets.iter().find(|set| set.matches(file.plain.path()));
            if let Some(set) = set.or_else(|| self.sets.iter().find(|set| set.name == file.source))
            {
                file.source = set.name.clone();
                file.reader.set_rules(set.rules.clone());
            }
        }
    }

    /// The first table whose globs name the file; one that left its globs stays with its table.
    fn place(&self, handle: Handle) -> Option<Place> {
        let file = self.open.get(&handle)?;
        let named = self.sets.iter().find(|set| set.matches(file.plain.path()));
        let own = || {
            let own = self.sets.iter().find(|set| set.name == file.source);
            own.filter(|_| !file.plain.has_name())
        };
        let set = named.or_else(own)?;
        Some(Place {
            source: set.name.clone(),
            stream: set.stream.clone(),
            max_record: set.max_record,
            flush_partial: set.flush_after(),
        })
    }

    fn finished(&mut self, handle: Handle) -> io::Result<()> {
        let segment = self.open.get(&handle).and_then(|file| file.plain.segment());
        segment.map_or(Ok(()), |(spool, number)| spool.remove(number))
    }

    fn spools(&self) -> Vec<SpoolStatus> {
        let spools = self.sets.iter().filter_map(|set| Some((set.spool.as_ref()?, &set.stream)));
        spools.map(|(spool, stream)| spool.status(stream)).collect()
    }

    fn close(&mut self, handle: Handle) {
        if let Some(file) = self.open.remove(&handle) {
            self.orphan_copies(handle, file.is_idle());
            let key = file.plain.key();
            if self.by_key.get(&key) == Some(&handle) {
                self.by_key.remove(&key);
            }
        }
        self.budget.remove(handle);
    }

    fn label(&self, handle: Handle) -> String {
        self.open
            .get(&handle)
            .map(|file| file.plain.path().display().to_string())
            .unwrap_or_default()
    }
}

impl Files {
    /// Goes a bounded part of the way to a position of a compressed file; an error until it is reached.
    fn approach(&mut self, handle: Handle, position: u128) -> io::Result<()> {
        let holds_cursor = self.open.get(&handle).is_some_and(|file| file.cursor_age().is_some());
        if !holds_cursor && !self.has_cursor_left() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let file = self.opened(handle)?;
        let Some(packed) = &file.packed else { return Ok(()) };
        match packed.approach(file.plain.file()?, position)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether one more file may be decompressed; who rested for long makes room.
    fn has_cursor_left(&self) -> bool {
        let ages = || self.open.values().filter(|file| file.cursor_age().is_some());
        if ages().count() < MOST_CURSORS {
            return true;
        }
        let resting = ages().find(|file| file.cursor_age() >= Some(CURSOR_REST));
        resting.and_then(|file| file.packed.as_ref()).map(Packed::drop_cursor).is_some()
    }
}

impl OpenFile {
    /// A compressed file does not change: only whether it is there.
    fn look_packed(&mut self, position: u128, hold: Duration) -> io::Result<Seen> {
        let (unlinked, left) = self.plain.links(hold)?;
        let Some(packed) = &mut self.packed else { return Err(io::ErrorKind::NotFound.into()) };
        packed.read_to = position;
        let end = u128::from(packed.end()).max(position);
        if packed.is_idle() {
            packed.drop_cursor();
        }
        if unlinked && self.plain.is_parked() && end > position {
            return Ok(Seen::Broken(GapReason::Removed));
        }
        Ok(Seen::Live(Look { end, unlinked, left, ended: false }))
    }
}

/// Whether both describe one file on one file system. Without birth times the path must agree too, and only the agent's
/// own checkpoint is believed: an inode alone is reused too easily.
fn same_file(registered: &FileDescriptor, now: &FileDescriptor, own: bool) -> bool {
    if registered.file_system != now.file_system || registered.inode != now.inode {
        return false;
    }
    match (registered.birth_ns, now.birth_ns) {
        (Some(then), Some(now)) => then == now,
        _ => own && registered.path == now.path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use garam_proto::{SourceName, StreamName};

    #[test]
    fn files_born_in_one_tick_are_met_in_the_order_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = std::time::SystemTime::now();
        let paths: Vec<PathBuf> =
            (0..100).rev().map(|number| folder.path().join(format!("a.log.{number}"))).collect();
        for (second, path) in (0..).zip(&paths) {
            let file = std::fs::File::create(path).unwrap();
            file.set_modified(written + Duration::from_secs(second)).unwrap();
        }
        let (name, stream) = (SourceName::new("a").unwrap(), StreamName::new("a").unwrap());
        let glob = format!("{}/*", folder.path().display());
        let set = FileSet::new(name, stream, &[glob], &[], StartAt::Beginning, 1024).unwrap();
        let mut files = Files::new(vec![set], true, HOLD, 10);
        let met: Vec<PathBuf> =
            files.discover().iter().map(|met| files.label(met.handle).into()).collect();
        assert_eq!(met, paths);
    }
}
