//! A copy takes its original's place when that is let go, however long the engine waits with it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use garam_proto::hash::tail_hash;
use garam_proto::{Descriptor, SourceName, StreamName};

use super::*;
use crate::source::Copied;
use crate::source::{Read, Seen, Source, Tail};

const LINES: &[u8] = b"one\ntwo\nthree\n";

fn files(folder: &Path) -> Files {
    let (name, stream) = (SourceName::new("a").unwrap(), StreamName::new("a").unwrap());
    let glob = format!("{}/a.log*", folder.display());
    let set = FileSet::new(name, stream, &[glob], &[], StartAt::Beginning, 1024).unwrap();
    Files::new(vec![set], true, Duration::ZERO, 10)
}

fn compress(path: &Path) {
    let copy = fs::File::create(path.with_file_name("a.log.1.gz")).unwrap();
    let mut packer = flate2::write::GzEncoder::new(copy, flate2::Compression::default());
    packer.write_all(LINES).unwrap();
    packer.finish().unwrap();
    fs::remove_file(path).unwrap();
}

/// Searches until it is so; returns what was met meanwhile.
fn search(files: &mut Files, is_so: impl Fn(&Files) -> bool) -> Vec<Met> {
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut met = files.discover();
    while !is_so(files) {
        assert!(Instant::now() < deadline, "never came true");
        std::thread::yield_now();
        met.extend(files.discover());
    }
    met
}

/// A file that was read up to `content`, and its copy, which is known as that.
fn read_and_compressed(folder: &Path, content: &[u8]) -> (Files, Handle) {
    let path = folder.join("a.log");
    fs::write(&path, content).unwrap();
    let mut files = files(folder);
    let handle = files.discover()[0].handle;
    let end = content.len() as u128;
    assert!(matches!(files.look(handle, end, tail_hash(content)), Ok(Seen::Live(_))));
    compress(&path);
    let met = search(&mut files, |files| !files.copies.twins.is_empty());
    assert!(met.is_empty(), "a copy is no file of its own");
    (files, handle)
}

#[test]
fn a_copy_takes_the_place_of_a_file_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, handle) = read_and_compressed(folder.path(), LINES);
    let end = LINES.len() as u128;
    let Copied::Taken(Descriptor::File(now)) = files.take_copy(handle, end) else { panic!() };
    assert!(identity::path_of(&now).ends_with("a.log.1.gz"));
    let Ok(Seen::Live(look)) = files.look(handle, end, tail_hash(LINES)) else { panic!() };
    assert_eq!((look.end, look.unlinked, look.left), (end, false, false));
    assert_eq!(files.check_tail(handle, 4, tail_hash(b"one\n")).unwrap(), Tail::Same);
    assert!(files.discover().is_empty());
}

#[test]
fn a_copy_goes_on_where_its_original_was_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, handle) = read_and_compressed(folder.path(), LINES);
    assert!(matches!(files.take_copy(handle, 4), Copied::Taken(_)));
    let limits =
        crate::source::CutLimits { block_size: 1024, max_record: 1024, flush: true, over: true };
    let mut buffer = Vec::new();
    let read = files.read(handle, 4, tail_hash(b"one\n"), &limits, &mut buffer).unwrap();
    assert!(matches!(read, Read::Block(cut) if cut.to == LINES.len() as u128));
    assert_eq!(buffer, b"two\nthree\n");
}

#[test]
fn what_was_written_after_the_copy_was_made_is_not_sought_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let late = [LINES, b"four\n"].concat();
    let (mut files, handle) = read_and_compressed(folder.path(), &late);
    assert_eq!(files.take_copy(handle, late.len() as u128), Copied::No);
    files.close(handle);
    let met = files.discover();
    assert_eq!(met.len(), 1);
    assert_eq!(met[0].start, LINES.len() as u128, "it is known, and read to its end");
}
