//! What lies on disks: a segment of the log, the agent's checkpoint. Disks lie, and backups come from elsewhere.

use std::path::Path;
use std::sync::Arc;

use garam_agent::checkpoint::{Loaded, Store};
use garam_faulty_disk::FaultyFs;
use garam_log::embedded::Env;
use garam_log::{EmbeddedLog, LogConfig, StreamConfig, inspect, offline};
use garam_proto::{PartitionId, StreamName};

/// Where the one segment lies: the first of partition 0 of stream `s`.
const LOG: &str = "/log";
const SEGMENT: &str = "/log/s/0000/00000000000000000000.seg";

/// The bytes as the only segment of a partition: verified, repaired, verified again, opened.
pub(crate) fn segment(data: &[u8]) -> bool {
    let Ok(stream) = StreamName::new("s") else { return false };
    let disk = FaultyFs::new(1);
    disk.put(Path::new(SEGMENT), data);
    let env = Env { fs: Arc::new(disk), ..Env::default() };
    let partition = PartitionId { stream: stream.clone(), index: 0 };
    let partitions = [partition.clone()];
    let dir = Path::new(LOG);
    let _listed = inspect::partitions_with(&env, dir).is_ok();
    let verified = offline::verify_with(&env, dir, &partitions, &mut |_| {});
    let entries = verified.as_ref().map_or(0, |all| all.iter().map(|one| one.entries).sum());
    let is_sound = verified.is_ok_and(|all| all.iter().all(|one| one.damage.is_empty()));
    if let Ok(Some(plan)) = offline::plan_repair(&env, dir, &partition)
        && offline::repair(&env, dir, &plan).is_ok()
    {
        let again = offline::verify_with(&env, dir, &partitions, &mut |_| {});
        let again = again.map(|all| all.iter().map(|one| one.damage.len()).sum::<usize>());
        assert_eq!(again.ok(), Some(0), "damage is left after the repair");
    }
    let mut config = LogConfig::new(dir);
    config.segment_size = 64 * 1024;
    config.streams = vec![StreamConfig::new(stream)];
    let opened = EmbeddedLog::open_with(config, env).is_ok();
    assert!(opened || !is_sound, "what verifies does not open");
    opened && entries > 0
}

/// The bytes as a checkpoint, and as the body of one whose checksum fits.
pub(crate) fn checkpoint(data: &[u8]) -> bool {
    let crc = crc32c::crc32c(data);
    let mut sealed = format!("garam-agent-checkpoint 1 {crc:08x} {}\n", data.len()).into_bytes();
    sealed.extend_from_slice(data);
    let load = |bytes: &[u8]| {
        let disk = FaultyFs::new(1);
        disk.put(Path::new("/state/checkpoint"), bytes);
        Store::open(Arc::new(disk), Path::new("/state"))
    };
    let _as_it_is = load(data).is_ok();
    match load(&sealed) {
        Ok((mut store, Loaded::Entries(entries))) => {
            assert!(store.save(&entries).is_ok());
            !entries.is_empty()
        }
        _ => false,
    }
}
