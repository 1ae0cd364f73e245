//! A flipped bit in a closed or an open segment is noticed or harmless, and never delivered: 2 000 seeded places, each read
//! by a reader that begins afterwards and by one that was already on its way.

use std::path::{Path, PathBuf};

use garam_log::{AppendBody, EmbeddedLog, Log, LogError, LogReader};

use crate::kit::*;
use crate::world::world;

const FLIPS: usize = 1000;
const SEED: u64 = 0x0067_6172_616d;

/// Two sealed segments and an open one, as their readers tell them. The log stays open.
async fn three_segments(dir: &Path) -> (std::sync::Arc<EmbeddedLog>, Vec<String>) {
    let (_, _, env) = world();
    let mut config = config(dir);
    config.segment_size = 4096;
    let log = EmbeddedLog::open_with(config, env).unwrap();
    granted(&log, 1, 10).await;
    for i in 0..14u8 {
        append(&log, block(1, 10, u128::from(i) * 700, &[b'a' + i; 700])).await.unwrap();
    }
    until("the segments roll", async || log.stats()[0].segments == 3).await;
    append(&log, append_of(1, 10, AppendBody::Retire { mark: 9800 })).await.unwrap();
    granted(&log, 2, 10).await;
    append(&log, block(2, 10, 0, &[b'z'; 900])).await.unwrap();
    let truth = read_all(&log, &partition("s", 0)).await.unwrap();
    (log, truth.iter().map(|entry| format!("{entry:?}")).collect())
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir.join("s/0000")).unwrap();
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Reads on to the end or to damage. Whatever is delivered is the truth from `from` on; what is not delivered was told.
async fn is_true(reader: &mut dyn LogReader, truth: &[String], from: usize, place: &str) -> bool {
    let mut at = from;
    loop {
        match reader.try_next().await {
            Ok(Some(entry)) => {
                assert_eq!(format!("{entry:?}"), truth[at], "{place}: altered");
                at += 1;
            }
            Ok(None) => {
                assert_eq!(at, truth.len(), "{place}: entries are missing and nobody said so");
                return false;
            }
            Err(error) => {
                assert!(is_told(&error), "{place}: {error}");
                return true;
            }
        }
    }
}

/// Damage, or a version that has become another.
fn is_told(error: &LogError) -> bool {
    matches!(error, LogError::Damaged { .. } | LogError::NewerFormat { .. })
}

/// Flips a bit in place: a file that is open stays the same file.
fn flip(path: &Path, offset: usize, bit: u8) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], offset as u64).unwrap();
}

/// Flips seeded bits of one segment, one after the other, while the log is open. How often each reader was told.
async fn flips(segment: usize) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let (log, truth) = three_segments(dir.path()).await;
    let path = segments(dir.path())[segment].clone();
    let len = std::fs::metadata(&path).unwrap().len() as usize;
    let at = partition("s", 0);
    let start = log.bounds(&at).unwrap().start;
    let mut random = fastrand::Rng::with_seed(SEED + segment as u64);
    let (mut fresh_told, mut tailing_told) = (0, 0);
    for _ in 0..FLIPS {
        let (offset, bit) = (random.usize(0..len), random.u8(0..8));
        let place = format!("segment {segment}, byte {offset}, bit {bit}");
        let mut tailing = log.reader(&at, start).await.unwrap();
        let read = random.usize(0..truth.len());
        for expected in &truth[..read] {
            let entry = tailing.try_next().await.unwrap().unwrap();
            assert_eq!(&format!("{entry:?}"), expected, "{place}: before the flip");
        }
        flip(&path, offset, bit);
        tailing_told += usize::from(is_true(&mut *tailing, &truth, read, &place).await);
        let told = match log.reader(&at, start).await {
            Ok(mut fresh) => is_true(&mut *fresh, &truth, 0, &place).await,
            Err(error) => {
                assert!(is_told(&error), "{place}: {error}");
                true
            }
        };
        fresh_told += usize::from(told);
        flip(&path, offset, bit);
    }
    log.shutdown().await;
    (fresh_told, tailing_told)
}

#[tokio::test]
async fn a_flip_in_a_closed_segment_is_told_or_harmless() {
    let (fresh, tailing) = flips(1).await;
    // One that is on its way may have read past the place already.
    assert!(fresh > FLIPS * 9 / 10 && tailing > 0, "fresh {fresh}, tailing {tailing}");
}

#[tokio::test]
async fn a_flip_in_an_open_segment_is_told_or_harmless() {
    let (fresh, tailing) = flips(2).await;
    assert!(fresh > FLIPS * 9 / 10 && tailing > 0, "fresh {fresh}, tailing {tailing}");
}

/// After a restart only what lies at the end of the open segment can be taken for a torn tail.
#[tokio::test]
async fn a_flip_while_the_log_is_closed_is_told_or_cuts_the_last_entry_only() {
    for segment in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (log, truth) = three_segments(dir.path()).await;
        log.shutdown().await;
        let names: Vec<_> = segments(dir.path());
        let whole: Vec<_> = names.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let mut random = fastrand::Rng::with_seed(SEED + 10 + segment as u64);
        let mut cut = 0;
        for _ in 0..FLIPS {
            let (offset, bit) = (random.usize(0..whole[segment].len()), random.u8(0..8));
            let place = format!("segment {segment}, byte {offset}, bit {bit}");
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("s/0000")).unwrap();
            for (path, bytes) in names.iter().zip(&whole) {
                let copy = dir.path().join("s/0000").join(path.file_name().unwrap());
                std::fs::write(copy, bytes).unwrap();
            }
            flip(&segments(dir.path())[segment], offset, bit);
            let (_, _, env) = world();
            let log = match EmbeddedLog::open_with(config(dir.path()), env) {
                Ok(log) => log,
                Err(error) => {
                    assert!(is_told(&error), "{place}: {error}");
                    continue;
                }
            };
            match read_all(&log, &partition("s", 0)).await {
                Ok(entries) => {
                    let entries: Vec<_> = entries.iter().map(|e| format!("{e:?}")).collect();
                    assert_eq!(entries, truth[..entries.len()], "{place}: altered");
                    if entries.len() == truth.len() {
                        continue;
                    }
                    assert!(segment == 2 && entries.len() + 1 == truth.len(), "{place}: not told");
                    cut += 1;
                }
                Err(error) => assert!(is_told(&error), "{place}: {error}"),
            }
            log.shutdown().await;
        }
        assert_eq!(cut > 0, segment == 2, "segment {segment}: {cut} cut");
    }
}
