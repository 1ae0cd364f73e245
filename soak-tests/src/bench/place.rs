//! Where a benchmark writes: a folder whose disk is what is measured.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::cli::say;

/// What `statfs` calls a file system that lives in memory.
const TMPFS: u64 = 0x0102_1994;

#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// In `dir`, by default the system's temporary folder.
    pub(super) fn make(dir: Option<&Path>) -> anyhow::Result<Self> {
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        if rustix::fs::statfs(&dir)?.f_type as u64 == TMPFS {
            let dir = dir.display();
            say(&format!("{dir} lies in memory: name a folder on a disk with --dir"));
        }
        Ok(Self { dir })
    }

    /// A folder of its own in there, removed when it is dropped.
    pub(super) fn folder(&self) -> anyhow::Result<TempDir> {
        Ok(tempfile::Builder::new().prefix("garam-bench-").tempdir_in(&self.dir)?)
    }
}
