//! Entries of the input, as an agent and a gateway would have made them.

use bytes::Bytes;
use garam_log::{EntryBody, OriginState};
use garam_proto::message::GapReason;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Descriptor, Generation, LineageId, OriginId, SessionId,
    SourceName,
};

use super::log::Item;

pub(super) fn source() -> OriginId {
    OriginId { agent: AgentId([1; 16]), generation: Generation([2; 16]) }
}

pub(super) fn state(origin: OriginId) -> OriginState {
    OriginState {
        origin,
        host: "host".into(),
        source: SourceName::new("source").unwrap(),
        descriptor: Descriptor::Producer { key: Vec::new() },
        lineage: LineageId(1),
        source_epoch: 1,
        mark: 0,
        tail_hash: 0,
        claim: SessionId(1),
        resume: None,
        retired: false,
    }
}

pub(super) fn body(item: &Item, from: u128) -> EntryBody {
    match item {
        Item::Lines(lines) => {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            block(from, text.into(), u32::try_from(lines.len()).unwrap(), 0)
        }
        Item::Broken(records) => block(from, "broken\n".into(), *records, 1),
        Item::Gap(units) => {
            let (to, at_least) = (from + u128::from(*units), false);
            EntryBody::Gap { from, to, at_least, reason: GapReason::Truncated }
        }
        Item::Claim => EntryBody::Claim,
        Item::Advance => EntryBody::Advance { from, to: from + 1 },
    }
}

pub(super) fn block(from: u128, payload: Bytes, records: u32, flip: u32) -> EntryBody {
    let len = u32::try_from(payload.len()).unwrap();
    let header = BlockHeader {
        origin: source(),
        session: SessionId(1),
        from,
        to: from + u128::from(len),
        records,
        kind: BlockKind::Lines,
        flags: 0,
        codec: Codec::None,
        raw_len: len,
        payload_len: len,
        payload_crc: crc32c::crc32c(&payload) ^ flip,
        ingest_time_us: 1_000,
        tail_hash: 0,
        resume: None,
    };
    EntryBody::Block { header, payload }
}
