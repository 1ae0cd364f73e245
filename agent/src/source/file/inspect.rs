//! One look at a file that was registered: is it still there, and what it was.
//!
//! In: a descriptor, how far it was read, the hash of the bytes before. Out: a [`Condition`]. Promise: reads only; the same
//! rules as when an agent starts (`fit`), without a table of globs.

use std::io;
use std::path::PathBuf;

use garam_proto::FileDescriptor;

use super::plain::PlainFile;
use super::{identity, same_file};
use crate::source::Tail;

/// What became of a registered file.
#[derive(Debug)]
pub enum Condition {
    /// It is the same up to the mark, under this path, and ends here.
    Same {
        path: PathBuf,
        end: u128,
    },
    /// The file is there, its content before the mark is another.
    Rewritten {
        path: PathBuf,
    },
    /// Neither under its path nor beside it.
    Missing,
    Unreadable {
        path: PathBuf,
        error: io::Error,
    },
}

/// Looks for a registered file under its path, then by its inode beside it.
pub fn inspect(registered: &FileDescriptor, mark: u128, tail_hash: u64) -> Condition {
    let own = identity::path_of(registered);
    let beside = identity::find_sibling(registered, &own);
    for path in [Some(own), beside].into_iter().flatten() {
        match compare(&path, registered, mark, tail_hash) {
            Ok(Some(condition)) => return condition,
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Condition::Unreadable { path, error },
        }
    }
    Condition::Missing
}

/// `None` when another file lies there.
fn compare(
    path: &std::path::Path,
    registered: &FileDescriptor,
    mark: u128,
    tail_hash: u64,
) -> io::Result<Option<Condition>> {
    let is_file = identity::file_at(path)?.is_some();
    let Some(file) = is_file.then(|| PlainFile::open(path)).transpose()?.flatten() else {
        return Ok(None);
    };
    if !same_file(registered, &file.describe()?, true) {
        return Ok(None);
    }
    // The core has no hash where nothing was shipped yet.
    let unknown = tail_hash == 0 && mark > 0;
    let tail = file.check_tail(mark, tail_hash)?;
    let same = tail == Tail::Same || (unknown && tail == Tail::Differs);
    let path = path.to_path_buf();
    Ok(Some(match same && file.head_matches(registered)? {
        true => Condition::Same { path, end: u128::from(file.size()?) },
        false => Condition::Rewritten { path },
    }))
}
