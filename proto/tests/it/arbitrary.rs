//! Strategies for everything that can be said: any message, any block header, within the limits a sender keeps.

use garam_proto::block::{CONTINUES, UNTERMINATED};
use garam_proto::descriptor::{Descriptor, FileDescriptor};
use garam_proto::message::*;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, ClusterId, Codec, Generation, LineageId, OriginId, SessionId,
    SourceName, StreamName,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn resume() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(bytes(300))
}

/// A name of allowed characters; the first one is a letter, a digit or an underscore.
fn name() -> impl Strategy<Value = String> {
    let byte = prop::sample::select(b"azAZ09_.-".to_vec());
    vec(byte, 1..=128).prop_map(|mut bytes| {
        if matches!(bytes[0], b'.' | b'-') {
            bytes[0] = b'_';
        }
        String::from_utf8(bytes).unwrap()
    })
}

fn stream() -> impl Strategy<Value = StreamName> {
    name().prop_map(|text| StreamName::new(text).unwrap())
}

fn source() -> impl Strategy<Value = SourceName> {
    name().prop_map(|text| SourceName::new(text).unwrap())
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let file = (bytes(64), any::<u64>(), any::<u64>(), any::<Option<i64>>(), any::<(u32, u64)>());
    prop_oneof![
        file.prop_map(|(path, file_system, inode, birth_ns, (head_len, head_hash))| {
            let file = FileDescriptor { path, file_system, inode, birth_ns, head_len, head_hash };
            Descriptor::File(file)
        }),
        (text(), text()).prop_map(|(server, timeline)| Descriptor::Database { server, timeline }),
        (text(), bytes(20), bytes(20)).prop_map(|(table, first_key, low_watermark)| {
            Descriptor::Snapshot { table, first_key, low_watermark }
        }),
        bytes(40).prop_map(|key| Descriptor::Producer { key }),
    ]
}

fn generation() -> impl Strategy<Value = Generation> {
    any::<[u8; 16]>().prop_map(Generation)
}

pub(crate) fn codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![Codec::None, Codec::Lz4, Codec::Zstd])
}

pub(crate) fn block_header() -> impl Strategy<Value = BlockHeader> {
    let origin = (any::<[u8; 16]>().prop_map(AgentId), generation())
        .prop_map(|(agent, generation)| OriginId { agent, generation });
    let kind = prop::sample::select(vec![BlockKind::Lines, BlockKind::Records]);
    let numbers = any::<(u64, u128, u128, u32, u32, u32, u32, i64, u64)>();
    (origin, kind, codec(), 0..=(CONTINUES | UNTERMINATED), numbers, resume()).prop_map(
        |(origin, kind, codec, flags, n, resume)| BlockHeader {
            origin,
            session: SessionId(n.0),
            from: n.1,
            to: n.2,
            records: n.3,
            kind,
            flags,
            codec,
            raw_len: n.4,
            payload_len: n.5,
            payload_crc: n.6,
            ingest_time_us: n.7,
            tail_hash: n.8,
            resume,
        },
    )
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (generation(), descriptor(), any::<(u64, u128, u64)>(), resume()).prop_map(
        |(generation, descriptor, (lineage, mark, tail_hash), resume)| Candidate {
            generation,
            descriptor,
            lineage: LineageId(lineage),
            mark,
            tail_hash,
            resume,
        },
    )
}

fn greeting() -> impl Strategy<Value = Message> {
    let hello = (any::<[u8; 8]>(), any::<(u16, u16)>(), any::<u64>(), text(), text(), any::<i64>())
        .prop_map(|(magic, versions, features, build, host, time_us)| {
            Hello { magic, versions, features, build, host, time_us }.into()
        });
    let ids = any::<([u8; 16], [u8; 16], u64)>();
    let welcome = (any::<(u16, u64)>(), text(), ids, any::<(i64, u32, u32, u32)>()).prop_map(
        |((version, features), build, (cluster, agent, session), n)| {
            Welcome {
                version,
                features,
                build,
                cluster: ClusterId(cluster),
                agent: AgentId(agent),
                session: SessionId(session),
                time_us: n.0,
                window: n.1,
                max_part: n.2,
                max_record: n.3,
            }
            .into()
        },
    );
    prop_oneof![hello, welcome]
}

