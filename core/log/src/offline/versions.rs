//! Says whether a newer build wrote any part of a log's folder.
//!
//! In: the folder of a log, which need not exist. Out: nothing, or the first segment of a newer format. Promise: nothing is
//! written, locked or created, and every stream that lies there is asked, also one that no configuration names (yet).
//! Not here: whether the segments are sound (`verify`).

use std::path::{Path, PathBuf};

use crate::api::LogError;
use crate::embedded::Env;
use crate::embedded::recovery::{self, io};

/// Refuses the folder when a segment in it has a format that this build does not know.
pub fn check_versions(dir: &Path) -> Result<(), LogError> {
    check_versions_with(&Env::default(), dir)
}

/// [`check_versions`] on a file system of the caller's.
pub(crate) fn check_versions_with(env: &Env, dir: &Path) -> Result<(), LogError> {
    for stream in folders(env, dir)? {
        for partition in folders(env, &stream)? {
            recovery::check_versions(env, &partition)?;
        }
    }
    Ok(())
}

fn folders(env: &Env, dir: &Path) -> Result<Vec<PathBuf>, LogError> {
    let listed = env.fs.list(dir).map_err(|e| io("list", dir, e))?;
    Ok(listed.iter().filter(|l| l.is_dir).map(|l| dir.join(&l.name)).collect())
}
