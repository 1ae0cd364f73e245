//! Records that no agent read, as a block: for proposals and for tests of contracts.

use bytes::Bytes;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Generation, LogOffset, OriginId, Record, SessionId,
};
use garam_stage::RawBlock;
use garam_stage::records::Provenance;

/// A block of these records that arrived at this time, microseconds since the epoch.
pub fn sample(records: &[&str], ingest_time_us: i64) -> RawBlock {
    let record = |(index, text): (usize, &&str)| Record {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        position: index as u128,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        partial: false,
    };
    let records: Vec<Record> = records.iter().enumerate().map(record).collect();
    let origin = OriginId { agent: AgentId([0; 16]), generation: Generation([0; 16]) };
    let header = BlockHeader {
        origin,
        session: SessionId(0),
        from: 0,
        to: 1,
        records: 0,
        kind: BlockKind::Lines,
        flags: 0,
        codec: Codec::None,
        raw_len: 0,
        payload_len: 0,
        payload_crc: 0,
        ingest_time_us,
        tail_hash: 0,
        resume: None,
    };
    let (host, path) = ("sample".to_owned(), "sample".to_owned());
    let provenance = Provenance { origin, host, path, source_epoch: 0 }.into();
    RawBlock { offset: LogOffset::ZERO, provenance, header, records }
}
