//! The disk keeps what it must, and shows each loss it may: a disk that never lost anything would prove nothing.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use garam_disk::Fs;
use garam_faulty_disk::{Call, EIO, ENOSPC, Effect, Fault, FaultyFs, Odds};

const FOLDER: &str = "/data";

fn disk(seed: u64) -> FaultyFs {
    let disk = FaultyFs::new(seed);
    disk.create_dir(Path::new(FOLDER)).unwrap();
    disk
}

/// What a file may hold after a crash, over many seeds; `None`: it is not there.
fn after_crashes(scene: impl Fn(&FaultyFs), path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let disk = disk(seed);
        scene(&disk);
        disk.crash().bytes(Path::new(path))
    };
    (0..2000).map(outcome).collect()
}

fn synced(disk: &FaultyFs, path: &str, bytes: &[u8]) {
    let file = disk.create(Path::new(path)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(FOLDER)).unwrap();
}

#[test]
fn what_is_synced_in_a_synced_folder_is_there_after_every_crash() {
    let found = after_crashes(|disk| synced(disk, "/data/x", b"kept"), "/data/x");
    assert_eq!(found, BTreeSet::from([Some(b"kept".to_vec())]));
}

#[test]
fn a_name_may_be_lost_until_its_folder_is_synced() {
    let scene = |disk: &FaultyFs| {
        let file = disk.create(Path::new("/data/x")).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.sync().unwrap();
    };
    let found = after_crashes(scene, "/data/x");
    assert_eq!(found, BTreeSet::from([None, Some(b"kept".to_vec())]));
}

#[test]
fn bytes_that_were_not_synced_survive_in_any_part() {
    let scene = |disk: &FaultyFs| {
        synced(disk, "/data/x", b"ab");
        let file = disk.open(Path::new("/data/x")).unwrap();
        assert!(file.write_all_at(b"x", 0).is_err(), "opened for reading only");
        let file = disk.create(Path::new("/data/y")).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new(FOLDER)).unwrap();
        file.write_all_at(&[2; 1024], 512).unwrap();
    };
    let found = after_crashes(scene, "/data/y");
    let has = |what: &dyn Fn(&[u8]) -> bool| found.iter().flatten().any(|bytes| what(bytes));
    assert!(found.iter().flatten().all(|bytes| bytes.starts_with(&[1; 512])), "synced bytes stay");
    assert!(has(&|bytes| bytes.len() == 512), "nothing arrived");
    assert!(has(&|bytes| bytes.len() == 1536 && !bytes.contains(&0)), "all arrived");
    assert!(has(&|bytes| bytes.len() == 700), "torn at any byte");
    assert!(has(&|bytes| bytes.len() > 1024 && bytes[512..1024] == [0; 512] && bytes[1024] == 2));
}

