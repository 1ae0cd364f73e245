//! The work folder of a run: given by name and kept, or temporary and gone at the end.
//!
//! In: perhaps a name. Out: a folder that is there. Promise: what a person named is never removed, and what a failed run
//! left behind is kept and named. Not here: what lies in it (`ground`).

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::say;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;
use crate::scenario::Verdict;

/// What a person says about it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Keep the work folder. A failed run keeps it anyway.
    #[arg(long)]
    keep: bool,
    /// Work folder, kept; default: a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Plays a scenario in a folder of its own. Unless the outcome is good, the folder stays and what both programs said last is shown.
pub(crate) async fn play_at<V: Verdict>(
    place: &Place,
    programs: Programs,
    play: impl AsyncFnOnce(&mut Rig) -> anyhow::Result<V>,
) -> anyhow::Result<V> {
    let home = Home::make(place)?;
    let mut rig = Rig::new(Ground::at(home.path(), programs)?);
    let outcome = play(&mut rig).await;
    let good = outcome.as_ref().is_ok_and(V::ok);
    if !good {
        say(&rig.last_words());
    }
    home.leave(good);
    outcome
}

/// A work folder.
pub(crate) enum Home {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Home {
    pub(crate) fn make(place: &Place) -> anyhow::Result<Self> {
        let Some(given) = &place.dir else {
            let made = tempfile::Builder::new().prefix("garam-soak-").tempdir();
            let made = made.context("cannot make a temporary folder")?;
            return Ok(if place.keep { Self::Kept(made.keep()) } else { Self::Temporary(made) });
        };
        std::fs::create_dir_all(given)
            .with_context(|| format!("cannot make {}", given.display()))?;
        Ok(Self::Kept(given.canonicalize()?))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    /// The run is over: a bad one's folder stays.
    pub(crate) fn leave(self, good: bool) {
        let kept = match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) if !good => folder.keep(),
            Self::Temporary(_) => return,
        };
        say(&format!("the work folder is kept: {}", kept.display()));
    }
}
