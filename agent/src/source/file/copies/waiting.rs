//! From the first sight of a compressed file to the decision what it is: one survey at a time, on a thread of its own.
//!
//! In: waiting files, reports of surveys. Out: files that are met, twins of open files, or more waiting. Promise: a file is surveyed only when it
//! did not change between two walks; an incomplete one is damaged only after `compressed_wait`. Not here: the pass itself
//! (`survey`).

use std::io;
use std::time::Instant;

use super::content::begins;
use super::{Found, Key, MOST_RIVALS, SETTLED, Stage, Twin, Waiting};
use crate::source::file::packed::Packed;
use crate::source::file::survey::{Report, Rival, Task};
use crate::source::file::{Files, identity};
use crate::source::{Handle, Met};

impl Files {
    pub(super) fn start_survey(&mut self, now: Instant) {
        let ready = |waiting: &&Waiting| {
            matches!(waiting.stage, Stage::New)
                && waiting.file.stamp_before == Some(waiting.file.stamp)
        };
        let candidates = self.copies.waiting.iter().filter(|(_, waiting)| ready(waiting));
        let oldest = candidates.min_by_key(|(_, waiting)| waiting.file.age()).map(|(key, _)| *key);
        let Some(key) = oldest else { return };
        let Some(mut waiting) = self.copies.waiting.remove(&key) else { return };
        match self.task(&mut waiting.file).and_then(Task::start) {
            Ok(report) => {
                waiting.stage = Stage::Surveying { stamp: waiting.file.stamp };
                self.copies.running = Some((key, report));
            }
            Err(error) => {
                self.report(waiting.file.plain.path(), &error);
                let stamp = waiting.file.stamp;
                waiting.stage = Stage::Doubtful { stamp, since: now, report: None };
            }
        }
        self.copies.waiting.insert(key, waiting);
    }

    pub(super) fn task(&mut self, file: &mut Found) -> io::Result<Task> {
        let mut rivals = Vec::new();
        for handle in self.alike(file) {
            rivals.extend(self.rival(handle));
        }
        let expected = self.copies.expected.iter();
        let marks = expected
            .filter(|entry| begins(&file.head, &entry.descriptor))
            .filter_map(|entry| u64::try_from(entry.mark).ok())
            .collect();
        file.plain.unpark()?;
        let raw = file.plain.file()?.try_clone();
        file.plain.park();
        Ok(Task { file: raw?, format: file.format, marks, rivals })
    }

    /// Open files of the same table whose names and heads say that this may be their copy.
    pub(super) fn alike(&self, file: &Found) -> Vec<Handle> {
        let mut alike: Vec<Handle> = self
            .open
            .iter()
            .filter(|(_, open)| {
                open.source == file.source
                    && identity::is_kin(file.plain.path(), open.plain.path())
                    && open.may_begin_with(&file.head)
            })
            .map(|(&handle, _)| handle)
            .collect();
        alike.sort_unstable();
        alike.truncate(MOST_RIVALS);
        alike
    }

    fn rival(&mut self, handle: Handle) -> Option<Rival> {
        if let Ok(open) = self.opened(handle) {
            let format = open.packed.as_ref().map(Packed::format);
            let file = open.plain.file().ok()?.try_clone().ok()?;
            return Some(Rival::Open { handle, file, format });
        }
        let (end, tail) = self.open.get(&handle)?.looked_at;
        Some(Rival::Gone { handle, end: u64::try_from(end).ok()?, tail })
    }

    pub(super) fn surveyed(
        &mut self,
        key: Key,
        report: io::Result<Report>,
        met: &mut Vec<Met>,
        now: Instant,
    ) {
        let Some(mut waiting) = self.copies.waiting.remove(&key) else { return };
        let stamp = waiting.file.stamp;
        let changed = !matches!(waiting.stage, Stage::Surveying { stamp: then } if then == stamp);
        waiting.stage = match report {
            _ if changed => Stage::New,
            Ok(report) if report.survey.fault.is_none() => {
                met.extend(self.resolve(key, waiting.file, report));
                return;
            }
            Ok(report) => {
                tracing::debug!(
                    path = %waiting.file.plain.path().display(), why = report.survey.fault,
                    "a compressed file is not whole, waiting"
                );
                Stage::Doubtful { stamp, since: now, report: Some(report) }
            }
            Err(error) => {
                self.report(waiting.file.plain.path(), &error);
                Stage::Doubtful { stamp, since: now, report: None }
            }
        };
        self.copies.waiting.insert(key, waiting);
    }

    /// What changed is surveyed again; what stayed incomplete for long is damaged.
    pub(super) fn settle_doubtful(&mut self, met: &mut Vec<Met>, now: Instant) {
        let mut given_up = Vec::new();
        for (&key, waiting) in &mut self.copies.waiting {
            let Stage::Doubtful { stamp, since, report } = &waiting.stage else { continue };
            let patience = self
                .sets
                .iter()
                .find(|set| set.name == waiting.file.source)
                .map_or(SETTLED, |set| set.compressed_wait);
            if *stamp != waiting.file.stamp || (report.is_none() && now - *since >= SETTLED) {
                waiting.stage = Stage::New;
            } else if now - *since >= patience && report.is_some() {
                given_up.push(key);
            }
        }
        for key in given_up {
            let Some(waiting) = self.copies.waiting.remove(&key) else { continue };
            let Stage::Doubtful { report: Some(report), .. } = waiting.stage else { continue };
            tracing::warn!(
                path = %waiting.file.plain.path().display(),
                format = waiting.file.format.name(),
                error = report.survey.fault,
                readable = report.survey.lines_end,
                "a compressed file is damaged or was never finished: its whole lines are read, the rest is lost"
            );
            met.extend(self.resolve(key, waiting.file, report));
        }
    }

    /// Decides what a surveyed file is.
    fn resolve(&mut self, key: Key, file: Found, report: Report) -> Option<Met> {
        let packed = Packed::new(file.format, file.head.clone(), report.survey);
        match report.twin.filter(|twin| self.open.contains_key(twin)) {
            Some(of) => {
                tracing::info!(
                    path = %file.plain.path().display(), of = %self.open.get(&of)?.plain.path().display(),
                    "a compressed copy of a file that is being read"
                );
                self.copies.twins.insert(key, Twin { file, packed, of });
                None
            }
            None => self.admit(file, packed, None),
        }
    }
}
