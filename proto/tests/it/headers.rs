//! Headers that lie: cut, prolonged, with absurd list lengths, bad names or contradicting sizes.

use bytes::Bytes;
use garam_proto::block::{BadBlock, MAX_RECORDS, RESUME_MAX};
use garam_proto::frame::PREFIX_LEN;
use garam_proto::message::*;
use garam_proto::{
    BlockHeader, BlockKind, Codec, DecodeError, DecodeLimits, Descriptor, FileDescriptor, Frame,
    Message, SourceName, StreamName,
};

use crate::largest::largest_allocation;
use crate::samples;

/// The header limit of `docs/protocol.md`: no header makes a reader allocate more at once.
const HEADER_LIMIT: usize = 256 * 1024;

fn decode(kind: u8, header: &[u8]) -> Result<Message, MessageError> {
    let header = Bytes::copy_from_slice(header);
    Message::decode(&Frame { kind, header, payload: Bytes::new() })
}

fn comes_back(message: &Message) {
    let bytes = message.encode(0).unwrap();
    assert_eq!(decode(bytes[8], &bytes[PREFIX_LEN..]).as_ref(), Ok(message));
}

#[test]
fn a_header_cut_or_prolonged_anywhere_is_malformed() {
    for (message, _) in samples::all() {
        let bytes = message.encode(0).unwrap();
        let (kind, header) = (bytes[8], &bytes[PREFIX_LEN..]);
        for cut in 0..header.len() {
            decode(kind, &header[..cut]).expect_err(message.name());
        }
        for extra in [0u8, 1, 0xff] {
            let longer = [header, &[extra]].concat();
            decode(kind, &longer).expect_err(message.name());
        }
    }
}

#[test]
fn no_flipped_bit_in_a_header_panics_or_allocates_much() {
    for (message, _) in samples::all() {
        let bytes = message.encode(0).unwrap();
        for bit in PREFIX_LEN * 8..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (_, largest) = largest_allocation(|| decode(bytes[8], &bytes[PREFIX_LEN..]).ok());
            assert!(largest <= HEADER_LIMIT, "{} bit {bit}: {largest}", message.name());
        }
    }
}

#[test]
fn absurd_list_lengths_are_refused_without_allocating_for_them() {
    let varints: [&[u8]; 4] = [
        &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10],
        &[0xfc, 0xff, 0xff, 0xff, 0xff],
        &[0xfc, 0, 0, 4, 0],
    ];
    // Ack's list; Open's and OpenAck's behind their number; Bye's text behind its reason; a resume token in Advance.
    let before: [(u8, &[u8]); 5] =
        [(9, &[]), (3, &[1]), (4, &[1]), (18, &[0]), (14, &[1, 1, 0, 1, 0, 1])];
    for (kind, before) in before {
        for varint in varints {
            let header = [before, varint, &[0; 64]].concat();
            let (result, largest) = largest_allocation(|| decode(kind, &header));
            result.expect_err("an absurd length");
            assert!(largest <= HEADER_LIMIT, "kind {kind} allocated {largest}");
        }
    }
}

#[test]
fn names_with_characters_that_could_do_harm_do_not_decode() {
    let long = "x".repeat(129);
    for bad in
        ["", ".", "..", ".hidden", "-flag", "a/b", "a b", "a\0", "a\n", "naïve", "a\"", &long]
    {
        let bytes = garam_proto::encode("name", &bad.to_owned()).unwrap();
        garam_proto::decode::<StreamName>("name", &bytes).expect_err(bad);
        garam_proto::decode::<SourceName>("name", &bytes).expect_err(bad);
        assert!(StreamName::new(bad).is_err());
    }
    let bytes = garam_proto::encode("name", &vec![0xffu8, 0xfe]).unwrap();
    garam_proto::decode::<StreamName>("name", &bytes).expect_err("invalid UTF-8");
    for good in ["a", "_quarantine.x-1", "9", &"x".repeat(128)] {
        let bytes = garam_proto::encode("name", &good.to_owned()).unwrap();
        let name = garam_proto::decode::<StreamName>("name", &bytes).unwrap();
        assert_eq!(name.as_str(), good);
    }
}

