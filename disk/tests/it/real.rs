//! The operating system's files keep what the trait says.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use garam_disk::{Fs, RealFs};

#[test]
fn a_file_is_written_read_renamed_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("a/b");
    RealFs.create_dir(&below).unwrap();
    RealFs.create_dir(&below).unwrap();
    let (temporary, path) = (below.join("x.tmp"), below.join("x"));
    let file = RealFs.create(&temporary).unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    file.sync().unwrap();
    RealFs.rename(&temporary, &path).unwrap();
    RealFs.sync_dir(&below).unwrap();
    assert_eq!(RealFs.read(&path, 8).unwrap(), b"\0\0\0hello");
    let names: Vec<_> = RealFs.list(&below).unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["x"]);
    RealFs.remove(&path).unwrap();
    assert!(RealFs.list(&below).unwrap().is_empty());
    assert!(RealFs.list(&below.join("none")).unwrap().is_empty());
    assert_eq!(RealFs.open(&path).err().map(|e| e.kind()), Some(ErrorKind::NotFound));
}

#[test]
fn a_file_that_is_too_large_to_make_sense_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    RealFs.create(&path).unwrap().write_all_at(&[1; 9], 0).unwrap();
    let error = RealFs.read(&path, 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("9 bytes"), "{error}");
}

#[test]
fn allocated_room_is_taken_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("room");
    RealFs.create(&path).unwrap().allocate(1 << 20).unwrap();
    let taken = std::fs::metadata(&path).unwrap();
    assert_eq!(taken.len(), 1 << 20);
    assert!(taken.blocks() * 512 >= 1 << 20, "{} blocks", taken.blocks());
}

#[test]
fn a_lock_is_held_once_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    let held = RealFs.lock(&path).unwrap();
    assert!(held.is_some());
    assert!(RealFs.lock(&path).unwrap().is_none());
    drop(held);
    assert!(RealFs.lock(&path).unwrap().is_some());
}
