//! Room on the disk that is kept for the day it is full.
//!
//! In: how many bytes. Out: `<dir>/RESERVE`, a file that takes them and holds nothing. When the log meets a full disk the file
//! is removed, so that what must go on can: cursors and metadata, a quarantine, the copy of a tail at the next start.
//! Promise: what sources send is taken in again only once the reserve is whole again, so the log never eats it itself.
//! A disk that never had room for one is used without. Not here: what full means for whom (`writer`, `space`).

use std::io;
use std::path::{Path, PathBuf};

use garam_disk::Fs;

const NAME: &str = "RESERVE";

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// There is none: a first start, another size, or a start after it was given.
    Missing,
    /// Given to what must go on.
    Given,
}

impl Reserve {
    /// Looks whether it is there; takes nothing, since a start on a full disk may need the room itself.
    pub(crate) fn find(fs: &dyn Fs, dir: &Path, bytes: u64) -> Self {
        let path = dir.join(NAME);
        let size = fs.open(&path).and_then(|file| file.size()).unwrap_or(0);
        let state = if size == bytes { State::Whole } else { State::Missing };
        Self { path, bytes, state }
    }

    /// Takes what is missing, where there is room. `Some`: why sources have to wait until there is.
    pub(crate) fn restore(&mut self, fs: &dyn Fs) -> Option<String> {
        if self.state == State::Whole {
            return None;
        }
        match self.take(fs) {
            Ok(()) => {
                self.state = State::Whole;
                None
            }
            Err(error) if self.state == State::Given => Some(format!(
                "the disk is full: free more than the {} bytes of {}, the log goes on by itself ({error})",
                self.bytes,
                self.path.display()
            )),
            Err(error) => {
                tracing::debug!(%error, file = %self.path.display(), "no room for the reserve yet");
                None
            }
        }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.state == State::Given
    }

    fn take(&self, fs: &dyn Fs) -> io::Result<()> {
        let taken = match self.bytes {
            0 => Ok(()),
            bytes => fs.create(&self.path).and_then(|file| file.allocate(bytes)),
        };
        if taken.is_err() || self.bytes == 0 {
            // A part of it would only be kept from those it is meant for.
            let _gone = fs.remove(&self.path);
        }
        taken
    }

    /// Gives the room, and the name, to whoever needs it. Whether there was any.
    pub(crate) fn give(&mut self, fs: &dyn Fs) -> bool {
        if self.state != State::Whole || self.bytes == 0 {
            return false;
        }
        self.state = State::Given;
        let given = fs.remove(&self.path);
        let bytes = self.bytes;
        match &given {
            Ok(()) => tracing::warn!(
                bytes,
                action = "free space",
                "the disk is full, the reserve is given up"
            ),
            Err(error) => {
                tracing::warn!(%error, "the disk is full, and the reserve cannot be removed")
            }
        }
        given.is_ok()
    }
}
