//! What an origin is, in terms that survive the loss of an agent's state: how it is found again.
//!
//! A descriptor is registered with the claim of an origin and kept in the log. The core narrows candidates by it; the
//! agent alone decides, since only it can read the file back ([`FileDescriptor::compare`]).

use bincode::{Decode, Encode};

use crate::hash::HEAD_MIN_BYTES;

/// How a source's generation is found again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Descriptor {
    File(FileDescriptor),
    /// A server and its timeline, e.g. a MySQL `server_uuid` or a PostgreSQL system identifier with timeline.
    Database {
        server: String,
        timeline: String,
    },
    /// One chunk of a table's snapshot: the first key and the low watermark.
    Snapshot {
        table: String,
        first_key: Vec<u8>,
        low_watermark: Vec<u8>,
    },
    /// What Garam itself produces: quarantine, requeue, a pipeline's output stream. The key names producer and input.
    Producer {
        key: Vec<u8>,
    },
}

/// A file's identity as far as its host could see it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FileDescriptor {
    /// The path as raw bytes: a Unix path need not be UTF-8.
    pub path: Vec<u8>,
    /// The file system's own id (`statvfs.f_fsid`), which survives a reboot, unlike `st_dev`.
    pub file_system: u64,
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch, where the file system has it.
    pub birth_ns: Option<i64>,
    /// How many bytes of the head `head_hash` covers, at most [`crate::hash::HEAD_BYTES`].
    pub head_len: u32,
    pub head_hash: u64,
}

/// How well a file on disk fits a registered descriptor, before its `tail_hash` is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileMatch {
    No,
    /// Same path and a head of at least 1 KiB: enough only together with a full 4 KiB tail hash.
    ByContent,
    /// File system, inode and birth time are equal.
    Exact,
}

impl FileDescriptor {
    /// Compares a registered descriptor (`self`) with what is on disk now. `head_matches` tells whether the first
    /// `self.head_len` bytes on disk hash to `self.head_hash`; a head that differs is another file, whatever its
    /// inode says.
    pub fn compare(&self, now: &FileDescriptor, head_matches: bool) -> FileMatch {
        if !head_matches {
            return FileMatch::No;
        }
        let same_inode = self.file_system == now.file_system && self.inode == now.inode;
        match (self.birth_ns, now.birth_ns) {
            (Some(then), Some(now)) if same_inode && then == now => return FileMatch::Exact,
            _ => {}
        }
        if self.path == now.path && self.head_len as usize >= HEAD_MIN_BYTES {
            return FileMatch::ByContent;
        }
        FileMatch::No
    }
}

impl Descriptor {
    /// What to show a person: a path, a server, a table.
    pub fn label(&self) -> String {
        match self {
            Self::File(file) => String::from_utf8_lossy(&file.path).into_owned(),
            Self::Database { server, timeline } => format!("{server} timeline {timeline}"),
            Self::Snapshot { table, .. } => format!("snapshot of {table}"),
            Self::Producer { .. } => "garam".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64, birth: Option<i64>, head_len: u32, path: &str) -> FileDescriptor {
        FileDescriptor {
            path: path.into(),
            file_system: 7,
            inode,
            birth_ns: birth,
            head_len,
            head_hash: 1,
        }
    }

    #[test]
    fn identity_needs_birth_time_or_enough_content() {
        let was = file(1, Some(10), 2000, "/a");
        assert_eq!(was.compare(&file(1, Some(10), 0, "/b"), true), FileMatch::Exact);
        assert_eq!(was.compare(&file(1, Some(11), 0, "/a"), true), FileMatch::ByContent);
        assert_eq!(was.compare(&file(1, Some(11), 0, "/b"), true), FileMatch::No);
        assert_eq!(was.compare(&file(1, Some(10), 0, "/a"), false), FileMatch::No);
        let small = file(1, None, 100, "/a");
        assert_eq!(small.compare(&file(1, None, 100, "/a"), true), FileMatch::No);
    }
}
