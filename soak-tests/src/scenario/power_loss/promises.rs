//! What was promised when the disk went: read from outside, just before and just after.
//!
//! In: the agent's own words, the core's status, the destinations. Out: [`Promises`], and the ids of the records that an
//! acknowledged stretch of a source file holds. Promise: only what is already binding is noted: a mark that was answered, a
//! checkpoint that was complete, a row that was committed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use crate::admin;
use crate::agent::{self, Frontiers};
use crate::book::Id;
use crate::database;
use crate::generate::record::id_of;
use crate::ground::{Ground, Pipe};

/// Binding at the moment of the cut.
#[derive(Debug, Default)]
pub(super) struct Promises {
    pub(super) acknowledged: Frontiers,
    /// A checkpoint that was complete before the newest was begun.
    pub(super) checkpoint: Frontiers,
    /// Durable entries of the log.
    pub(super) end: u64,
    /// Of the destination that goes down with the core: committed rows, and the newest of them.
    pub(super) inside: database::Extent,
    /// Of the destination outside: everything it was given.
    pub(super) outside: HashSet<Id>,
}

impl Promises {
    pub(super) async fn note(ground: &Ground, inside: &Path) -> anyhow::Result<Self> {
        let status = admin::status(&ground.socket()).await?;
        Ok(Self {
            checkpoint: agent::settled_checkpoint(&ground.state)?,
            acknowledged: agent::acknowledged(&ground.state).await?,
            end: status.streams.iter().map(|stream| stream.end).sum(),
            inside: database::extent(inside, None).await?,
            outside: HashSet::new(),
        })
    }

    /// Adds what was acknowledged meanwhile; a mark is never taken back.
    pub(super) fn hear(&mut self, newer: Frontiers) {
        for (generation, frontier) in newer {
            match self.acknowledged.get(&generation) {
                Some(known) if known.mark >= frontier.mark => {}
                _ => drop(self.acknowledged.insert(generation, frontier)),
            }
        }
    }

    /// The records in the acknowledged stretches of the source files.
    pub(super) fn acknowledged_ids(&self) -> anyhow::Result<Vec<Id>> {
        let mut ids = Vec::new();
        for frontier in self.acknowledged.values() {
            let file = std::fs::read(&frontier.path)
                .with_context(|| format!("cannot read {}", frontier.path.display()))?;
            let mark = usize::try_from(frontier.mark)?;
            let stretch = file.get(..mark).context("more was acknowledged than was written")?;
            for line in stretch.split_inclusive(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(line);
                ids.push(id_of(line.trim_end()).context("a record without an id was written")?);
            }
        }
        Ok(ids)
    }
}

/// One partition as `garam log verify` sees it.
#[derive(Debug, Deserialize)]
pub(super) struct Verified {
    pub(super) stream: String,
    pub(super) partition: i64,
    pub(super) end: u64,
    pub(super) ok: bool,
    pub(super) torn: Option<serde_json::Value>,
}

/// Everything of a pipeline that is there: rows and quarantine.
pub(super) async fn readable(ground: &Ground, pipe: &Pipe) -> anyhow::Result<HashSet<Id>> {
    let mut ids = database::read_ids(&pipe.database).await?;
    for aside in ground.quarantined(&pipe.name).await? {
        ids.extend(aside.record.lines().filter_map(id_of));
    }
    Ok(ids)
}

/// A copy of a destination, which may be looked into without finishing what the cut left.
pub(super) fn copy_of(pipe: &Pipe, folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder.join("copies");
    if folder.try_exists()? {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir(&folder)?;
    let copy = folder.join("copy.sqlite");
    database::copy(&pipe.database, &copy)?;
    Ok(copy)
}
