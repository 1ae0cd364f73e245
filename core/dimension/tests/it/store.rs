//! Snapshots on a disk that dies, fails and flips: one whole generation is read back, whatever happens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use garam_dimension::{Built, DimensionPlan, Restored, Store, build};
use garam_disk::Fs;
use garam_faulty_disk::{Call, EIO, ENOSPC, Effect, Fault, FaultyFs};
use proptest::prelude::*;

use crate::plan::{lines, of_file, parse, told};

fn plan() -> DimensionPlan {
    of_file(Path::new("users.csv"), "csv", "")
}

fn store(fs: &FaultyFs, plan: &DimensionPlan) -> Store {
    Store::at(Arc::new(fs.clone()), Path::new("/data/dimensions"), plan)
}

/// Rows of one tier.
async fn rows(tier: &str, count: u32) -> RecordBatch {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    let rows: String = (0..count).map(|id| format!("{id},{tier},{id}.50\n")).collect();
    std::fs::write(&path, format!("user_id,tier,credit\n{rows}")).unwrap();
    told(&mut *of_file(&path, "csv", "").source()).await.unwrap()
}

async fn built(tier: &str) -> Built {
    let rows = rows(tier, 300).await;
    build(plan().shape.dimension(), "test", &rows, 1_000, Some(7)).unwrap()
}

fn tier(restored: &Restored) -> Option<String> {
    let (snapshot, _) = restored.snapshot.as_ref()?;
    let lines = lines(&snapshot.rows);
    assert_eq!(lines.len(), 300, "a snapshot is whole");
    let tier = lines[0].split(' ').nth(1)?.to_owned();
    assert!(lines.iter().all(|line| line.contains(&format!(" {tier} "))));
    Some(tier)
}

/// A disk with one generation.
async fn with_a() -> FaultyFs {
    let fs = FaultyFs::new(7);
    fs.create_dir(Path::new("/data")).unwrap();
    store(&fs, &plan()).keep(&built("a").await).unwrap();
    fs
}

fn generations(fs: &FaultyFs) -> Vec<PathBuf> {
    fs.files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "snapshot"))
        .collect()
}

#[tokio::test]
async fn what_was_kept_is_read_back_as_it_was() {
    let fs = with_a().await;
    let restored = store(&fs.crash(), &plan()).restore().unwrap();
    assert!(restored.faults.is_empty());
    let (snapshot, bytes) = restored.snapshot.unwrap();
    let expected = built("a").await;
    assert_eq!(snapshot.rows, expected.snapshot.rows);
    assert_eq!((snapshot.id, bytes), (expected.snapshot.id, expected.bytes));
    assert_eq!((snapshot.loaded_us, snapshot.source_us), (1_000, Some(7)));
}

#[tokio::test]
async fn a_crash_at_any_call_leaves_a_whole_generation() {
    let (second, third) = (built("b").await, built("c").await);
    let calls = {
        let fs = with_a().await;
        let before = fs.calls();
        let mut store = store(&fs, &plan());
        store.restore().unwrap();
        store.keep(&second).unwrap();
        store.keep(&third).unwrap();
        fs.calls() - before
    };
    assert!(
        calls >= 9,
        "two times: create, write, sync, rename, sync the folder; a removal: {calls}"
    );
    for (at, power_fails) in (1..=calls + 1).flat_map(|at| [(at, true), (at, false)]) {
        let fs = with_a().await;
        fs.die_at(fs.calls() + at);
        let mut first_life = store(&fs, &plan());
        first_life.restore().unwrap();
        let kept = [&second, &third].map(|built| first_life.keep(built).is_ok());
        let after = if power_fails { fs.crash() } else { fs.kill() };
        let mut second_life = store(&after, &plan());
        let found = tier(&second_life.restore().unwrap()).expect("a generation is read back");
        let allowed: &[&str] = match kept {
            [true, true] => &["c"],
            [true, false] => &["b", "c"],
            [false, _] => &["a", "b"],
        };
        assert!(allowed.contains(&found.as_str()), "call {at}: {found} after {kept:?}");
        // And it goes on from there.
        second_life.keep(&third).unwrap();
        let last = tier(&store(&after.crash(), &plan()).restore().unwrap());
        assert_eq!(last.as_deref(), Some("c"), "call {at}");
    }
}

