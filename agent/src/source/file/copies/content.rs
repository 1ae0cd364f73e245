//! Which file a compressed one holds, told by what is in it.
//!
//! In: what the checkpoint or the core knows of a file. Out: whether this is its content. Promise: the hash of the head and that of the bytes before
//! the mark decide; where too little was shipped for them to say much, nothing is taken for a copy.

use std::io;

use garam_proto::FileDescriptor;
use garam_proto::hash::head_hash;

use super::{Found, Key, Stage};
use crate::source::file::packed::Packed;
use crate::source::file::{Files, identity, plain};
use crate::source::{Expected, Handle, Met};

impl Files {
    /// What was read to its end before the agent was stopped needs no survey.
    pub(super) fn admit_known(&mut self, met: &mut Vec<Met>) {
        let new = self.copies.waiting.iter().filter(|(_, w)| matches!(w.stage, Stage::New));
        let known: Vec<(Key, Packed)> = new
            .filter_map(|(&key, w)| self.known_as(&w.file).map(|packed| (key, packed)))
            .collect();
        for (key, packed) in known {
            if let Some(waiting) = self.copies.waiting.remove(&key) {
                met.extend(self.admit(waiting.file, packed, None));
            }
        }
    }

    /// The content of a file that the checkpoint remembers as read to its end.
    pub(super) fn known_as(&self, file: &Found) -> Option<Packed> {
        let now = file.plain.describe_as(&file.head);
        let entry = self.copies.expected.iter().find(|entry| {
            entry.mark >= entry.seen
                && identity::same_file(&entry.descriptor, &now, true)
                && begins(&file.head, &entry.descriptor)
        })?;
        let end = u64::try_from(entry.mark).ok()?;
        let head = file.head.clone();
        Some(Packed::finished(file.format, head, file.stamp.0, end, entry.tail_hash))
    }

    /// Whether a compressed file holds what a file held that is gone: by content.
    pub(in crate::source::file) fn is_copy_of(
        &mut self,
        handle: Handle,
        entry: &Expected,
        own: bool,
    ) -> io::Result<bool> {
        let registered = &entry.descriptor;
        let Some(open) = self.open.get_mut(&handle) else { return Ok(false) };
        let path = identity::path_of(registered);
        let kin = identity::is_kin(open.plain.path(), &path);
        let Some(packed) = &mut open.packed else { return Ok(false) };
        if registered.head_len == 0 || !begins(packed.head(), registered) {
            return Ok(false);
        }
        let long_head = registered.head_len as usize >= garam_proto::hash::HEAD_MIN_BYTES;
        let long = long_head && entry.mark >= plain::FULL_TAIL;
        if !own && !long {
            return Ok(false);
        }
        // The original is still there: what it holds is read from it.
        if own && identity::find_sibling(registered, &path).is_some() {
            return Ok(false);
        }
        let damaged = packed.lost_from();
        if own && damaged.is_none() && u128::from(packed.end()) < entry.seen {
            return Ok(false);
        }
        if own && !kin && !long {
            return Ok(false);
        }
        let same = match damaged {
            Some(readable) if u128::from(readable) < entry.mark => own && kin && long_head,
            _ => {
                if u128::from(packed.end()) < entry.mark {
                    return Ok(false);
                }
                self.view(handle, |bytes| bytes.tail_hash(entry.mark))? == entry.tail_hash
            }
        };
        if same
            && let Some(packed) = self.open.get_mut(&handle).and_then(|open| open.packed.as_mut())
            && let Ok(seen) = u64::try_from(entry.seen)
        {
            packed.was_as_long_as(seen);
        }
        Ok(same)
    }
}

/// Whether content with this head may be that of a registered file.
pub(in crate::source::file) fn begins(head: &[u8], registered: &FileDescriptor) -> bool {
    head.get(..registered.head_len as usize)
        .is_some_and(|head| head_hash(head) == registered.head_hash)
}
