//! A full disk: a small tmpfs in a mount namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use garam_meta::Meta;
use garam_proto::{LogOffset, PipelineId, StreamName};
use garam_stage::{CursorKey, CursorMemory, FailureKind, SlotRange};

/// Says where the small disk is.
const DISK: &str = "GARAM_META_SMALL_DISK";

fn key(partition: u32) -> CursorKey {
    CursorKey { pipeline: PipelineId([7; 16]), partition, slots: SlotRange::ALL }
}

/// Takes what is left of the disk.
fn fill(disk: &Path) -> PathBuf {
    let filler = disk.join("filler");
    let mut size = 0;
    for step in [64 * 1024, 4096, 1] {
        while fs::write(&filler, vec![1; size + step]).is_ok() {
            size += step;
        }
    }
    filler
}

#[tokio::test]
async fn on_the_small_disk() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
    let path = disk.join("meta.db");
    let stream = StreamName::new("s").unwrap();
    let meta = Meta::open(&path).await.unwrap();
    let id = meta.pipeline("p", &stream, "d").await.unwrap();
    meta.remember(&key(0), LogOffset(1)).await.unwrap();
    let filler = fill(&disk);

    // Delivery goes on: where a cursor stands is only noted.
    for next in 2..2_000 {
        meta.remember(&key(0), LogOffset(next)).await.unwrap();
    }
    meta.clear_attempts(&key(0)).await.unwrap();
    let mut refused = None;
    for partition in 1..2_000 {
        if let Err(failure) = meta.remember(&key(partition), LogOffset(1)).await {
            refused = Some((partition, failure));
            break;
        }
    }
    let (partition, failure) = refused.expect("the disk is full");
    assert_eq!(failure.kind, FailureKind::Full, "{failure}");
    drop(meta);

    // A core starts on a full disk when it has nothing to store.
    let meta = Meta::open(&path).await.unwrap();
    assert_eq!(meta.pipeline("p", &stream, "d").await.unwrap(), id);
    meta.remember(&key(0), LogOffset(2_000)).await.unwrap();
    assert!(meta.remember(&key(partition), LogOffset(1)).await.is_err());

    // It heals by itself.
    fs::remove_file(filler).unwrap();
    meta.remember(&key(partition), LogOffset(1)).await.unwrap();
    meta.flush().await.unwrap();
    drop(meta);
    let meta = Meta::open(&path).await.unwrap();
    assert_eq!(meta.remembered(&key(0)).await.unwrap(), Some(LogOffset(2_000)));
    assert_eq!(meta.remembered(&key(partition)).await.unwrap(), Some(LogOffset(1)));
}

#[test]
fn a_full_disk_stops_only_what_must_be_stored_and_heals() {
    let disk = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m garam \"$0\" && exec \"$1\" --exact full::on_the_small_disk --nocapture";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .env(DISK, disk.path())
        .output();
    let said = match &output {
        Ok(output) => {
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr)
        }
        Err(error) => error.to_string(),
    };
    if !said.contains("running 1 test") {
        eprintln!("SKIPPED: this host gives no mount namespace: {said}");
        return;
    }
    assert!(output.is_ok_and(|output| output.status.success()), "{said}");
}
