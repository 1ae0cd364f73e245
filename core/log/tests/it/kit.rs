//! What the tests share: a log in a temporary folder, origins, blocks, and reading everything back.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use garam_log::{
    Append, AppendBody, Appended, Claim, Claimed, EmbeddedLog, Entry, EntryBody, Log, LogConfig,
    LogError, StreamConfig,
};
use garam_proto::message::ClaimReason;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Descriptor, FileDescriptor, Generation, LineageId,
    LogOffset, OriginId, PartitionId, SessionId, SourceName, StreamName,
};

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

pub(crate) fn partition(name: &str, index: u32) -> PartitionId {
    PartitionId { stream: stream(name), index }
}

/// Stream `s` with one partition.
pub(crate) fn config(dir: &Path) -> LogConfig {
    let mut config = LogConfig::new(dir);
    config.streams = vec![StreamConfig::new(stream("s"))];
    config.upkeep_every = std::time::Duration::from_millis(5);
    config
}

pub(crate) fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(config(dir)).unwrap()
}

pub(crate) fn origin(n: u8) -> OriginId {
    OriginId { agent: AgentId([1; 16]), generation: Generation([n; 16]) }
}

pub(crate) fn descriptor(n: u8) -> Descriptor {
    Descriptor::File(FileDescriptor {
        path: format!("/var/log/{n}.log").into_bytes(),
        file_system: 7,
        inode: u64::from(n),
        birth_ns: Some(1),
        head_len: 0,
        head_hash: 0,
    })
}

pub(crate) fn claim(n: u8, session: u64) -> Claim {
    Claim {
        stream: stream("s"),
        origin: origin(n),
        host: "web-1".into(),
        source: SourceName::new("app").unwrap(),
        descriptor: descriptor(n),
        lineage: LineageId(u64::from(n)),
        session: SessionId(session),
        from: 0,
        reason: ClaimReason::New,
        source_epoch: 0,
    }
}

pub(crate) async fn granted(log: &EmbeddedLog, n: u8, session: u64) -> Claimed {
    log.claim(claim(n, session)).await.unwrap().wait().await.unwrap()
}

pub(crate) fn block(n: u8, session: u64, from: u128, payload: &[u8]) -> Append {
    let len = payload.len() as u32;
    let header = BlockHeader {
        origin: origin(n),
        session: SessionId(session),
        from,
        to: from + u128::from(len),
        records: 1,
        kind: BlockKind::Lines,
        flags: 0,
        codec: Codec::None,
        raw_len: len,
        payload_len: len,
        payload_crc: crc32c::crc32c(payload),
        ingest_time_us: 1,
        tail_hash: garam_proto::hash::tail_hash(payload),
        resume: None,
    };
    Append {
        origin: header.origin,
        session: header.session,
        body: AppendBody::Block { header, payload: Bytes::copy_from_slice(payload) },
    }
}

pub(crate) fn append_of(n: u8, session: u64, body: AppendBody) -> Append {
    Append { origin: origin(n), session: SessionId(session), body }
}

pub(crate) async fn append(log: &EmbeddedLog, append: Append) -> Result<Appended, LogError> {
    log.append(&partition("s", 0), append).await?.wait().await
}

/// Everything durable in the partition, from its start.
pub(crate) async fn read_all(log: &EmbeddedLog, at: &PartitionId) -> Result<Vec<Entry>, LogError> {
    let from = log.bounds(at)?.start;
    let mut reader = log.reader(at, from).await?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.try_next().await? {
        assert_eq!(entry.offset, LogOffset(from.0 + entries.len() as u64));
        entries.push(entry);
    }
    Ok(entries)
}

/// Payloads of the blocks, in order.
pub(crate) fn payloads(entries: &[Entry]) -> Vec<Vec<u8>> {
    let blocks = entries.iter().filter_map(|entry| match &entry.body {
        EntryBody::Block { payload, .. } => Some(payload.to_vec()),
        _ => None,
    });
    blocks.collect()
}

/// Asks again until it holds, for at most ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = std::time::Duration::from_secs(10);
    let waited = tokio::time::timeout(patience, async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}
