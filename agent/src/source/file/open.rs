//! One file that is read: what it is, what it holds, and where its bytes are cut.
//!
//! In: an opened [`PlainFile`], perhaps with a [`Packed`] content. Out: description, head, what a look shows. Not here: which files there
//! are ([`super`]), descriptors (`budget`), decoders (`decoders`).

use std::io;
use std::time::Duration;

use garam_proto::hash::head_hash;
use garam_proto::message::GapReason;
use garam_proto::{FileDescriptor, SourceName};

use super::packed::Packed;
use super::plain::PlainFile;
use super::reader::Reader;
use super::{FileSet, copies, identity};
use crate::source::{Look, Seen};

/// A file that is read: its bytes, and where they are cut.
pub(super) struct OpenFile {
    pub(super) plain: PlainFile,
    /// What the file holds, when that is compressed.
    pub(super) packed: Option<Packed>,
    pub(super) reader: Reader,
    pub(super) source: SourceName,
    pub(super) lineage: Vec<u8>,
    pub(super) age: i128,
    /// How far it had been read at the last look, and the hash before that.
    pub(super) looked_at: (u128, u64),
    /// Length and hash of the head of a parked file.
    pub(super) head: (u32, u64),
}

impl OpenFile {
    pub(super) fn new(plain: PlainFile, set: &FileSet) -> Self {
        Self {
            lineage: set.lineage_path(plain.path()).into_os_string().into_encoded_bytes(),
            age: plain.age(),
            plain,
            packed: None,
            reader: Reader::new(set.rules.clone()),
            source: set.name.clone(),
            looked_at: (0, 0),
            head: (0, 0),
        }
    }

    pub(super) fn describe(&self) -> io::Result<FileDescriptor> {
        match &self.packed {
            Some(packed) => Ok(self.plain.describe_as(packed.head())),
            None => self.plain.describe(),
        }
    }

    /// Whether its content can begin so.
    pub(super) fn may_begin_with(&self, head: &[u8]) -> bool {
        match (&self.packed, self.plain.file()) {
            (Some(packed), _) => packed.head().starts_with(head),
            (None, Ok(file)) => identity::head(file, head.len()).is_ok_and(|own| own == head),
            // Parked: by what was seen of it.
            (None, Err(_)) => {
                let (len, hash) = self.head;
                head.get(..len as usize).is_some_and(|head| head_hash(head) == hash)
            }
        }
    }

    pub(super) fn head_matches(&self, registered: &FileDescriptor) -> io::Result<bool> {
        match &self.packed {
            Some(packed) => Ok(copies::begins(packed.head(), registered)),
            None => self.plain.head_matches(registered),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.packed.as_ref().map_or_else(|| self.plain.is_idle(), Packed::is_idle)
    }

    pub(super) fn cursor_age(&self) -> Option<Duration> {
        self.packed.as_ref().and_then(Packed::cursor_age)
    }

    /// A compressed file does not change: only whether it is there.
    pub(super) fn look_packed(&mut self, position: u128, hold: Duration) -> io::Result<Seen> {
        let (unlinked, left) = self.plain.links(hold)?;
        let Some(packed) = &mut self.packed else { return Err(io::ErrorKind::NotFound.into()) };
        packed.read_to = position;
        let end = u128::from(packed.end()).max(position);
        if packed.is_idle() {
            packed.drop_cursor();
        }
        if unlinked && self.plain.is_parked() && end > position {
            return Ok(Seen::Broken(GapReason::Removed));
        }
        Ok(Seen::Live(Look { end, unlinked, left, ended: false }))
    }
}
