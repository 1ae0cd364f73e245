//! One message of every kind and variant, with fixed contents: what the golden bytes and the seeds are made of.

use garam_proto::block::UNTERMINATED;
use garam_proto::descriptor::{Descriptor, FileDescriptor};
use garam_proto::message::*;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, ClusterId, Codec, Generation, LineageId, OriginId, SessionId,
    SourceName, StreamName,
};

pub(crate) fn stream() -> StreamName {
    StreamName::new("orders").unwrap()
}

pub(crate) fn source() -> SourceName {
    SourceName::new("orders-log").unwrap()
}

pub(crate) fn generation() -> Generation {
    Generation([0xa1; 16])
}

pub(crate) fn file() -> Descriptor {
    Descriptor::File(FileDescriptor {
        path: b"/var/log/orders/a.log".to_vec(),
        file_system: 0x0102_0304_0506_0708,
        inode: 77,
        birth_ns: Some(1_700_000_000_123_456_789),
        head_len: 4096,
        head_hash: 0xfeed_face_cafe_beef,
    })
}

/// A block of two lines, the second one cut.
pub(crate) fn block() -> (BlockHeader, &'static [u8]) {
    let payload = b"first\nsecond, cut";
    let header = BlockHeader {
        origin: OriginId { agent: AgentId([7; 16]), generation: generation() },
        session: SessionId(0x1122_3344_5566_7788),
        from: 1 << 40,
        to: (1 << 40) + payload.len() as u128,
        records: 2,
        kind: BlockKind::Lines,
        flags: UNTERMINATED,
        codec: Codec::None,
        raw_len: payload.len() as u32,
        payload_len: payload.len() as u32,
        payload_crc: crc32c::crc32c(payload),
        ingest_time_us: 0,
        tail_hash: 0x0123_4567_89ab_cdef,
        resume: Some(vec![1, 2, 3]),
    };
    (header, payload)
}

fn candidate() -> Candidate {
    Candidate {
        generation: generation(),
        descriptor: file(),
        lineage: LineageId(42),
        mark: u128::MAX,
        tail_hash: 9,
        resume: None,
    }
}

fn query(descriptor: Descriptor) -> OpenQuery {
    OpenQuery { stream: stream(), source: source(), descriptor }
}

/// Every message with the payload of its frame. Order and contents are part of the golden file.
pub(crate) fn all() -> Vec<(Message, &'static [u8])> {
    let (block, payload) = block();
    let claim_ack = |outcome| Message::from(ClaimAck { slot: 3, answer: 1, outcome });
    let mut messages: Vec<(Message, &'static [u8])> = vec![
        (Push { slot: 3, answer: 1, block }.into(), payload),
        (Part { slot: 3 }.into(), b"the rest"),
    ];
    let plain: Vec<Message> = vec![
        Hello {
            magic: MAGIC,
            versions: VERSIONS,
            features: 0b101,
            build: "garam-agent 0.1.0".into(),
            host: "web-1".into(),
            time_us: 1_700_000_000_000_000,
        }
        .into(),
        Welcome {
            version: 1,
            features: 1,
            build: "garam 0.1.0".into(),
            cluster: ClusterId([0xc1; 16]),
            agent: AgentId([7; 16]),
            session: SessionId(u64::MAX),
            time_us: -1,
            window: 8 << 20,
            max_part: 1 << 20,
            max_record: 16 << 20,
        }
        .into(),
        Open {
            number: 1,
            queries: vec![
                query(file()),
                query(Descriptor::Database { server: "uuid".into(), timeline: "3".into() }),
                query(Descriptor::Snapshot {
                    table: "shop.orders".into(),
                    first_key: vec![0, 255],
                    low_watermark: vec![],
                }),
                query(Descriptor::Producer { key: vec![9; 3] }),
            ],
        }
        .into(),
        OpenAck { number: 1, candidates: vec![vec![], vec![candidate()]] }.into(),
        Claim {
            slot: 3,
            stream: stream(),
            source: source(),
            generation: generation(),
            descriptor: file(),
            lineage: LineageId(u64::MAX),
            from: 4096,
            reason: ClaimReason::New,
            source_epoch: 2,
        }
        .into(),
        claim_ack(ClaimOutcome::Granted {
            mark: 4096,
            tail_hash: 5,
            resume: Some(vec![]),
            partition: 0,
            source_epoch: 65_537,
        }),
        claim_ack(ClaimOutcome::Held { why: "stream is full".into() }),
        claim_ack(ClaimOutcome::Denied { why: "unknown stream".into() }),
        Ack { marks: vec![SlotMark { slot: 3, mark: 250 }, SlotMark { slot: 4, mark: 251 }] }
            .into(),
        Reposition { slot: 3, answer: 2, mark: 70_000, tail_hash: 1, resume: None }.into(),
        Hold { stream: stream(), partition: None, held: true, why: "quota".into() }.into(),
        Throttle { stream: stream(), partition: Some(1), window: 1 << 16, linger_ms: 20 }.into(),
        Gap { slot: 3, answer: 1, from: 5, to: 6, at_least: true, reason: GapReason::Restored }
            .into(),
        Advance { slot: 3, answer: 1, from: 6, to: 900, tail_hash: 8, resume: None }.into(),
        Retire { slot: 3, answer: 1, mark: 900 }.into(),
        Ping { nonce: 1 }.into(),
        Pong { nonce: 1 }.into(),
        Bye { reason: ByeReason::TakeoverStorm, text: "two agents use one identity".into() }.into(),
        RenewDue { not_after_us: 1_700_000_000_000_000 }.into(),
        Renew { csr: vec![0x30, 0] }.into(),
        Renewed { outcome: RenewOutcome::Issued { chain: "PEM".into() } }.into(),
        Renewed { outcome: RenewOutcome::Refused { why: "revoked".into() } }.into(),
    ];
    messages.extend(plain.into_iter().map(|message| (message, &b""[..])));
    messages
}

/// The whole frame of a message.
pub(crate) fn frame_bytes(message: &Message, payload: &[u8]) -> Vec<u8> {
    let mut bytes = message.encode(payload.len() as u32).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}
