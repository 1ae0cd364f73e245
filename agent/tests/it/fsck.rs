//! `garam-agent fsck`: state against disk, and that looking changes nothing.

use std::fs;

use crate::agent::{self, Host};
use crate::core::Core;
use crate::oracle::Oracle;

/// Exit code, and the state of each file by name.
fn fsck(host: &Host) -> (Option<i32>, Vec<(String, String)>, serde_json::Value) {
    let state = host.state();
    let before = contents(host);
    let output = agent::run(&["fsck", "--state-dir", state.to_str().unwrap(), "-o", "json"]);
    assert_eq!(contents(host), before, "nothing was written");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let files = json["files"].as_array().unwrap().iter();
    let mut files: Vec<_> = files
        .map(|file| {
            let path = text(&file["path"]);
            (path.rsplit('/').next().unwrap().to_owned(), text(&file["state"]))
        })
        .collect();
    files.sort();
    (output.status.code(), files, json)
}

fn contents(host: &Host) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(host.state()).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut all: Vec<_> = files
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn every_file_is_named_with_what_became_of_it() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    assert_eq!(fsck(&host).0, Some(3), "there is no checkpoint yet");
    for name in ["gone.log", "grown.log", "moved.log", "rewritten.log", "short.log"] {
        oracle.append(&host.log(name), 100);
    }
    host.start();
    oracle.settle(&core);
    assert_eq!(host.terminate(), Some(0));
    let (code, files, json) = fsck(&host);
    assert_eq!((code, files.len()), (Some(0), 5), "{json}");
    assert!(files.iter().all(|(_, state)| state == "same"), "{json}");
    oracle.append(&host.log("grown.log"), 3);
    fs::rename(host.log("moved.log"), host.log("elsewhere")).unwrap();
    let (code, _, json) = fsck(&host);
    assert_eq!(code, Some(0), "what the next start reads is sound: {json}");
    assert!(json["unread_bytes"].as_u64().unwrap() > 0);
    fs::remove_file(host.log("gone.log")).unwrap();
    let text = fs::read_to_string(host.log("rewritten.log")).unwrap().replace("line", "LINE");
    fs::write(host.log("rewritten.log"), text).unwrap();
    fs::File::options().write(true).open(host.log("short.log")).unwrap().set_len(10).unwrap();
    let (code, files, json) = fsck(&host);
    let expected = [
        ("gone.log", "missing"),
        ("grown.log", "same"),
        ("moved.log", "moved"),
        ("rewritten.log", "rewritten"),
        ("short.log", "rewritten"),
    ];
    assert_eq!(code, Some(7), "{json}");
    assert_eq!(files, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
}

#[test]
fn damage_and_newer_formats_are_told_by_the_exit_code() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    assert_eq!(fsck_code(&host), Some(0), "beside a running agent");
    oracle.append(&host.log("a.log"), 100);
    oracle.settle(&core);
    assert_eq!(host.terminate(), Some(0));
    let path = host.state().join("checkpoint");
    let previous = host.state().join("checkpoint.prev");
    fs::write(&path, "torn").unwrap();
    let (code, _, json) = fsck(&host);
    assert_eq!(code, Some(7), "{json}");
    assert_eq!((&json["checkpoint"], &json["previous"]), (&"damaged".into(), &"whole".into()));
    fs::write(&previous, "torn").unwrap();
    assert_eq!(fsck(&host).0, Some(1));
    fs::write(&path, "garam-agent-checkpoint 9 00000000 0\n").unwrap();
    assert_eq!(fsck(&host).0, Some(78));
}

fn fsck_code(host: &Host) -> Option<i32> {
    let state = host.state();
    let mut code = None;
    crate::core::eventually("a checkpoint was written", || {
        code = agent::run(&["fsck", "--state-dir", state.to_str().unwrap()]).status.code();
        code != Some(3)
    });
    code
}

#[test]
fn a_compressed_copy_is_where_the_file_went() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log*", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    assert_eq!(host.terminate(), Some(0));
    oracle.append(&host.log("a.log"), 3);
    fs::rename(host.log("a.log"), host.log("a.log.1")).unwrap();
    crate::scenarios::compress(&host.log("a.log.1"), "gz");
    let (code, files, json) = fsck(&host);
    assert_eq!((code, files), (Some(0), vec![("a.log".into(), "moved".into())]), "{json}");
    assert!(json["unread_bytes"].as_u64().unwrap() > 0);
    host.start();
    oracle.settle(&core);
    assert_eq!(host.terminate(), Some(0));
    let (code, files, json) = fsck(&host);
    assert_eq!((code, files), (Some(0), vec![("a.log.1.gz".into(), "same".into())]), "{json}");
    assert_eq!(json["unread_bytes"], 0);
}
