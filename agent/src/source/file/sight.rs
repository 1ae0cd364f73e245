//! What a search sees: paths, and what each of them means for the files that are known.
//!
//! In: the walk over all sets, or a path that the kernel named. Out: new files, opened, as [`Met`]s; changes of known ones. Promise: trouble
//! with a path is told once, and it is tried again. Not here: the walk (`discover`), when to search (the engine), compressed files (`copies`).

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::discover::Step;
use super::{Files, Key, identity};
use crate::source::{Handle, Met};

/// Compressed files that are remembered as not to be read.
const MOST_SKIPPED: usize = 100_000;

impl Files {
    /// One walk over all sets; what is new is opened and added to `met`.
    pub(super) fn walk(&mut self, met: &mut Vec<Met>) {
        for file in self.open.values_mut() {
            file.plain.begin_search();
        }
        self.copies.begin_search();
        let mut found = Vec::new();
        let mut troubles = Vec::new();
        for (index, set) in self.sets.iter().enumerate() {
            set.walk(&mut |step| match step {
                Step::Folder(folder) => self.watch.cover(folder),
                Step::Found { path, is_link } => found.push((index, path, is_link)),
                Step::Trouble { path, error } => troubles.push((path, error)),
            });
        }
        for (path, error) in troubles {
            self.report(&path, &error);
        }
        for (set, path, is_link) in found {
            // The file behind a link changes in a folder of its own.
            let target = is_link.then(|| path.canonicalize().ok()).flatten();
            if let Some(folder) = target.as_deref().and_then(Path::parent) {
                self.watch.cover(folder);
            }
            met.extend(self.sight(set, &path));
        }
    }

    /// Takes note of a change the kernel told of. True when only a search can tell what it means.
    pub(super) fn heard(&mut self, path: &Path) -> bool {
        let Ok(Some(found)) = identity::file_at(path) else { return false };
        let known = self.by_key.get(&identity::key(&found)).copied();
        let file = known.and_then(|handle| self.open.get(&handle));
        match (known, file) {
            (Some(handle), Some(file)) if file.plain.is_it(&found) => {
                if file.plain.has_changed(&found) {
                    self.changed.push(handle);
                }
                false
            }
            _ => self.names(path),
        }
    }

    pub(super) fn names(&self, path: &Path) -> bool {
        self.sets.iter().any(|set| set.matches(path))
    }

    /// Takes note of a path found by the walk; opens it when its file is new.
    fn sight(&mut self, set: usize, path: &Path) -> Option<Met> {
        match identity::file_at(path) {
            Ok(Some(found)) => {
                self.named_twice |= found.nlink() > 1;
                let key = identity::key(&found);
                if let Some(&handle) = self.by_key.get(&key) {
                    if self.sight_again(handle, path, &found) {
                        return None;
                    }
                    self.by_key.remove(&key);
                }
                if self.copies.sight(key, path, &found)
                    || self.skipped.contains(&key)
                    || self.sets.get(set).is_some_and(|set| set.is_too_old(&found))
                {
                    return None;
                }
                match self.sight_packed(set, path, &found) {
                    Ok(true) => return None,
                    Ok(false) => {}
                    Err(error) => {
                        self.report(path, &error);
                        return None;
                    }
                }
            }
            Ok(None) => return None,
            Err(error) => {
                self.report(path, &error);
                return None;
            }
        }
        match self.take(set, path) {
            Ok(met) => {
                self.reported.remove(path);
                met
            }
            Err(error) => {
                self.report(path, &error);
                None
            }
        }
    }

    pub(super) fn note_skipped(&mut self, key: Key) {
        if self.skipped.len() == MOST_SKIPPED {
            self.skipped.clear();
        }
        self.skipped.insert(key);
    }

    /// Takes note that a known file is still there. False when its inode went to another file while it was parked.
    fn sight_again(&mut self, handle: Handle, path: &Path, found: &Metadata) -> bool {
        let Some(file) = self.open.get_mut(&handle) else { return false };
        if !file.plain.is_it(found) {
            return false;
        }
        file.plain.sighted(path);
        match &file.packed {
            Some(packed) if packed.size < found.len() => self.copies.grew(handle),
            Some(_) => {}
            None if file.plain.has_changed(found) => self.changed.push(handle),
            None => {}
        }
        true
    }

    pub(super) fn report(&mut self, path: &Path, error: &io::Error) {
        // A file may vanish between the walk and the open: not worth a word.
        if error.kind() == io::ErrorKind::NotFound || self.reported.contains(path) {
            return;
        }
        if self.reported.len() < 10_000 {
            self.reported.insert(path.into());
        }
        tracing::warn!(
            path = %path.display(),
            %error,
            action = "grant the agent's user read access, or exclude the path; it is tried again",
            "cannot read file"
        );
    }
}
