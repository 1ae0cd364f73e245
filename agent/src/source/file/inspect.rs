//! One look at a file that was registered: is it still there, and what it was.
//!
//! In: a descriptor, how far it was read, the hash of the bytes before. Out: a [`Condition`]. Promise: reads only; the same
//! rules as when an agent starts (`fit`), without a table of globs.

use std::io;
use std::path::{Path, PathBuf};

use garam_proto::FileDescriptor;

use super::bytes::Bytes;
use super::copies::begins;
use super::identity::{self, same_file};
use super::packed::{Packed, head};
use super::plain::PlainFile;
use super::survey::Task;
use super::unpack::Format;
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

/// Looks for a registered file under its path, by its inode beside it, then for a compressed copy of it beside it.
pub fn inspect(registered: &FileDescriptor, mark: u128, tail_hash: u64) -> Condition {
    let own = identity::path_of(registered);
    let beside = identity::find_sibling(registered, &own);
    for path in [Some(own.clone()), beside].into_iter().flatten() {
        match compare(&path, registered, mark, tail_hash, true) {
            Ok(Some(condition)) => return condition,
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Condition::Unreadable { path, error },
        }
    }
    let copies = identity::packed_kin(&own);
    let found = copies
        .iter()
        .find_map(|copy| compare(copy, registered, mark, tail_hash, false).ok().flatten());
    found.unwrap_or(Condition::Missing)
}

/// `None` when another file lies there.
fn compare(
    path: &Path,
    registered: &FileDescriptor,
    mark: u128,
    tail_hash: u64,
    itself: bool,
) -> io::Result<Option<Condition>> {
    let is_file = identity::file_at(path)?.is_some();
    let Some(file) = is_file.then(|| PlainFile::open(path)).transpose()?.flatten() else {
        return Ok(None);
    };
    let format = Format::of(&identity::head(file.file()?, 4)?);
    if !itself && (format.is_none() || registered.head_len == 0) {
        return Ok(None);
    }
    let packed = format.map(|format| surveyed(format, &file, mark)).transpose()?;
    let now = match &packed {
        Some(packed) => file.describe_as(packed.head()),
        None => file.describe()?,
    };
    if itself && !same_file(registered, &now, true) {
        return Ok(None);
    }
    let view = packed.as_ref().map(|packed| file.file().map(|raw| packed.view(raw))).transpose()?;
    let content: &dyn Bytes = view.as_ref().map_or(&file as &dyn Bytes, |view| view);
    // The core has no hash where nothing was shipped yet.
    let unknown = tail_hash == 0 && mark > 0;
    let tail = content.check_tail(mark, tail_hash)?;
    let same = tail == Tail::Same || (unknown && tail == Tail::Differs);
    let head_matches = match &packed {
        Some(packed) => begins(packed.head(), registered),
        None => file.head_matches(registered)?,
    };
    let end = u128::from(packed.as_ref().map_or(content.size()?, Packed::end)).max(match packed {
        Some(_) => mark,
        None => 0,
    });
    let path = path.to_path_buf();
    Ok(match same && head_matches {
        true => Some(Condition::Same { path, end }),
        false => itself.then_some(Condition::Rewritten { path }),
    })
}

/// What a compressed file holds, looked through from its beginning to its end.
fn surveyed(format: Format, file: &PlainFile, mark: u128) -> io::Result<Packed> {
    let raw = file.file()?;
    let marks = u64::try_from(mark).into_iter().collect();
    let task = Task { file: raw.try_clone()?, format, marks, rivals: Vec::new() };
    Ok(Packed::new(format, head(format, raw)?, task.run()?.survey))
}
