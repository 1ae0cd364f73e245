//! The checkpoint on a disk that fails, tears and forgets at every single call of a save.

use garam_faulty_disk::{Call, EIO, ENOSPC, Effect, Fault, FaultyFs, Odds};

use super::*;

const FOLDER: &str = "/state";

fn entry(mark: u128) -> Entry {
    Entry {
        generation: Generation([7; 16]),
        source: SourceName::new("s").unwrap(),
        stream: StreamName::new("t").unwrap(),
        lineage: Some(LineageId(u64::MAX)),
        descriptor: FileDescriptor {
            path: b"/var/log/\xff.log".to_vec(),
            file_system: u64::MAX,
            inode: 3,
            birth_ns: Some(1),
            head_len: 4096,
            head_hash: u64::MAX - 1,
        },
        start: 0,
        mark,
        tail_hash: 9,
        seen: mark + 1,
        lost: false,
        source_epoch: 1,
        records_acked: 2,
        gap_bytes: 0,
        skipped_bytes: 0,
    }
}

/// Long enough to be torn between sectors.
fn entries(mark: u128) -> Vec<Entry> {
    vec![entry(mark), entry(mark), entry(mark), entry(mark)]
}

fn disk(seed: u64) -> FaultyFs {
    let disk = FaultyFs::new(seed);
    disk.create_dir(Path::new(FOLDER)).unwrap();
    disk
}

fn open(disk: &FaultyFs) -> (Store, Loaded) {
    Store::open(Arc::new(disk.clone()), Path::new(FOLDER)).unwrap()
}

/// The mark that a start would begin with; `None` without a checkpoint.
fn mark(disk: &FaultyFs) -> Option<u128> {
    match open(disk).1 {
        Loaded::Nothing => None,
        Loaded::Entries(entries) => Some(entries[0].mark),
        Loaded::Damaged => panic!("no generation is whole"),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, loaded) = Store::open(Arc::new(RealFs), folder.path()).unwrap();
    assert_eq!(loaded, Loaded::Nothing);
    store.save(&[entry(1 << 100)]).unwrap();
    let (_, loaded) = Store::open(Arc::new(RealFs), folder.path()).unwrap();
    assert_eq!(loaded, Loaded::Entries(vec![entry(1 << 100)]));
}

#[test]
fn a_power_cut_at_any_call_of_a_save_leaves_the_old_or_the_new_checkpoint() {
    for existing in 0..4u128 {
        for seed in 0..60 {
            let mut call = 1;
            loop {
                let disk = disk(seed);
                let (mut store, _) = open(&disk);
                for old in 1..=existing {
                    store.save(&entries(old)).unwrap();
                }
                disk.die_at(disk.calls() + call);
                let saved = store.save(&entries(existing + 1)).is_ok();
                let died = disk.is_dead();
                let found = mark(&disk.crash());
                let old = (existing > 0).then_some(existing);
                let new = Some(existing + 1);
                assert!(
                    found == new || (!saved && found == old),
                    "{existing} {seed} {call} {found:?}"
                );
                if !died {
                    break;
                }
                call += 1;
            }
            assert!(call >= 4, "a save makes more calls than {call}");
        }
    }
}

#[test]
fn a_failed_call_leaves_the_old_or_the_new_and_the_next_save_works() {
    let calls = [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir];
    for (number, call) in calls.into_iter().flat_map(|call| [(EIO, call), (ENOSPC, call)]) {
        for after in 0..2 {
            for seed in 0..40 {
                let disk = disk(seed);
                let (mut store, _) = open(&disk);
                store.save(&entries(1)).unwrap();
                store.save(&entries(2)).unwrap();
                disk.breaks(Fault::once(call, FOLDER, Effect::Error(number), after));
                let failed = store.save(&entries(3)).is_err();
                assert!(failed || after > 0, "{call:?} fails, so the save does");
                let lasting = mark(&disk);
                assert!(matches!(lasting, Some(2 | 3)), "{call:?} {after} {seed}: {lasting:?}");
                disk.heals();
                store.save(&entries(4)).unwrap();
                store.save(&entries(5)).unwrap();
                assert_eq!(mark(&disk.crash()), Some(5), "{call:?} {after} {seed}");
            }
        }
    }
}

#[test]
fn errors_and_power_cuts_in_any_order_never_lose_both_generations() {
    for seed in 0..400 {
        let mut disk = disk(seed);
        let mut durable = None;
        let mut last = 0;
        for _ in 0..6 {
            let (mut store, _) = open(&disk);
            disk.odds(Odds { io_errors: 150, full: 100, ..Odds::default() });
            for _ in 0..5 {
                last += 1;
                if store.save(&entries(last)).is_ok() {
                    durable = Some(last);
                }
            }
            disk = disk.crash();
            let found = mark(&disk);
            assert!(found >= durable && found <= Some(last), "{seed}: {found:?}, {durable:?}");
            durable = found;
        }
    }
}

#[test]
fn any_damage_of_the_newer_file_falls_back_and_the_good_one_is_never_replaced_by_it() {
    let disk = disk(1);
    let (mut store, _) = open(&disk);
    store.save(&[entry(1)]).unwrap();
    store.save(&[entry(2)]).unwrap();
    let whole = disk.bytes(&path(NAME)).unwrap();
    let before = disk.bytes(&path(PREVIOUS)).unwrap();
    let check = |damaged: &[u8], what: &str| {
        disk.put(&path(NAME), damaged);
        disk.put(&path(PREVIOUS), &before);
        let (mut store, loaded) = open(&disk);
        assert_eq!(loaded, Loaded::Entries(vec![entry(1)]), "{what}");
        disk.breaks(Fault::once(Call::Rename, FOLDER, Effect::Error(EIO), 0));
        drop(store.save(&[entry(3)]));
        disk.heals();
        assert!(matches!(mark(&disk), Some(1 | 3)), "{what}, and a failed save behind it");
        disk.put(&path(NAME), damaged);
        disk.put(&path(PREVIOUS), damaged);
        assert_eq!(open(&disk).1, Loaded::Damaged, "{what}, both");
    };
    for len in 0..whole.len() {
        check(&whole[..len], &format!("cut at {len}"));
        let mut zeroed = whole.clone();
        zeroed[len..].fill(0);
        check(&zeroed, &format!("NUL from {len}"));
    }
    for byte in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << bit;
            check(&flipped, &format!("byte {byte} bit {bit} flipped"));
        }
    }
}

#[test]
fn a_checkpoint_that_the_disk_does_not_give_back_falls_back_too() {
    let disk = disk(1);
    let (mut store, _) = open(&disk);
    store.save(&[entry(1)]).unwrap();
    store.save(&[entry(2)]).unwrap();
    disk.breaks(Fault::once(Call::Read, FOLDER, Effect::Error(EIO), 0));
    assert_eq!(mark(&disk), Some(1));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = disk(1);
    let newer = format!("{WORD} 2 0 0\n");
    disk.put(&path(NAME), newer.as_bytes());
    let error = Store::open(Arc::new(disk.clone()), Path::new(FOLDER)).err().unwrap();
    assert!(matches!(error, CheckpointError::Newer { found: 2, .. }), "{error}");
    assert_eq!(disk.bytes(&path(NAME)).unwrap(), newer.as_bytes());
}
