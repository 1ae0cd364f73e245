//! A disk and a clock that tests decide over. The disk stores files for real, syncs nothing, and fails when told to.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use garam_disk::{DiskFile, Fs, Listed, RealFs};
use garam_log::embedded::{Env, Time};

/// Which call fails next, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Sync,
    /// The write stores half of its bytes, then fails.
    Write(io::ErrorKind),
    Create(io::ErrorKind),
    Remove,
    SyncDir,
}

#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// Stays until taken away: a broken disk is broken. Only paths that contain the text are concerned.
    fault: Arc<Mutex<Option<(Fault, String)>>>,
    syncs: Arc<AtomicU64>,
    stalled: Arc<(Mutex<bool>, Condvar)>,
    /// Calls that still change something before nothing does any more.
    left: Arc<Mutex<Option<u64>>>,
}

impl Disk {
    pub(crate) fn breaks(&self, fault: Fault, path: &str) {
        *self.fault.lock().unwrap() = Some((fault, path.to_owned()));
    }

    pub(crate) fn heals(&self) {
        *self.fault.lock().unwrap() = None;
    }

    /// Every sync hangs from now on, until [`Disk::resume`].
    pub(crate) fn stall(&self) {
        *self.stalled.0.lock().unwrap() = true;
    }

    pub(crate) fn resume(&self) {
        *self.stalled.0.lock().unwrap() = false;
        self.stalled.1.notify_all();
    }

    /// The machine loses power in the `n`th call from now on that changes something.
    pub(crate) fn dies_at(&self, n: u64) {
        *self.left.lock().unwrap() = Some(n);
    }

    pub(crate) fn revives(&self) {
        *self.left.lock().unwrap() = None;
    }

    fn step(&self) -> io::Result<()> {
        match &mut *self.left.lock().unwrap() {
            Some(0 | 1) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    fn fault_at(&self, path: &Path) -> Option<Fault> {
        let fault = self.fault.lock().unwrap();
        let (fault, part) = fault.as_ref()?;
        path.to_string_lossy().contains(part.as_str()).then_some(*fault)
    }

    fn file(&self, path: &Path, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(File { disk: self.clone(), path: path.to_path_buf(), inner })
    }
}

impl Fs for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.step()?;
        if let Some(Fault::Create(kind)) = self.fault_at(path) {
            return Err(kind.into());
        }
        Ok(self.file(path, RealFs.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealFs.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        match self.fault_at(path) {
            Some(Fault::Remove) => Err(io::Error::from_raw_os_error(5)),
            _ => RealFs.remove(path),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        match self.fault_at(path) {
            Some(Fault::SyncDir) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        RealFs.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        RealFs.lock(path)
    }
}

struct File {
    disk: Disk,
    path: std::path::PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.inner.read_at(into, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.step()?;
        if let Some(Fault::Write(kind)) = self.disk.fault_at(&self.path) {
            self.inner.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(kind.into());
        }
        self.inner.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.step()?;
        if self.disk.fault_at(&self.path) == Some(Fault::Sync) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let (stalled, resumed) = &*self.disk.stalled;
        drop(resumed.wait_while(stalled.lock().unwrap(), |stalled| *stalled).unwrap());
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}

/// Clocks that move when told to.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    monotonic_ms: Arc<AtomicU64>,
    wall_ms: Arc<AtomicU64>,
}

impl Clock {
    pub(crate) fn pass(&self, time: Duration) {
        let ms = time.as_millis() as u64;
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The machine was off.
    pub(crate) fn skip(&self, time: Duration) {
        self.wall_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Time for Clock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
}

/// The same "random" bytes every time, for golden files and replayable models.
pub(crate) fn fixed_random(into: &mut [u8]) -> io::Result<()> {
    into.fill(0x5a);
    Ok(())
}

/// A disk and a clock, and the environment made of them.
pub(crate) fn world() -> (Disk, Clock, Env) {
    let (disk, clock) = (Disk::default(), Clock::default());
    let env =
        Env { fs: Arc::new(disk.clone()), time: Arc::new(clock.clone()), random: fixed_random };
    (disk, clock, env)
}