#[test]
fn a_rename_happens_or_does_not_and_never_loses_both_names() {
    let scene = |disk: &FaultyFs| {
        synced(disk, "/data/x", b"old");
        synced(disk, "/data/x.tmp", b"new");
        disk.rename(Path::new("/data/x.tmp"), Path::new("/data/x")).unwrap();
    };
    let found = after_crashes(scene, "/data/x");
    assert_eq!(found, BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
}

#[test]
fn a_folder_that_is_lost_takes_its_files_along() {
    let scene = |disk: &FaultyFs| {
        disk.breaks(Fault::once(Call::SyncDir, "/data", Effect::Error(EIO), 0));
        assert!(disk.create_dir(Path::new("/data/below")).is_err());
        let path = Path::new("/data/below/x");
        disk.create(path).unwrap().sync().unwrap();
        disk.sync_dir(Path::new("/data/below")).unwrap();
    };
    assert_eq!(after_crashes(scene, "/data/below/x").len(), 2);
}

#[test]
fn after_a_failed_sync_the_bytes_read_back_and_no_later_sync_saves_them() {
    let scene = |disk: &FaultyFs| {
        synced(disk, "/data/x", b"");
        let file = disk.create(Path::new("/data/x")).unwrap();
        file.write_all_at(b"lost", 0).unwrap();
        disk.breaks(Fault::once(Call::Sync, "/data/x", Effect::Error(EIO), 0));
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
        assert_eq!(disk.read(Path::new("/data/x"), 9).unwrap(), b"lost");
        file.sync().unwrap();
    };
    let found = after_crashes(scene, "/data/x");
    assert!(found.contains(&Some(vec![])) && found.contains(&Some(b"lost".to_vec())));
}

#[test]
fn a_killed_process_loses_nothing_and_the_dead_disk_takes_nothing() {
    let disk = disk(1);
    let file = disk.create(Path::new("/data/x")).unwrap();
    file.write_all_at(b"here", 0).unwrap();
    let lock = disk.lock(Path::new("/data/LOCK")).unwrap();
    assert!(lock.is_some() && disk.lock(Path::new("/data/LOCK")).unwrap().is_none());
    let after = disk.kill();
    assert!(file.write_all_at(b"gone", 0).is_err() && file.sync().is_err() && disk.is_dead());
    assert_eq!(after.read(Path::new("/data/x"), 9).unwrap(), b"here");
    assert!(after.lock(Path::new("/data/LOCK")).unwrap().is_some());
}

#[test]
fn the_call_in_which_the_disk_dies_may_have_happened_and_is_not_answered() {
    let scene = |disk: &FaultyFs| {
        synced(disk, "/data/x", b"old");
        disk.die_at(disk.calls() + 1);
        assert!(disk.remove(Path::new("/data/x")).is_err());
        assert!(disk.is_dead() && disk.open(Path::new("/data/x")).is_err());
    };
    assert_eq!(after_crashes(scene, "/data/x").len(), 2);
}

#[test]
fn a_full_disk_takes_what_fits_and_names_run_out_too() {
    let disk = disk(1);
    disk.limit(10, 3);
    let file = disk.create(Path::new("/data/x")).unwrap();
    assert_eq!(file.write_all_at(&[7; 11], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.bytes(Path::new("/data/x")).unwrap(), [7; 10]);
    file.write_all_at(&[8; 10], 0).unwrap();
    let second = disk.create(Path::new("/data/y")).unwrap();
    assert_eq!(second.allocate(1).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove(Path::new("/data/x")).unwrap();
    second.allocate(10).unwrap();
    assert_eq!(disk.used(), 10);
    second.write_all_at(&[9; 10], 0).unwrap();
    disk.create(Path::new("/data/z")).unwrap();
    let more = disk.create(Path::new("/data/more")).err().unwrap();
    assert_eq!(more.raw_os_error(), Some(ENOSPC));
}

#[test]
fn reads_may_be_short_or_wrong_in_one_bit() {
    let disk = disk(3);
    synced(&disk, "/data/x", &[0; 100]);
    let file = disk.open(Path::new("/data/x")).unwrap();
    disk.odds(Odds { short_reads: 1000, ..Odds::default() });
    let mut bytes = [1; 100];
    assert!((1..100).contains(&file.read_at(&mut bytes, 0).unwrap()));
    assert_eq!(file.read_full_at(&mut bytes, 0).unwrap(), 100);
    disk.odds(Odds { flipped_reads: 1000, ..Odds::default() });
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    disk.heals();
    disk.flip(Path::new("/data/x"), 4, 1);
    assert_eq!(disk.crash().bytes(Path::new("/data/x")).unwrap()[4], 2);
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let outcome = |seed| {
        let disk = disk(seed);
        for n in 0..20u8 {
            let file = disk.create(Path::new(&format!("{FOLDER}/{n}"))).unwrap();
            file.write_all_at(&[n; 3000], 0).unwrap();
        }
        let after = disk.crash();
        after.files().into_iter().map(|path| (after.bytes(&path), path)).collect::<Vec<_>>()
    };
    assert_eq!(outcome(5), outcome(5));
    assert_ne!(outcome(5), outcome(6));
}
