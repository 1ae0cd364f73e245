//! Clocks that can be set for one process: each program reads its own hand, a file, through a preloaded libfaketime.
//!
//! In: a rig whose programs have not been started. Out: hands that can be moved while they run. Promise: only the wall clock
//! moves; the monotonic one and the times of files stay true, as when a person sets a machine's clock. The library comes from
//! `testbed/faketime`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use crate::rig::Rig;

const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/faketime");

/// The wall clocks of both programs.
#[derive(Debug)]
pub(super) struct Clocks {
    core: Hand,
    agent: Hand,
}

/// Whose clock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Core,
    Agent,
}

/// The file that says by how much a clock is wrong.
#[derive(Debug)]
struct Hand(PathBuf);

impl Clocks {
    /// Finds the library, and gives both programs clocks that can be set; they begin right.
    pub(super) async fn give(rig: &mut Rig) -> anyhow::Result<Self> {
        let library = library().await?;
        let clocks = Self {
            core: Hand(rig.ground.dir.join("core.clock")),
            agent: Hand(rig.ground.dir.join("agent.clock")),
        };
        clocks.put_right()?;
        rig.core_environment.extend(clocks.core.environment(&library));
        rig.agent_environment.extend(clocks.agent.environment(&library));
        Ok(clocks)
    }

    /// One clock is wrong by so many seconds from now on, however it was before.
    pub(super) fn set(&self, whose: Whose, seconds: i64) -> anyhow::Result<()> {
        match whose {
            Whose::Core => self.core.set(seconds),
            Whose::Agent => self.agent.set(seconds),
        }
    }

    pub(super) fn put_right(&self) -> anyhow::Result<()> {
        self.core.set(0)?;
        self.agent.set(0)
    }
}

impl Hand {
    /// By a rename: whoever looks meanwhile sees the old offset or the new one.
    fn set(&self, seconds: i64) -> anyhow::Result<()> {
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}"))
            .and_then(|()| std::fs::rename(&next, &self.0))
            .with_context(|| format!("cannot set {}", self.0.display()))
    }

    fn environment(&self, library: &Path) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

async fn library() -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Found {
        library: PathBuf,
    }
    let found =
        Command::new(TOOL).arg("install").output().await.context("cannot run the testbed")?;
    let complaint = String::from_utf8_lossy(&found.stderr);
    anyhow::ensure!(found.status.success(), "testbed/faketime: {}", complaint.trim());
    let found: Found =
        serde_json::from_slice(&found.stdout).context("testbed/faketime prints something else")?;
    Ok(found.library)
}