#[test]
fn the_largest_lists_a_sender_makes_still_fit() {
    let name = "n".repeat(128);
    let query = OpenQuery {
        stream: StreamName::new(name.clone()).unwrap(),
        source: SourceName::new(name).unwrap(),
        descriptor: Descriptor::File(FileDescriptor {
            path: vec![b'p'; 4096],
            file_system: u64::MAX,
            inode: u64::MAX,
            birth_ns: Some(i64::MIN),
            head_len: u32::MAX,
            head_hash: u64::MAX,
        }),
    };
    comes_back(&Open { number: u64::MAX, queries: vec![query.clone(); MAX_OPENS] }.into());
    let mark = SlotMark { slot: u32::MAX, mark: u128::MAX };
    comes_back(&Ack { marks: vec![mark; MAX_MARKS] }.into());
    let (mut block, _) = samples::block();
    block.resume = Some(vec![0xff; RESUME_MAX]);
    comes_back(&Push { slot: 0, answer: 0, block }.into());

    let too_many: Message = Open { number: 1, queries: vec![query; MAX_OPENS + 1] }.into();
    too_many.encode(0).unwrap_err();
    let too_many: Message = Ack { marks: vec![mark; MAX_MARKS + 1] }.into();
    too_many.encode(0).unwrap_err();
    let too_long: Message =
        Bye { reason: ByeReason::Idle, text: "x".repeat(HEADER_LIMIT + 1) }.into();
    too_long.encode(0).unwrap_err();
}

#[test]
fn versions_meet_at_the_highest_both_speak() {
    assert_eq!(negotiate((1, 3), (2, 5)), Ok(3));
    assert_eq!(negotiate((1, 1), (1, 1)), Ok(1));
    expect_test::expect![
        "this side speaks protocol 1 to 1, the peer 2 to 3: upgrade the older one"
    ]
    .assert_eq(&negotiate((1, 1), (2, 3)).unwrap_err());
    negotiate((2, 3), (1, 1)).unwrap_err();
}

#[test]
fn a_block_that_contradicts_itself_is_refused_at_the_door() {
    let refuse = |change: fn(&mut BlockHeader), expected: BadBlock| {
        let (mut header, _) = samples::block();
        header.check(&DecodeLimits::default()).unwrap();
        change(&mut header);
        assert_eq!(header.check(&DecodeLimits::default()), Err(expected));
    };
    let from = 1u128 << 40;
    refuse(|h| h.to = h.from, BadBlock::Range { from, to: from });
    refuse(|h| h.to = 0, BadBlock::Range { from, to: 0 });
    refuse(|h| h.to += 1, BadBlock::RangeLength { raw_len: 17, range: 18 });
    refuse(|h| h.flags = 4, BadBlock::Flags(4));
    refuse(|h| h.records = MAX_RECORDS + 1, BadBlock::Records(MAX_RECORDS + 1));
    refuse(|h| h.resume = Some(vec![0; RESUME_MAX + 1]), BadBlock::Resume { len: RESUME_MAX + 1 });
    let sizes = |codec, raw_len, payload_len| DecodeError::Sizes { codec, raw_len, payload_len };
    refuse(|h| h.payload_len = u32::MAX, sizes("none", 17, u32::MAX).into());
    refuse(|h| h.payload_len = 16, sizes("none", 17, 16).into());
    refuse(
        |h| {
            h.codec = Codec::Zstd;
            h.payload_len = 18;
        },
        sizes("zstd", 17, 18).into(),
    );
    refuse(
        |h| {
            h.kind = BlockKind::Records;
            h.codec = Codec::Lz4;
            h.raw_len = 64 * 1024 * 1024;
        },
        DecodeError::Ratio { raw_len: 64 * 1024 * 1024, payload_len: 17, limit: 1024 }.into(),
    );
    refuse(
        |h| {
            h.kind = BlockKind::Records;
            h.raw_len = u32::MAX;
            h.payload_len = u32::MAX;
        },
        DecodeError::TooLarge { raw_len: u32::MAX, limit: 64 * 1024 * 1024 }.into(),
    );
}
