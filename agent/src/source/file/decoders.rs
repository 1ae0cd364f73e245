//! How many files are decompressed at a time.
//!
//! In: who wants to be read. Out: leave to go on, or not yet. Promise: never more than [`MOST_CURSORS`] decoders live; one that rests makes room. Not
//! here: decompression (`unpack`, `packed`).

use std::io;
use std::time::Duration;

use super::Files;
use super::packed::Packed;
use crate::source::Handle;

/// Files that are decompressed at a time: each holds a window, and those of zstd may be large.
const MOST_CURSORS: usize = 4;

/// A decoder that was not used for so long makes room for another.
const CURSOR_REST: Duration = Duration::from_secs(10);

impl Files {
    /// Goes a bounded part of the way to a position of a compressed file; an error until it is reached.
    pub(super) fn approach(&mut self, handle: Handle, position: u128) -> io::Result<()> {
        let holds_cursor = self.open.get(&handle).is_some_and(|file| file.cursor_age().is_some());
        if !holds_cursor && !self.has_cursor_left() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let file = self.opened(handle)?;
        let Some(packed) = &file.packed else { return Ok(()) };
        match packed.approach(file.plain.file()?, position)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether one more file may be decompressed; who rested for long makes room.
    fn has_cursor_left(&self) -> bool {
        let ages = || self.open.values().filter(|file| file.cursor_age().is_some());
        if ages().count() < MOST_CURSORS {
            return true;
        }
        let resting = ages().find(|file| file.cursor_age() >= Some(CURSOR_REST));
        resting.and_then(|file| file.packed.as_ref()).map(Packed::drop_cursor).is_some()
    }
}