fn opening() -> impl Strategy<Value = Message> {
    let query = (stream(), source(), descriptor())
        .prop_map(|(stream, source, descriptor)| OpenQuery { stream, source, descriptor });
    let open = (any::<u64>(), vec(query, 0..4))
        .prop_map(|(number, queries)| Open { number, queries }.into());
    let open_ack = (any::<u64>(), vec(vec(candidate(), 0..3), 0..4))
        .prop_map(|(number, candidates)| OpenAck { number, candidates }.into());
    let reasons =
        [ClaimReason::Known, ClaimReason::New, ClaimReason::Branched, ClaimReason::StreamChanged];
    let about = (stream(), source(), generation(), descriptor());
    let claim = (about, any::<(u32, u64, u128, u32)>(), prop::sample::select(reasons.to_vec()))
        .prop_map(|((stream, source, generation, descriptor), n, reason)| {
            let lineage = LineageId(n.1);
            let (slot, from, source_epoch) = (n.0, n.2, n.3);
            Claim {
                slot,
                stream,
                source,
                generation,
                descriptor,
                lineage,
                from,
                reason,
                source_epoch,
            }
            .into()
        });
    let outcome = prop_oneof![
        (any::<(u128, u64, u32, u32)>(), resume()).prop_map(|(n, resume)| ClaimOutcome::Granted {
            mark: n.0,
            tail_hash: n.1,
            resume,
            partition: n.2,
            source_epoch: n.3,
        }),
        text().prop_map(|why| ClaimOutcome::Held { why }),
        text().prop_map(|why| ClaimOutcome::Denied { why }),
    ];
    let claim_ack = (any::<u32>(), any::<u64>(), outcome)
        .prop_map(|(slot, answer, outcome)| ClaimAck { slot, answer, outcome }.into());
    prop_oneof![open, open_ack, claim, claim_ack]
}

fn flowing() -> impl Strategy<Value = Message> {
    let at = any::<(u32, u64)>;
    let reasons = [
        GapReason::Truncated,
        GapReason::Removed,
        GapReason::Purged,
        GapReason::Restored,
        GapReason::Accepted,
    ];
    let mark = any::<(u32, u128)>().prop_map(|(slot, mark)| SlotMark { slot, mark });
    prop_oneof![
        (at(), block_header())
            .prop_map(|((slot, answer), block)| Push { slot, answer, block }.into()),
        any::<u32>().prop_map(|slot| Part { slot }.into()),
        vec(mark, 0..50).prop_map(|marks| Ack { marks }.into()),
        (at(), any::<(u128, u64)>(), resume()).prop_map(
            |((slot, answer), (mark, tail_hash), resume)| {
                Reposition { slot, answer, mark, tail_hash, resume }.into()
            }
        ),
        (at(), any::<(u128, u128, bool)>(), prop::sample::select(reasons.to_vec())).prop_map(
            |((slot, answer), (from, to, at_least), reason)| {
                Gap { slot, answer, from, to, at_least, reason }.into()
            }
        ),
        (at(), any::<(u128, u128, u64)>(), resume()).prop_map(
            |((slot, answer), (from, to, tail_hash), resume)| {
                Advance { slot, answer, from, to, tail_hash, resume }.into()
            }
        ),
        (at(), any::<u128>())
            .prop_map(|((slot, answer), mark)| Retire { slot, answer, mark }.into()),
    ]
}

fn control() -> impl Strategy<Value = Message> {
    let byes = [ByeReason::Shutdown, ByeReason::Version, ByeReason::Denied, ByeReason::TakenOver];
    let more = [ByeReason::TakeoverStorm, ByeReason::Protocol, ByeReason::Idle];
    let byes = prop::sample::select([&byes[..], &more[..], &[ByeReason::Unavailable]].concat());
    let limits = any::<(Option<u32>, u32, u32)>();
    prop_oneof![
        (stream(), any::<Option<u32>>(), any::<bool>(), text())
            .prop_map(|(stream, partition, held, why)| Hold { stream, partition, held, why }.into()),
        (stream(), limits).prop_map(|(stream, (partition, window, linger_ms))| {
            Throttle { stream, partition, window, linger_ms }.into()
        }),
        any::<u64>().prop_map(|nonce| Ping { nonce }.into()),
        any::<u64>().prop_map(|nonce| Pong { nonce }.into()),
        (byes, text()).prop_map(|(reason, text)| Bye { reason, text }.into()),
        any::<i64>().prop_map(|not_after_us| RenewDue { not_after_us }.into()),
        prop::collection::vec(any::<u8>(), 0..64).prop_map(|csr| Renew { csr }.into()),
        text().prop_map(|chain| Renewed { outcome: RenewOutcome::Issued { chain } }.into()),
        text().prop_map(|why| Renewed { outcome: RenewOutcome::Refused { why } }.into()),
    ]
}

/// Any message a sender may send.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![greeting(), opening(), flowing(), control()]
}
