//! The bytes on disk: golden, and refused when they are not what this build writes.

use expect_test::{Expect, expect};
use garam_log::embedded::Env;
use garam_log::{AppendBody, EmbeddedLog, LogError};
use garam_proto::message::GapReason;

use crate::kit::*;
use crate::world::world;

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let words =
            line.chunks(4).map(|w| w.iter().map(|b| format!("{b:02x}")).collect::<String>());
        words.collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// One entry of each kind, in a segment with known salt, incarnation and clock.
async fn write_all_kinds(dir: &std::path::Path, env: Env) {
    let log = EmbeddedLog::open_with(config(dir), env).unwrap();
    granted(&log, 1, 10).await;
    let mut first = block(1, 10, 0, b"hello\n");
    if let AppendBody::Block { header, .. } = &mut first.body {
        header.resume = Some(b"at 6".to_vec());
    }
    append(&log, first).await.unwrap();
    let gap = AppendBody::Gap { from: 6, to: 9, at_least: false, reason: GapReason::Truncated };
    append(&log, append_of(1, 10, gap)).await.unwrap();
    let advance = AppendBody::Advance { from: 9, to: 300, tail_hash: 7, resume: None };
    append(&log, append_of(1, 10, advance)).await.unwrap();
    append(&log, append_of(1, 10, AppendBody::Retire { mark: 300 })).await.unwrap();
    log.shutdown().await;
}

fn check(bytes: &[u8], range: std::ops::Range<usize>, expect: Expect) {
    expect.assert_eq(&hex(&bytes[range]));
}

#[tokio::test]
async fn every_entry_kind_has_the_bytes_the_drawing_says() {
    let dir = tempfile::tempdir().unwrap();
    let (_, clock, env) = world();
    clock.pass(std::time::Duration::from_millis(0x0102));
    write_all_kinds(dir.path(), env).await;
    let bytes = std::fs::read(dir.path().join("s/0000/00000000000000000000.seg")).unwrap();
    check(
        &bytes,
        0..64,
        expect![[r#"
        47415241 4d4c4f47 01000000 40000000 00000000 00000000 5a5a5a5a 5a5a5a5a
        5a5a5a5a 5a5a5a5a 5a5a5a5a 5a5a5a5a 00000000 00000000 9af2bcc7 00000000
    "#]],
    );
    check(
        &bytes,
        64..bytes.len(),
        expect![[r#"
        47526531 00000000 06000000 00000000 00000000 00000000 00000000 00000000
        00000000 afe659c4 00000000 00004752 65310200 00004600 00000000 00000000
        00000000 00000000 00000000 00000000 00006905 595a0101 01010101 01010101
        01010101 01010101 01010101 01010101 01010101 01010a05 7765622d 31036170
        70000e2f 7661722f 6c6f672f 312e6c6f 67070101 02000001 01010001 47526531
        01000000 3e000000 06000000 01000000 00000000 01000000 00000000 bed83d35
        9495a9f5 01010101 01010101 01010101 01010101 01010101 01010101 01010101
        01010101 0a000601 00000006 06fcbed8 3d3502fd 2a46a2ab 9a81fc99 01046174
        20366865 6c6c6f0a 47526531 03000000 26000000 00000000 02000000 00000000
        02000000 00000000 00000000 60ef5876 01010101 01010101 01010101 01010101
        01010101 01010101 01010101 01010101 0a060900 00004752 65310400 00002700
        00000000 00000300 00000000 00000300 00000000 00000000 000074e9 a0d80101
        01010101 01010101 01010101 01010101 01010101 01010101 01010101 01010a09
        fb2c0107 00475265 31050000 00250000 00000000 00040000 00000000 00040000
        00000000 00000000 0043cc75 87010101 01010101 01010101 01010101 01010101
        01010101 01010101 01010101 010afb2c 0100
    "#]],
    );
}

#[tokio::test]
async fn a_snapshot_has_the_bytes_the_drawing_says() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, env) = world();
    let mut config = config(dir.path());
    config.segment_size = 4096;
    let log = EmbeddedLog::open_with(config, env).unwrap();
    granted(&log, 1, 10).await;
    append(&log, block(1, 10, 0, &[b'x'; 4096])).await.unwrap();
    until("the segment rolls", async || log.stats()[0].segments == 2).await;
    log.shutdown().await;
    let bytes = std::fs::read(dir.path().join("s/0000/00000000000000000002.seg")).unwrap();
    check(
        &bytes,
        64..bytes.len(),
        expect![[r#"
        47526531 00000000 0e000000 6f000000 02000000 00000000 02000000 00000000
        2cf2561e 59a60b22 00fd1fb2 6aa4ec7a c6a90200 01011500 00000101 01010101
        01010101 01010101 01010361 70700152 00000001 01010101 01010101 01010101
        01010101 01010101 01010101 01010101 01010105 7765622d 31036170 70000e2f
        7661722f 6c6f672f 312e6c6f 67070101 02000001 01fb0010 fd93e0ef 8870664c
        850a0000 00
    "#]],
    );
}

/// Every name below a folder, with size and time of change, and the bytes of the files.
fn everything(dir: &std::path::Path) -> Vec<(std::path::PathBuf, std::time::SystemTime, Vec<u8>)> {
    let mut found = vec![(dir.into(), std::fs::metadata(dir).unwrap().modified().unwrap(), vec![])];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, changed, bytes));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_newer_format_is_refused_and_nothing_is_changed() {
    for written_to in ["s", "_quarantine.1", "t"] {
        let dir = tempfile::tempdir().unwrap();
        let (_, _, env) = world();
        write_all_kinds(dir.path(), env).await;
        std::fs::remove_file(dir.path().join("LOCK")).unwrap();
        let folder = dir.path().join(written_to).join("0000");
        std::fs::create_dir_all(&folder).unwrap();
        let mut bytes = std::fs::read(dir.path().join("s/0000/00000000000000000000.seg")).unwrap();
        bytes[8] = 2;
        std::fs::write(folder.join("00000000000000000000.seg"), &bytes).unwrap();
        let before = everything(dir.path());
        let refused = EmbeddedLog::open(config(dir.path())).err().unwrap();
        assert!(
            matches!(refused, LogError::NewerFormat { found: 2, supported: 1, .. }),
            "{refused}"
        );
        let refused = garam_log::offline::check_versions(dir.path()).err().unwrap();
        assert!(
            matches!(refused, LogError::NewerFormat { found: 2, supported: 1, .. }),
            "{refused}"
        );
        assert_eq!(everything(dir.path()), before, "{written_to}");
        let reports = garam_log::inspect::inspect(dir.path()).unwrap();
        let report = reports.iter().find(|r| r.partition.stream.as_str() == written_to).unwrap();
        assert_eq!(report.problems[0].kind, garam_log::inspect::ProblemKind::NewerFormat);
    }
}

#[test]
fn a_folder_that_is_not_there_has_no_newer_format_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    garam_log::offline::check_versions(&dir.path().join("log")).unwrap();
    assert!(!dir.path().join("log").try_exists().unwrap());
}
