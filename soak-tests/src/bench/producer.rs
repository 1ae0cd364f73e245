//! An origin that appends blocks of random bytes, for benchmarks of the log.

use anyhow::Context as _;
use fastrand::Rng;
use garam_log::{Append, AppendBody, Appended, Claim, EmbeddedLog, Log, Ticket};
use garam_proto::message::ClaimReason;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Descriptor, FileDescriptor, Generation, LineageId,
    OriginId, PartitionId, SessionId, SourceName, StreamName,
};

const AGENT: AgentId = AgentId([7; 16]);
const SESSION: SessionId = SessionId(1);

/// What one producer appends again and again, moved on by each append.
pub(super) struct Producer {
    header: BlockHeader,
    payload: bytes::Bytes,
}

impl Producer {
    /// Registers origin `number`, or takes it up where it stands, and waits until that is durable.
    pub(super) async fn claim(
        log: &EmbeddedLog,
        stream: &StreamName,
        number: u32,
        block: u32,
    ) -> anyhow::Result<Self> {
        let state = register(log, stream, number).await?.wait().await?.state;
        let payload = noise(block as usize, u64::from(number));
        let header = BlockHeader {
            origin: state.origin,
            session: SESSION,
            from: state.mark,
            to: state.mark + u128::from(block),
            records: 1,
            kind: BlockKind::Lines,
            flags: 0,
            codec: Codec::None,
            raw_len: block,
            payload_len: block,
            payload_crc: crc32c::crc32c(&payload),
            ingest_time_us: 1,
            tail_hash: 1,
            resume: None,
        };
        Ok(Self { header, payload: payload.into() })
    }

    /// Appends the next block and waits until it is durable.
    pub(super) async fn append(
        &mut self,
        log: &EmbeddedLog,
        at: &PartitionId,
    ) -> anyhow::Result<()> {
        let body = AppendBody::Block { header: self.header.clone(), payload: self.payload.clone() };
        let append = Append { origin: self.header.origin, session: SESSION, body };
        let appended = log.append(at, append).await?.wait().await?;
        let Appended::Durable { mark, .. } = appended else {
            anyhow::bail!("the log did not take a block that began at its mark: {appended:?}");
        };
        let len = u128::from(self.header.raw_len);
        (self.header.from, self.header.to) = (mark, mark + len);
        Ok(())
    }
}

/// Asks for origin `number` to be registered, with a descriptor and a path as long as they are in life.
pub(super) async fn register(
    log: &EmbeddedLog,
    stream: &StreamName,
    number: u32,
) -> anyhow::Result<Ticket<garam_log::Claimed>> {
    let mut generation = [0; 16];
    let (_, last) = generation.split_last_chunk_mut::<4>().context("an identifier is longer")?;
    *last = number.to_be_bytes();
    let descriptor = Descriptor::File(FileDescriptor {
        path: format!("/var/log/containers/service-{number:06}/current.log").into_bytes(),
        file_system: 0x9e37_79b9_7f4a_7c15,
        inode: u64::from(number) + 1,
        birth_ns: Some(1_700_000_000_000_000_000),
        head_len: 4096,
        head_hash: 0x9e37_79b9_7f4a_7c15,
    });
    let claim = Claim {
        stream: stream.clone(),
        origin: OriginId { agent: AGENT, generation: Generation(generation) },
        host: "node-17.cluster.example".into(),
        source: SourceName::new("containers")?,
        descriptor,
        lineage: LineageId(u64::from(number)),
        session: SESSION,
        from: 0,
        reason: ClaimReason::New,
        source_epoch: 0,
    };
    Ok(log.claim(claim).await?)
}

/// Bytes that no disk and no codec makes smaller.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
