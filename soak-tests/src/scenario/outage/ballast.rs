//! Takes everything that a file system has left: its bytes, or its inodes; and gives it back.
//!
//! In: a folder on a small file system. Out: a file system without room, until this value ends or is freed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Room {
    Bytes,
    Inodes,
}

/// What takes the room.
#[derive(Debug)]
pub(super) struct Ballast {
    folder: PathBuf,
}

impl Ballast {
    pub(super) fn fill(disk: &Path, room: Room) -> anyhow::Result<Self> {
        let taken = fs::read_dir(disk).context("cannot look at the disk")?.count();
        let folder = disk.join(format!("ballast{taken}"));
        fs::create_dir(&folder).context("cannot begin to fill the disk")?;
        let ballast = Self { folder };
        match ballast.take(room) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(ballast),
            Err(error) => Err(error).context("cannot fill the disk"),
            Ok(()) => anyhow::bail!("the disk has no end"),
        }
    }

    /// Ends with the error of a full disk.
    fn take(&self, room: Room) -> io::Result<()> {
        match room {
            Room::Bytes => {
                let mut file = File::create(self.folder.join("bytes"))?;
                (0..1_000_000).try_for_each(|_| file.write_all(&[0; 4_096]))
            }
            Room::Inodes => (0..1_000_000)
                .try_for_each(|n| File::create(self.folder.join(n.to_string())).map(drop)),
        }
    }

    pub(super) fn free(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.folder).context("cannot make room again")
    }
}
