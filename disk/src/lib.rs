//! The file calls that a crash must not turn into a lie, as a seam: log, checkpoint and other state go through it.
//!
//! In: paths and bytes. Out: what the operating system answered, unchanged. Promise: whoever takes a [`Fs`] makes every
//! write, sync, rename and removal through it, so that a test can fail, tear or lose any one of them.
//! What it means for bytes to be durable is left to the caller, because it cannot be hidden: a file's bytes after
//! [`DiskFile::sync`], its name after [`Fs::sync_dir`], and neither after an error, ever.
//! Not here: what is written, what an error means (the room that asked), files of other people that are only read.
#![forbid(unsafe_code)]

mod descriptors;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use descriptors::{descriptor_limit, raise_descriptor_limit};
pub use real::RealFs;

/// A disk, by paths.
pub trait Fs: Send + Sync + 'static {
    /// Creates a file for reading and writing; an existing one is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading only.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file a new name; one that has it already is replaced in the same step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates the folder and those above it, each synced into its parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in this folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted; none when it does not exist.
    fn list(&self, path: &Path) -> io::Result<Vec<Listed>>;
    /// Takes the lock file for this process until the guard is dropped; `None` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// The whole of a small file. One that is larger than `limit` is refused before it is read.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let size = file.size()?;
        let size = usize::try_from(size).ok().filter(|size| *size <= limit).ok_or_else(|| {
            let why = format!("it is {size} bytes long, more than the {limit} that make sense");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        let mut bytes = vec![0; size];
        let filled = file.read_full_at(&mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// An open file, read and written at explicit positions.
pub trait DiskFile: Send + Sync {
    /// Reads at most `into.len()` bytes, possibly fewer; 0 at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// `fdatasync`: bytes and length. After an error nothing written since the last success may be relied on, and a
    /// second call proves nothing: pages that failed to reach the disk read back as if they had.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file `len` bytes long and takes the room for them on the disk now.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;

    /// Reads until `into` is full or the file ends.
    fn read_full_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub is_dir: bool,
}
