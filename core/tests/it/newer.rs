//! A data folder of a newer build is refused by `garam run` and `garam check`, and left exactly as it was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::core_under_test::Core;

/// A stopped core's folder, with a configuration for the binary.
async fn stopped() -> tempfile::TempDir {
    let folder = {
        let Core { app, folder, .. } = Core::start().await;
        app.stop(Duration::from_secs(20)).await.unwrap();
        folder
    };
    // The last connection to a database takes its files away when it ends, on a thread of its own; others come and go.
    let left =
        ["core/meta.db-wal", "data.sqlite-wal", "data.sqlite-shm"].map(|n| folder.path().join(n));
    let mut quiet = 0;
    for _ in 0..2_000 {
        let busy = left.iter().any(|path| path.try_exists().unwrap());
        quiet = if busy { 0 } else { quiet + 1 };
        if quiet == 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(quiet, 100, "the core's databases are closed");
    let path = folder.path().display();
    let config = format!(
        "data_dir = \"{path}/core\"\n[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[stream.logs]\n\
         [pipeline.p]\nfrom = \"logs\"\n[pipeline.p.to.sqlite]\npath = \"{path}/data.sqlite\"\ntable = \"lines\"\n"
    );
    std::fs::write(folder.path().join("garam.toml"), config).unwrap();
    folder
}

/// Every name below a folder, with its time of change, and the bytes of the files.
fn everything(dir: &Path) -> Vec<(PathBuf, SystemTime, Vec<u8>)> {
    let changed = |path: &Path| {
        let found = std::fs::symlink_metadata(path);
        found.unwrap_or_else(|e| panic!("{}: {e}", path.display())).modified().unwrap()
    };
    let mut found = vec![(dir.to_path_buf(), changed(dir), Vec::new())];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            found.push((path.clone(), changed(&path), bytes));
        }
    }
    found.sort();
    found
}

fn is_refused_and_unchanged(folder: &Path, what: &str) {
    let before = everything(folder);
    for verb in ["check", "run"] {
        let output = Command::new(env!("CARGO_BIN_EXE_garam"))
            .arg("--config")
            .arg(folder.join("garam.toml"))
            .arg(verb)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{verb}, {what}: {said}");
        assert!(everything(folder) == before, "{verb}, {what}: something was changed");
    }
}

/// The first segment of a stream, as a newer build would have written it.
fn make_newer(from: &Path, to: &Path) {
    let mut bytes = std::fs::read(from).unwrap();
    bytes[8] = 2;
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(to, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_segment_of_any_stream_ends_with_78_and_changes_nothing() {
    for stream in ["logs", "_quarantine.99", "no_longer_configured"] {
        let folder = stopped().await;
        let log = folder.path().join("core/log");
        let segment = |stream: &str| log.join(stream).join("0000/00000000000000000000.seg");
        make_newer(&segment("logs"), &segment(stream));
        std::fs::remove_file(log.join("LOCK")).unwrap();
        is_refused_and_unchanged(folder.path(), stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_metadata_ends_with_78_and_changes_nothing() {
    let folder = stopped().await;
    let path = folder.path().join("core/meta.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&1000u32.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    is_refused_and_unchanged(folder.path(), "metadata");
}
