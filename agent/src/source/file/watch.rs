//! Folders under watch: the kernel names what changed in them, so that searches may be rare.
//!
//! In: the folders a search goes through, each just before it is listed. Out: paths that changed, names that came and went.
//! Promise: what is heard is a hint and nothing stands on it: a search compares every file by itself, however rare it is.
//! [`Watch::is_complete`] is true only while every folder of the last search is watched. What cannot be (a network file system, no watches
//! left, a folder with more changes than are worth hearing) is searched as if nobody watched; when events overflow, all is searched. One
//! watch per folder, none per file. Not here: what a path means ([`super`]), when to search (the engine).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// What was heard since the last time.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Written, truncated, or with other rights.
    pub(super) changed: HashSet<PathBuf>,
    /// Names that came or went.
    pub(super) names: HashSet<PathBuf>,
    /// Only a search can tell what happened: events were lost, or folders changed.
    pub(super) unclear: bool,
}

/// Somebody who tells of changes in folders.
pub(super) trait Watch: Send {
    fn begin_search(&mut self);

    /// The search is about to list this folder.
    fn cover(&mut self, folder: &Path);

    /// Folders that were not covered since the search began are let go.
    fn end_search(&mut self);

    /// Whether all that the last search went through is watched.
    fn is_complete(&self) -> bool;

    fn hear(&mut self) -> Heard;

    /// Readable when there is something to hear.
    fn bell(&self) -> Option<OwnedFd>;
}

/// Nobody watches: searches find everything.
pub(super) struct Nobody;

impl Watch for Nobody {
    fn begin_search(&mut self) {}

    fn cover(&mut self, _folder: &Path) {}

    fn end_search(&mut self) {}

    fn is_complete(&self) -> bool {
        false
    }

    fn hear(&mut self) -> Heard {
        Heard::default()
    }

    fn bell(&self) -> Option<OwnedFd> {
        None
    }
}

/// More changes of files in one folder between two hearings are not worth hearing.
const NOISY: u32 = 64;
/// For how long a noisy folder is not listened to.
const DEAF: Duration = Duration::from_secs(10);
/// No more folders are watched: the kernel keeps about a KiB for each.
const MOST: usize = 50_000;
const BUFFER: usize = 16 * 1024;

/// File systems whose files change without this kernel's doing: NFS, SMB, 9P, AFS, Ceph, FUSE, Lustre, GPFS, OCFS2; and proc and sysfs,
/// which tell nobody.
const UNHEARD: [u32; 14] = [
    0x0000_6969,
    0x0000_517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x5346_414f,
    0x00c3_6400,
    0x6573_5546,
    0x0bd0_0bd0,
    0x4750_4653,
    0x7461_636f,
    0x0116_1970,
    0x0000_9fa0,
    0x6265_6572,
];

struct Folder {
    watch: i32,
    /// The last search that went through it.
    search: u64,
    /// Changes of its files are not heard until then.
    deaf_until: Option<Instant>,
}

/// The kernel's inotify.
pub(super) struct Inotify {
    queue: OwnedFd,
    most: usize,
    folders: HashMap<PathBuf, Folder>,
    paths: HashMap<i32, PathBuf>,
    search: u64,
    /// The search under way met a folder that cannot be watched.
    missed: bool,
    complete: bool,
    /// No more watches are tried in this search.
    full: bool,
    told: bool,
}

impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            queue: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            most: MOST,
            folders: HashMap::new(),
            paths: HashMap::new(),
            search: 0,
            missed: false,
            complete: false,
            full: false,
            told: false,
        })
    }

    /// Says once why searches stay frequent.
    fn miss(&mut self, folder: &Path, why: &str, action: &str) {
        self.missed = true;
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                folder = %folder.display(), why, action,
                "not every folder can be watched: all are searched every ship.discover"
            );
        }
    }

    fn fill(&mut self, folder: &Path) {
        self.full = true;
        self.miss(
            folder,
            "the limit of watches is reached",
            "raise fs.inotify.max_user_watches, or name fewer folders",
        );
    }

    fn add(&mut self, folder: &Path, deaf_until: Option<Instant>) {
        match inotify::add_watch(&self.queue, folder, mask(deaf_until.is_some())) {
            Ok(watch) => {
                let new = Folder { watch, search: self.search, deaf_until };
                let old = self.folders.insert(folder.into(), new);
                self.paths.insert(watch, folder.into());
                // Another folder has the name now.
                if let Some(old) = old.filter(|old| old.watch != watch) {
                    self.remove(old.watch, folder);
                }
            }
            Err(Errno::NOSPC) => self.fill(folder),
            // It cannot be listed either: there is nothing to hear of.
            Err(Errno::ACCESS) => {}
            // It vanished, and that is heard of where its name was.
            Err(Errno::NOENT | Errno::NOTDIR) => self.missed = true,
            Err(error) => self.miss(folder, &error.to_string(), "see the error"),
        }
    }

    /// Ends a watch, unless it has another path by now.
    fn remove(&mut self, watch: i32, folder: &Path) {
        if self.paths.get(&watch).is_some_and(|path| path == folder) {
            self.paths.remove(&watch);
            // The kernel has ended it already when the folder is gone.
            inotify::remove_watch(&self.queue, watch).ok();
        }
    }

    /// The folder of a watch is gone, or is another one.
    fn ended(&mut self, watch: i32) {
        if let Some(path) = self.paths.remove(&watch)
            && self.folders.get(&path).is_some_and(|folder| folder.watch == watch)
        {
            self.folders.remove(&path);
        }
    }

    fn deafen(&mut self, noise: &HashMap<i32, u32>) {
        for (watch, _) in noise.iter().filter(|(_, count)| **count > NOISY) {
            let Some(path) = self.paths.get(watch).cloned() else { continue };
            tracing::debug!(folder = %path.display(), "busy: its files are polled for a while");
            self.add(&path, Some(Instant::now() + DEAF));
            self.complete = false;
        }
    }
}

impl Watch for Inotify {
    fn begin_search(&mut self) {
        self.search += 1;
        self.missed = false;
        self.full = false;
    }

    fn cover(&mut self, folder: &Path) {
        let known = self.folders.get(folder);
        if self.full || known.is_some_and(|known| known.search == self.search) {
            return;
        }
        if known.is_none() && self.folders.len() >= self.most {
            self.fill(folder);
            return;
        }
        if known.is_none() && !is_heard(folder) {
            self.miss(folder, "it lies on a file system that others may change", "none is needed");
            return;
        }
        let now = Instant::now();
        let deaf_until = known.and_then(|known| known.deaf_until).filter(|until| *until > now);
        self.missed |= deaf_until.is_some();
        // Also one that is watched: another folder may have its name by now.
        self.add(folder, deaf_until);
    }

    fn end_search(&mut self) {
        let search = self.search;
        let left = self.folders.extract_if(|_, folder| folder.search != search);
        for (path, folder) in left.collect::<Vec<_>>() {
            self.remove(folder.watch, &path);
        }
        self.complete = !self.missed;
        self.told &= self.missed;
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn hear(&mut self) -> Heard {
        let mut heard = Heard::default();
        let mut noise: HashMap<i32, u32> = HashMap::new();
        let mut ended = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.queue, &mut buffer);
        while let Ok(event) = reader.next() {
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                heard.unclear = true;
                continue;
            }
            if what.contains(ReadFlags::IGNORED) {
                ended.push(event.wd());
                continue;
            }
            let folder = self.paths.get(&event.wd());
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let (Some(folder), Some(name)) = (folder, name) else {
                // Of a watch that was let go, or of the folder itself.
                let itself = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
                heard.unclear |= what.intersects(itself);
                continue;
            };
            if what.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
                *noise.entry(event.wd()).or_default() += 1;
                heard.changed.insert(folder.join(name));
            } else if what.contains(ReadFlags::ISDIR) {
                heard.unclear = true;
            } else {
                heard.names.insert(folder.join(name));
            }
        }
        for watch in ended {
            self.ended(watch);
        }
        self.deafen(&noise);
        heard
    }

    fn bell(&self) -> Option<OwnedFd> {
        self.queue.try_clone().ok()
    }
}

fn mask(deaf: bool) -> WatchFlags {
    let names = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    if deaf { names } else { names | WatchFlags::MODIFY | WatchFlags::ATTRIB }
}

/// Whether all that changes in the folder changes through this kernel.
fn is_heard(folder: &Path) -> bool {
    // What cannot be asked is not there, or not reachable: the watch itself will say so.
    rustix::fs::statfs(folder).map_or(true, |stat| {
        let kind = stat.f_type as u64 & u64::from(u32::MAX);
        UNHEARD.iter().all(|unheard| u64::from(*unheard) != kind)
    })
}

#[cfg(test)]
mod tests;