#[tokio::test]
async fn a_call_that_fails_leaves_what_was_there() {
    let second = built("b").await;
    let failing = [
        (Call::Create, ENOSPC),
        (Call::Write, ENOSPC),
        (Call::Sync, EIO),
        (Call::Rename, EIO),
        (Call::SyncDir, EIO),
    ];
    for (call, number) in failing {
        let fs = with_a().await;
        let mut store = self::store(&fs, &plan());
        store.restore().unwrap();
        fs.breaks(Fault::always(call, "dim_users", Effect::Error(number)));
        let error = store.keep(&second).unwrap_err();
        assert!(error.to_string().starts_with("cannot keep a snapshot in"), "{error}");
        fs.heals();
        let found = tier(&self::store(&fs.crash(), &plan()).restore().unwrap()).unwrap();
        assert!(found == "a" || (found == "b" && call == Call::SyncDir), "{call:?}: {found}");
    }
}

#[tokio::test]
async fn any_flipped_bit_leads_to_the_generation_before() {
    let fs = with_a().await;
    let mut writer = store(&fs, &plan());
    writer.restore().unwrap();
    writer.keep(&built("b").await).unwrap();
    let newest = generations(&fs).pop().unwrap();
    let len = fs.bytes(&newest).unwrap().len();
    for byte in (0..len).step_by(37).chain(0..48).chain(len - 8..len) {
        fs.flip(&newest, byte, (byte % 8) as u8);
        let restored = store(&fs, &plan()).restore().unwrap();
        assert_eq!(tier(&restored).as_deref(), Some("a"), "byte {byte}");
        assert_eq!(restored.faults.len(), 1);
        fs.flip(&newest, byte, (byte % 8) as u8);
    }
    for len in [0, 3, 15, 100, len - 1] {
        let short = fs.bytes(&newest).unwrap()[..len].to_vec();
        let cut = fs.kill();
        cut.put(&newest, &short);
        assert_eq!(tier(&store(&cut, &plan()).restore().unwrap()).as_deref(), Some("a"));
        // The damaged generation goes with the next one, the whole one stays.
        let mut writer = store(&cut, &plan());
        writer.restore().unwrap();
        writer.keep(&built("c").await).unwrap();
        let left = generations(&cut);
        assert_eq!(left.len(), 2);
        assert!(!left.contains(&newest), "a damaged generation takes the place of a whole one");
    }
}

#[tokio::test]
async fn two_generations_stay() {
    let fs = with_a().await;
    let mut store = store(&fs, &plan());
    store.restore().unwrap();
    for tier in ["b", "c", "d", "e"] {
        store.keep(&built(tier).await).unwrap();
    }
    let names: Vec<String> = generations(&fs)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().trim_start_matches('0').to_owned())
        .collect();
    assert_eq!(names, ["4.snapshot", "5.snapshot"]);
}

#[tokio::test]
async fn rows_of_another_definition_are_not_read_back() {
    let fs = with_a().await;
    let other = |text: &str| {
        let plan = parse(text).unwrap();
        let restored = store(&fs, &plan).restore().unwrap();
        assert!(restored.snapshot.is_none());
        restored.faults[0].to_string()
    };
    let columns = crate::plan::COLUMNS;
    let file = |path: &str| format!("[from.file]\npath = \"{path}\"\nformat = \"csv\"\n");
    let moved = other(&format!("key = \"user_id\"\n{columns}{}", file("other.csv")));
    assert!(moved.contains("another definition: columns, key, file or query changed"), "{moved}");
    let wider = columns.replace("decimal(18,2)", "decimal(20,2)");
    other(&format!("key = \"user_id\"\n{wider}{}", file("users.csv")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn foreign_bytes_are_refused_within_their_own_size(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let fs = FaultyFs::new(1);
        fs.create_dir(Path::new("/data/dimensions/dim_users")).unwrap();
        let path = Path::new("/data/dimensions/dim_users/00000000000000000001.snapshot");
        let mut sealed = b"GARAMDIM\x01\0\0\0".to_vec();
        sealed.extend(&bytes);
        sealed.extend(crc32c::crc32c(&sealed).to_le_bytes());
        fs.put(path, &sealed);
        let restored = store(&fs, &plan()).restore().unwrap();
        prop_assert!(restored.snapshot.is_none());
    }
}
