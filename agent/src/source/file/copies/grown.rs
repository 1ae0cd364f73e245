//! Compressed files that became longer after they were met: members were appended.
//!
//! In: handles. Out: contents that reach further. Promise: one is looked through at a time, on a thread of its own.

use std::sync::mpsc::TryRecvError;

use crate::source::Handle;
use crate::source::file::Files;
use crate::source::file::survey::{Survey, Task};

impl Files {
    /// Looks again at files that became longer after they were met.
    pub(super) fn tend_grown(&mut self) {
        if let Some((handle, report)) = self.copies.growing.take() {
            match report.try_recv() {
                Err(TryRecvError::Empty) => self.copies.growing = Some((handle, report)),
                Ok(Ok(report)) => self.regrow(handle, report.survey),
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => {}
            }
        }
        if self.copies.growing.is_none()
            && let Some(handle) = self.copies.grown.pop()
            && let Ok(open) = self.opened(handle)
            && let Some(packed) = &open.packed
            && let Ok(file) = open.plain.file().and_then(std::fs::File::try_clone)
        {
            let format = packed.format();
            let task = Task { file, format, marks: Vec::new(), rivals: Vec::new() };
            self.copies.growing = task.start().ok().map(|report| (handle, report));
        }
    }

    fn regrow(&mut self, handle: Handle, survey: Survey) {
        if let Some(packed) = self.open.get_mut(&handle).and_then(|open| open.packed.as_mut()) {
            packed.grow(survey);
            self.changed.push(handle);
        }
    }
}
