//! A disk that dies at every changing call of a backup and of a restore.

use std::path::Path;
use std::sync::Arc;

use garam_core::backup::restore::{self, Targets, is_under_way};
use garam_core::backup::verify::verify;
use garam_core::backup::write::{Sources, fill};
use garam_faulty_disk::FaultyFs;
use garam_log::embedded::Env;
use garam_log::{Claim, EmbeddedLog, Log as _, LogConfig, OnFull, StreamConfig, offline};
use garam_meta::CopySummary;
use garam_proto::message::ClaimReason;
use garam_proto::{
    AgentId, Descriptor, Generation, LineageId, OriginId, SessionId, SourceName, StreamName,
};

fn env(disk: &FaultyFs) -> Env {
    Env { fs: Arc::new(disk.clone()), ..Env::default() }
}

/// A disk with the log of a stopped core, and what else a backup takes.
async fn ground() -> (FaultyFs, Sources) {
    let disk = FaultyFs::new(7);
    let stream = StreamName::new("s").unwrap();
    let mut config = LogConfig::new("/core/log");
    config.streams = vec![StreamConfig {
        name: stream.clone(),
        partitions: 2,
        retain: std::time::Duration::from_secs(60),
        quota: 1 << 30,
        on_full: OnFull::StopStream,
        max_origins: 8,
        relief: None,
    }];
    let log = EmbeddedLog::open_with(config, env(&disk)).unwrap();
    for number in 1..4 {
        let origin = OriginId { agent: AgentId([1; 16]), generation: Generation([number; 16]) };
        let claim = Claim {
            stream: stream.clone(),
            origin,
            host: "h".into(),
            source: SourceName::new("f").unwrap(),
            descriptor: Descriptor::Producer { key: vec![number] },
            lineage: LineageId(u64::from(number)),
            session: SessionId(1),
            from: 0,
            reason: ClaimReason::New,
            source_epoch: 0,
        };
        log.claim(claim).await.unwrap().wait().await.unwrap();
    }
    log.shutdown().await;
    disk.put(Path::new("/meta-copy"), b"rows");
    disk.put(Path::new("/core/pki/ca.key"), b"key");
    disk.put(Path::new("/backups/other/file"), b"of somebody else");
    let summary =
        CopySummary { cluster: "c".into(), version: 2, cursors: Vec::new(), pipelines: Vec::new() };
    let sources = Sources {
        meta: "/meta-copy".into(),
        summary,
        pki: "/core/pki".into(),
        log: "/core/log".into(),
        taken_us: 1,
    };
    (disk, sources)
}

/// The name is given by one rename after all of this: what it names must be whole by then, and a half must be replaceable.
#[tokio::test]
async fn a_backup_is_whole_before_it_gets_its_name_wherever_the_disk_dies() {
    let partial = Path::new("/backups/b.partial");
    for call in 1.. {
        let (disk, sources) = ground().await;
        disk.die_at(disk.calls() + call);
        let done = fill(&env(&disk), &sources, partial, &mut |_, _| {}).is_ok();
        let after = disk.crash();
        if !done {
            fill(&env(&after), &sources, partial, &mut |_, _| {}).unwrap();
        }
        let (_, faults) = verify(&env(&after.crash()), partial, &mut |_, _| {}).unwrap();
        assert_eq!(faults, [], "call {call}");
        if done {
            assert!(call > 15, "the backup makes more calls than {call}");
            return;
        }
    }
}

#[tokio::test]
async fn a_restore_is_whole_or_says_that_it_is_not_wherever_the_disk_dies() {
    let backup = Path::new("/backups/b");
    let targets = Targets { data_dir: "/new".into(), pki_dir: "/new/pki".into() };
    for call in 1.. {
        let (disk, sources) = ground().await;
        let manifest = fill(&env(&disk), &sources, backup, &mut |_, _| {}).unwrap();
        disk.die_at(disk.calls() + call);
        let restored = restore::restore(&env(&disk), backup, &manifest, &targets, &mut |_, _| {});
        let after = disk.crash();
        let env = env(&after);
        let has_anything = after.files().iter().any(|file| file.starts_with("/new"));
        if restored.is_err() && (is_under_way(&*env.fs, &targets.data_dir) || !has_anything) {
            restore::plan(&env, backup, &targets, &mut |_, _| {}).unwrap();
            restore::restore(&env, backup, &manifest, &targets, &mut |_, _| {}).unwrap();
        }
        check(&env, &after, &manifest.partitions.len());
        if restored.is_ok() {
            assert!(call > 15, "the restore makes more calls than {call}");
            return;
        }
    }
}

/// What a core would find.
fn check(env: &Env, disk: &FaultyFs, partitions: &usize) {
    let data_dir = Path::new("/new");
    assert!(!is_under_way(&*env.fs, data_dir));
    assert_eq!(disk.bytes(&data_dir.join("meta.db")).unwrap(), b"rows");
    assert_eq!(disk.bytes(&data_dir.join("pki/ca.key")).unwrap(), b"key");
    let log = data_dir.join("log");
    let ids = garam_log::inspect::partitions_with(env, &log).unwrap();
    assert_eq!(ids.len(), *partitions);
    for found in offline::verify_with(env, &log, &ids, &mut |_| {}).unwrap() {
        assert!(found.damage.is_empty() && found.torn.is_none(), "{found:?}");
        assert_eq!(found.ancestors.len(), 1, "a new life that names its parent");
        assert_eq!(found.ancestors[0].until, found.end);
    }
}
