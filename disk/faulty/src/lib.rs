//! A disk in memory that fails, tears and forgets: what tests put under a room that keeps files.
//!
//! In: the calls of [`Fs`], a seed, and which of them shall go wrong. Out: what a real disk might answer, and after
//! [`FaultyFs::crash`] what a real disk might still hold.
//!
//! ```text
//!   write ──► cache (what reads see) ──sync──► durable          one file:  bytes, and each change since the last sync
//!   create, rename, remove ──► names ──sync_dir──► durable names           one folder: the same for its entries
//!
//!   crash: durable + any part of what was not synced        kill: everything (the process died, the machine did not)
//! ```
//!
//! Promise: nothing that was synced without an error is lost, everything else may be: a file's sectors each hold any of
//! the versions they had since the sync, torn at any byte; its length lies anywhere between; bytes that never arrived are
//! zero; each creation, rename and removal in a folder happened or did not. After a failed sync the bytes read back as
//! written and no later sync makes them durable. The same seed and the same calls give the same disk.
//! Assumed of real disks: a write does not alter synced bytes beside it; a rename happens wholly or not at all.
//! Not here: what a room should make of it (its tests). It is a package of its own, and not a feature of `garam-disk`,
//! so that building the tests does not compile every room twice.
#![forbid(unsafe_code)]

mod content;
mod fault;
mod file;
mod names;
mod random;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use garam_disk::{DiskFile, Fs, Listed};

use content::Content;
pub use fault::{Call, EIO, EMFILE, ENOSPC, Effect, Fault, Odds};
use fault::{Faults, Verdict};
use file::File;
use names::{Names, Node};
use random::Random;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyFs {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Syncs hang while this is set.
    stalled: (Mutex<bool>, Condvar),
}

struct State {
    random: Random,
    names: Names,
    faults: Faults,
    locked: BTreeSet<PathBuf>,
    /// Bytes and names the disk has room for.
    bytes: u64,
    inodes: usize,
}

impl FaultyFs {
    /// An empty disk with nothing but the root folder.
    pub fn new(seed: u64) -> Self {
        Self::with(Random::new(seed), Names::default())
    }

