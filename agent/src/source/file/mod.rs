//! Files as a source: sets of globs, one reader per file identity, and descriptors within a budget.
//!
//! In: [`FileSet`]s from the configuration. Out: origins (one per device and inode) and their bytes.
//! Promise: two globs, a hard link or a symlink never make two readers of one file; a renamed or unlinked file stays open
//! until the engine closes it (beyond the budget, files that are read to their end are parked); directories, FIFOs, sockets and devices are passed over without being opened.
//! Here: which files are known and open.
//!
//! | file | subject |
//! |---|---|
//! | `discover`, `sight`, `watch` | the walk, what it sees, what the kernel tells of folders |
//! | `identity`, `open`, `plain`, `bytes` | what a file is, one that is read, its bytes |
//! | `budget`, `decoders` | how many are open, how many are decompressed |
//! | `source` | what the engine asks |
//! | `reader` | the blocks they are cut into |
//! | `unpack`, `packed`, `survey`, `copies` | compressed files: decoding, content by position, the pass before they are read, which hold what another file held |
//! | `inspect` | a look from outside a running agent |

mod budget;
mod bytes;
mod copies;
mod decoders;
mod discover;
mod identity;
mod inspect;
mod open;
mod packed;
mod plain;
mod reader;
mod sight;
mod source;
mod survey;
mod unpack;
mod watch;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use garam_proto::Descriptor;

use budget::{Budget, Worth};
use bytes::Bytes;
use copies::Copies;
pub use discover::{BadGlob, FileSet, Step};
pub use inspect::{Condition, inspect};
use open::OpenFile;
use packed::Packed;
use plain::PlainFile;
use watch::{Inotify, Nobody, Watch};

use crate::config::StartAt;
use crate::source::{Handle, Met, spool};

/// How long a file that left the globs is watched for late writers before it may be closed.
pub const HOLD: Duration = Duration::from_secs(60);

/// A file's identity inside this process: device and inode, which cannot be reused while the file is open.
type Key = (u64, u64);

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

    fn next_handle(&mut self) -> Handle {
        let handle = Handle(self.next);
        self.next += 1;
        handle
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
}
