//! Segment files: their names, and what an earlier run left of them.
//!
//! In: a folder. Out: for each segment how far it holds whole, sound lines, and the last of these lines. Promise: what was synced before a crash is found
//! whole. What was not is taken as far as it arrived in whole lines: a line without its end, and everything from the first
//! NUL byte on (spools hold none; a file system fills up with them what it lost), is left out. Such segments are closed:
//! nothing is ever written behind a torn line. Of a segment whose write or sync failed a small file `end.N` says how far it
//! counts: what follows was written again elsewhere, and no later sync takes back what may have reached the disk of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use garam_disk::{DiskFile, Fs};

use super::Segment;

/// `log.3` belongs to the lineage of `log`, as rotated files do, so that segments are shipped in their order.
pub(super) const BASE: &str = "log";

/// No more than this is written between two syncs, so what lies before was synced.
const UNSOUND: u64 = 8 * 1024 * 1024;
/// Segment N counts only as far as `end.N` says.
const END: &str = "end.";
const LARGEST_NOTE: usize = 64 * 1024;

pub(super) fn name(number: u64) -> String {
    format!("{BASE}.{number:015}")
}

/// The number of the segment that lies at a path.
pub(in crate::source) fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(BASE)?.strip_prefix('.')?;
    digits.parse().ok()
}

/// What an earlier run left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// All segments, closed.
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The last line of the newest one, without its end.
    pub(super) last_line: Option<Vec<u8>>,
}

/// Reads a folder. Empty segments are removed.
pub(super) fn recover(fs: &dyn Fs, folder: &Path) -> io::Result<Left> {
    let mut left = Left::default();
    let listed = fs.list(folder)?;
    let names: Vec<&str> = listed.iter().filter(|l| !l.is_dir).map(|l| l.name.as_str()).collect();
    for name in &names {
        let path = folder.join(name);
        let Some(number) = number_of(&path) else { continue };
        let file = fs.open(&path)?;
        let bytes = file.size()?;
        let limit = end_of(fs, folder, number)?.unwrap_or(bytes).min(bytes);
        let (readable, line) = whole(&*file, limit)?;
        if readable == 0 {
            fs.remove(&path)?;
            continue;
        }
        if readable < bytes {
            tracing::warn!(
                path = %path.display(), bytes = bytes - readable,
                "the end of a spool was not complete when the agent or the machine died, it is left out"
            );
        }
        // The process may have died between write and sync.
        file.sync()?;
        left.segments.insert(number, Segment { bytes, readable, closed: true });
        left.last_line = Some(line);
    }
    fs.sync_dir(folder)?;
    // Only now no crash can bring back what they speak of.
    for name in names {
        let number = name.strip_prefix(END).and_then(|digits| digits.parse().ok());
        if number.is_some_and(|number: u64| !left.segments.contains_key(&number)) {
            fs.remove(&folder.join(name))?;
        }
    }
    Ok(left)
}

/// Says for ever that a segment counts only so far.
pub(super) fn set_end(fs: &dyn Fs, folder: &Path, number: u64, end: u64) -> io::Result<()> {
    put(fs, folder, &format!("{END}{number}"), end.to_string().as_bytes())
}

fn end_of(fs: &dyn Fs, folder: &Path, number: u64) -> io::Result<Option<u64>> {
    let Some(bytes) = get(fs, folder, &format!("{END}{number}"))? else { return Ok(None) };
    let end = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    let why = || io::Error::new(io::ErrorKind::InvalidData, format!("{END}{number} is no length"));
    end.map(Some).ok_or_else(why)
}

/// Puts a small file there, durably, in one step.
pub(super) fn put(fs: &dyn Fs, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    match fs.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    fs.rename(&temporary, &folder.join(name))?;
    fs.sync_dir(folder)
}

/// What [`put`] put there.
pub(super) fn get(fs: &dyn Fs, folder: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs.read(&folder.join(name), LARGEST_NOTE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How far a segment holds whole lines, and the last of them.
fn whole(file: &dyn DiskFile, bytes: u64) -> io::Result<(u64, Vec<u8>)> {
    let from = bytes.saturating_sub(UNSOUND);
    let mut end = vec![0; usize::try_from(bytes - from).unwrap_or(0)];
    let read = file.read_full_at(&mut end, from)?;
    end.truncate(read);
    let sound = memchr::memchr(0, &end).unwrap_or(end.len());
    let Some(last) = end.get(..sound).and_then(|sound| memchr::memrchr(b'\n', sound)) else {
        return Ok((0, Vec::new()));
    };
    let lines = end.get(..last).unwrap_or_default();
    let begin = memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1);
    Ok((from + last as u64 + 1, lines.get(begin..).unwrap_or_default().to_vec()))
}

/// What the segments in a folder take.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let segments = entries.filter_map(Result::ok).filter(|e| number_of(&e.path()).is_some());
    segments.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use garam_disk::RealFs;

    #[test]
    fn a_torn_end_is_left_out_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(u64, &[u8], u64); 5] = [
            (1, b"one\ntwo\n", 8),
            (2, b"one\ntw", 4),
            (3, b"one\n\0\0\0\0\n", 4),
            (4, b"tor", 0),
            (5, b"", 0),
        ];
        for (number, bytes, _) in cases {
            std::fs::write(folder.path().join(name(number)), bytes).unwrap();
        }
        std::fs::write(folder.path().join("other"), "x\n").unwrap();
        let found = recover(&RealFs, folder.path()).unwrap();
        for (number, _, readable) in cases {
            let segment = found.segments.get(&number);
            assert_eq!(segment.map_or(0, |segment| segment.readable), readable);
        }
        assert_eq!(found.segments.len(), 3);
        assert!(found.segments.values().all(|segment| segment.closed));
        assert_eq!(found.last_line.as_deref(), Some(&b"one"[..]));
        assert_eq!(recover(&RealFs, folder.path()).unwrap(), found);
    }

    #[test]
    fn names_sort_as_numbers_and_are_read_back() {
        assert!(name(9) < name(10));
        assert_eq!(number_of(Path::new("/s/log.000000000000012")), Some(12));
        for other in ["/s/log", "/s/log.", "/s/log.x", "/s/last", "/s/logs.1"] {
            assert_eq!(number_of(Path::new(other)), None, "{other}");
        }
    }
}