    fn with(random: Random, names: Names) -> Self {
        let (bytes, inodes) = (u64::MAX, usize::MAX);
        let (faults, locked) = (Faults::default(), BTreeSet::new());
        let state = State { random, names, faults, locked, bytes, inodes };
        let stalled = (Mutex::new(false), Condvar::new());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), stalled }) }
    }

    /// The power fails: what the disk holds afterwards. This one is dead from now on.
    pub fn crash(&self) -> Self {
        let mut state = self.shared.state();
        state.faults.die();
        let mut random = state.random.split();
        let names = state.names.after_crash(&mut random);
        Self::with(random, names)
    }

    /// The process dies and the machine does not: everything is as it was. This one is dead from now on.
    pub fn kill(&self) -> Self {
        let mut state = self.shared.state();
        state.faults.die();
        Self::with(state.random.split(), state.names.clone())
    }

    /// How many changing calls were made: those a crash may fall on.
    pub fn calls(&self) -> u64 {
        self.shared.state().faults.calls()
    }

    /// The disk dies in the changing call with this number: it may take effect or not, and all later ones fail.
    pub fn die_at(&self, call: u64) {
        self.shared.state().faults.die_at(call);
    }

    pub fn is_dead(&self) -> bool {
        self.shared.state().faults.is_dead()
    }

    /// From now on this goes wrong, in addition to what does already.
    pub fn breaks(&self, fault: Fault) {
        self.shared.state().faults.add(fault);
    }

    /// From now on calls go wrong at random.
    pub fn odds(&self, odds: Odds) {
        self.shared.state().faults.odds = odds;
    }

    /// No more faults; what they did stays done.
    pub fn heals(&self) {
        self.shared.state().faults.clear();
    }

    /// Every sync hangs from now on, until [`FaultyFs::resume`].
    pub fn stall(&self) {
        *held(&self.shared.stalled.0) = true;
    }

    pub fn resume(&self) {
        *held(&self.shared.stalled.0) = false;
        self.shared.stalled.1.notify_all();
    }

    /// The disk has room for this many bytes and names, those it holds included.
    pub fn limit(&self, bytes: u64, inodes: usize) {
        let mut state = self.shared.state();
        (state.bytes, state.inodes) = (bytes, inodes);
    }

    pub fn used(&self) -> u64 {
        self.shared.state().names.used()
    }

    /// All files, by path.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shared.state().names.files().map(|(path, _)| path.clone()).collect()
    }

    /// What a file's reads would show, whatever is broken.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.shared.state().names.file(path).ok()?;
        let bytes = held(&content).cache().to_vec();
        Some(bytes)
    }

    /// Puts a file there, synced, as if it had always been.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        self.shared.state().names.put(path, bytes);
    }

    /// Inverts one bit of a file, on the disk and in the cache.
    pub fn flip(&self, path: &Path, byte: usize, bit: u8) {
        if let Ok(content) = self.shared.state().names.file(path) {
            held(&content).flip(byte, bit);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        held(&self.state)
    }

    fn wait_while_stalled(&self) {
        let stalled = held(&self.stalled.0);
        let waited = self.stalled.1.wait_while(stalled, |stalled| *stalled);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    /// Decides what becomes of a call.
    fn meets(&mut self, call: Call, path: &Path) -> io::Result<Verdict> {
        self.faults.meets(call, path, &mut self.random)
    }

    /// How many more bytes there is room for.
    fn room(&self) -> u64 {
        self.bytes.saturating_sub(self.names.used())
    }

    fn has_a_name_left(&self) -> io::Result<()> {
        if self.names.count() < self.inodes { Ok(()) } else { Err(fault::error(ENOSPC)) }
    }

    /// One folder, whose parent is there.
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        let verdict = self.meets(Call::MakeDir, path)?;
        self.has_a_name_left()?;
        self.names.link(path, Node::Folder)?;
        verdict.end()
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let verdict = self.meets(Call::SyncDir, path)?;
        verdict.end()?;
        self.names.sync(path)
    }
}

impl Fs for FaultyFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Create, path)?;
        let content = match state.names.file(path) {
            Ok(content) => {
                held(&content).set_len(0);
                content
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                state.has_a_name_left()?;
                let content = Arc::new(Mutex::new(Content::default()));
                state.names.link(path, Node::File(content.clone()))?;
                content
            }
            Err(error) => return Err(error),
        };
        verdict.end()?;
        Ok(Arc::new(File::new(self.shared.clone(), path, content, true)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.shared.state();
        state.meets(Call::Open, path)?.end()?;
        let content = state.names.file(path)?;
        Ok(Arc::new(File::new(self.shared.clone(), path, content, false)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Rename, to)?;
        state.names.rename(from, to)?;
        verdict.end()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Remove, path)?;
        state.names.unlink(path)?;
        verdict.end()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state();
        let mut missing: Vec<&Path> =
            path.ancestors().take_while(|above| !state.names.is_folder(above)).collect();
        while let Some(folder) = missing.pop() {
            state.make_dir(folder)?;
            if let Some(parent) = folder.parent() {
                state.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.shared.state().sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let mut state = self.shared.state();
        state.meets(Call::List, path)?.end()?;
        Ok(state.names.list(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut state = self.shared.state();
        let verdict = state.meets(Call::Lock, path)?;
        if state.names.file(path).is_err() {
            state.has_a_name_left()?;
            let content = Arc::new(Mutex::new(Content::default()));
            state.names.link(path, Node::File(content))?;
        }
        verdict.end()?;
        if !state.locked.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock { shared: self.shared.clone(), path: path.to_path_buf() })))
    }
}

struct Lock {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.shared.state().locked.remove(&self.path);
    }
}

/// A test that panics while it holds a lock has failed already.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
