//! The list of what is in a backup.
//!
//! ```text
//!  MANIFEST, two lines:   {"format":1, …}            JSON
//!                         1a2b3c4d                    CRC32C of the first line without its end, hexadecimal
//! ```
//!
//! In: bytes of the file. Out: [`Manifest`]. Promise: a flipped, cut or added byte is noticed; a newer format is told apart
//! from damage, whatever else a newer build writes. Names lead nowhere outside the backup.

use std::path::{Component, Path};

use garam_disk::Fs;
use serde::{Deserialize, Serialize};

use super::{BackupError, io_error};

/// The format this build writes.
pub const FORMAT: u64 = 1;
/// What the list is called.
pub const NAME: &str = "MANIFEST";
/// A list of a million segments is some 100 MiB.
const LIMIT: usize = 256 * 1024 * 1024;

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u64,
    /// The build that took it.
    pub garam: String,
    /// Wall clock, for people.
    pub taken_us: i64,
    pub cluster: String,
    pub partitions: Vec<PartitionEntry>,
    pub files: Vec<FileEntry>,
}

/// A partition of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionEntry {
    pub stream: String,
    pub partition: u32,
    pub incarnation: String,
    pub start: u64,
    pub end: u64,
}

/// A file, by its path below the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub crc32c: u32,
}

#[derive(Deserialize)]
struct Head {
    format: u64,
}

impl Manifest {
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(format!("\n{crc:08x}\n").as_bytes());
        Ok(bytes)
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads the list of the backup in `dir`.
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(NAME);
        let bytes = match fs.read(&path, LIMIT) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BackupError::NoBackup(dir.into()));
            }
            bytes => bytes.map_err(io_error("read", &path))?,
        };
        let damaged = |why: &str| BackupError::Manifest { path: dir.into(), why: why.into() };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let (line, crc) = text.split_once('\n').ok_or_else(|| damaged("it is cut"))?;
        let head = serde_json::from_str(line);
        if let Ok(Head { format }) = head
            && format > FORMAT
        {
            let (path, found, supported) = (dir.into(), format, FORMAT);
            return Err(BackupError::NewerFormat { path, found, supported });
        }
        if format!("{:08x}\n", crc32c::crc32c(line.as_bytes())) != crc {
            return Err(damaged("its checksum differs"));
        }
        let manifest: Self = serde_json::from_str(line).map_err(|e| damaged(&e.to_string()))?;
        let plain = |file: &FileEntry| {
            let mut parts = Path::new(&file.name).components();
            !file.name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        if !manifest.files.iter().all(plain) {
            return Err(damaged("a name leads outside the backup"));
        }
        Ok(manifest)
    }
}
