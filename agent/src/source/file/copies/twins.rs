//! Copies of files that are still read: one takes its original's place when that is let go.
//!
//! In: an original that ends. Out: its copy under the same handle, at the same position; or the copy as a file of its own. Promise: a copy is never
//! read beside its original.

use garam_proto::Descriptor;

use super::{Stage, Twin, Waiting};
use crate::source::file::{Files, Key, identity};
use crate::source::{Copied, Handle};

impl Files {
    /// Puts the compressed copy of a file into its place, so that the handle stays and the content goes on.
    pub(in crate::source::file) fn replace_by_copy(
        &mut self,
        handle: Handle,
        position: u128,
    ) -> Copied {
        let Some(open) = self.open.get(&handle) else { return Copied::No };
        let key = self
            .copies
            .twins
            .iter()
            .filter(|(_, twin)| twin.of == handle && u128::from(twin.packed.end()) >= position)
            .min_by_key(|(_, twin)| twin.file.age())
            .map(|(key, _)| *key);
        let Some(twin) = key.and_then(|key| self.copies.twins.remove(&key)) else {
            let may_come = |waiting: &Waiting| {
                waiting.file.source == open.source
                    && identity::is_kin(waiting.file.plain.path(), open.plain.path())
                    && open.may_begin_with(&waiting.file.head)
            };
            let wait = self.copies.waiting.values().any(may_come);
            return if wait { Copied::Later } else { Copied::No };
        };
        let Some(open) = self.open.get_mut(&handle) else { return Copied::No };
        tracing::info!(
            path = %open.plain.path().display(), copy = %twin.file.plain.path().display(),
            "goes on in its compressed copy"
        );
        let old = open.plain.key();
        let mut packed = twin.packed;
        packed.was_as_long_as(open.plain.size_seen());
        open.plain = twin.file.plain;
        open.packed = Some(packed);
        let new = open.plain.key();
        let described = open.describe();
        if self.by_key.get(&old) == Some(&handle) {
            self.by_key.remove(&old);
        }
        self.by_key.insert(new, handle);
        self.budget.remove(handle);
        match described {
            Ok(descriptor) => Copied::Taken(Descriptor::File(descriptor)),
            Err(_) => Copied::No,
        }
    }

    /// An original is closed: copies that did not take its place hold nothing more when it was read to its end; they are
    /// met as read. Else they are looked at again.
    pub(in crate::source::file) fn orphan_copies(&mut self, of: Handle, was_read: bool) {
        let orphans: Vec<Key> = self
            .copies
            .twins
            .iter()
            .filter(|(_, twin)| twin.of == of)
            .map(|(key, _)| *key)
            .collect();
        for key in orphans {
            let Some(Twin { file, mut packed, .. }) = self.copies.twins.remove(&key) else {
                continue;
            };
            if was_read {
                packed.forgive();
                let end = packed.end();
                let met = self.admit(file, packed, Some(end));
                self.late.extend(met);
            } else {
                let waiting = Waiting { file, stage: Stage::New, alike: false };
                self.copies.waiting.insert(key, waiting);
            }
        }
    }
}
