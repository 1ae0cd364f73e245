//! Payloads split into records: nothing lost, nothing invented, every position where it was.

use bytes::Bytes;
use garam_proto::block::{
    BadRecords, CONTINUES, MAX_RECORDS, RecordsBuilder, UNTERMINATED, count_lines,
};
use garam_proto::{BlockHeader, BlockKind, records};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::largest::largest_allocation;
use crate::samples;

fn header(kind: BlockKind, raw: &[u8], count: u32) -> BlockHeader {
    let (mut header, _) = samples::block();
    header.kind = kind;
    header.flags = 0;
    header.from = 1000;
    header.to = 1000 + raw.len() as u128;
    header.raw_len = raw.len() as u32;
    header.payload_len = header.raw_len;
    header.records = count;
    header
}

fn line_soup() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(b"\n\n\nab\r\0\xff".to_vec()), 0..200)
}

proptest! {
    #[test]
    fn lines_joined_again_are_the_payload(raw in line_soup(), flags in 0u8..=3) {
        let mut header = header(BlockKind::Lines, &raw, count_lines(&raw));
        header.flags = flags;
        let raw = Bytes::from(raw);
        let records = records(&header, &raw).unwrap();
        let mut joined = vec![b'\n'; raw.len()];
        for (index, record) in records.iter().enumerate() {
            prop_assert_eq!(record.index as usize, index);
            let at = (record.position - header.from) as usize;
            joined[at..at + record.bytes.len()].copy_from_slice(&record.bytes);
            prop_assert!(!record.bytes.contains(&b'\n'));
            let first = flags & CONTINUES != 0 && index == 0;
            let last = flags & UNTERMINATED != 0 && index + 1 == records.len();
            prop_assert_eq!(record.partial, first || last);
        }
        prop_assert_eq!(joined, raw);
    }

    #[test]
    fn records_come_back_with_their_positions(
        pushed in vec((any::<u64>(), vec(any::<u8>(), 0..300)), 0..30),
        from in any::<u64>(),
    ) {
        let mut builder = RecordsBuilder::new(from.into());
        let mut position = u128::from(from);
        let mut expected = Vec::new();
        for (delta, bytes) in pushed {
            position += u128::from(delta);
            builder.push(position, &bytes);
            expected.push((position, bytes));
        }
        prop_assert_eq!(builder.is_empty(), expected.is_empty());
        let (raw, count) = builder.finish();
        let mut header = header(BlockKind::Records, &raw, count);
        (header.from, header.to) = (from.into(), position + 1);
        let records = records(&header, &raw.into()).unwrap();
        let got: Vec<_> = records.into_iter().map(|r| (r.position, r.bytes.to_vec())).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn any_bytes_walk_or_are_refused(raw in vec(any::<u8>(), 0..200), claimed in 0u32..50) {
        for kind in [BlockKind::Lines, BlockKind::Records] {
            let header = header(kind, &raw, claimed);
            if let Ok(records) = records(&header, &raw.clone().into()) {
                prop_assert_eq!(records.len(), claimed as usize);
            }
        }
    }
}

#[test]
fn lines_are_split_at_newlines_only() {
    let check = |raw: &'static [u8], expected: &[&[u8]]| {
        let header = header(BlockKind::Lines, raw, expected.len() as u32);
        let records = records(&header, &Bytes::from_static(raw)).unwrap();
        assert_eq!(records.iter().map(|r| &r.bytes[..]).collect::<Vec<_>>(), expected);
    };
    check(b"a\nb\n", &[b"a", b"b"]);
    check(b"a\nb", &[b"a", b"b"]);
    check(b"\n\n", &[b"", b""]);
    check(b"crlf\r\n", &[b"crlf\r"]);
    check(b"\0nul\n\xff", &[b"\0nul", b"\xff"]);
    check(b"", &[]);
}

#[test]
fn a_count_that_is_not_the_payloads_is_refused() {
    let lines = Bytes::from_static(b"a\nb\nc");
    let mut builder = RecordsBuilder::new(1000);
    builder.push(1000, b"a");
    builder.push(1001, b"b");
    builder.push(1002, b"c");
    let packed = Bytes::from(builder.finish().0);
    for (kind, raw) in [(BlockKind::Lines, lines), (BlockKind::Records, packed)] {
        for claimed in [0, 1, 2, 4, MAX_RECORDS, u32::MAX] {
            let result = records(&header(kind, &raw, claimed), &raw);
            assert_eq!(result, Err(BadRecords::Count { claimed, found: 3 }), "{kind:?}");
        }
        assert_eq!(records(&header(kind, &raw, 3), &raw).unwrap().len(), 3);
    }
}

#[test]
fn claims_take_no_memory_that_the_payload_does_not_earn() {
    let newlines = Bytes::from(vec![b'\n'; 1 << 20]);
    let empty_records = Bytes::from(vec![0u8; 1 << 20]);
    let small = Bytes::from_static(b"\0\0");
    let cases = [
        (BlockKind::Lines, &newlines, 3),
        (BlockKind::Records, &empty_records, 3),
        (BlockKind::Lines, &small, u32::MAX),
        (BlockKind::Records, &small, u32::MAX),
    ];
    for (kind, raw, claimed) in cases {
        let header = header(kind, raw, claimed);
        let (result, largest) = largest_allocation(|| records(&header, raw));
        assert!(matches!(result, Err(BadRecords::Count { .. })), "{kind:?} {claimed}");
        assert!(largest < 1024, "{kind:?} {claimed}: {largest} bytes");
    }
}

#[test]
fn a_torn_records_payload_names_record_and_byte() {
    let check = |raw: Vec<u8>, expected: BadRecords| {
        let header = header(BlockKind::Records, &[0; 20], 2);
        assert_eq!(records(&header, &raw.into()), Err(expected));
    };
    let torn = |index, at, why| BadRecords::Torn { index, at, why };
    check(vec![0, 1, b'x', 0x80], torn(1, 3, "position delta is cut or too long"));
    check(vec![0, 1, b'x', 0], torn(1, 3, "length is cut or too long"));
    check(vec![0, 1, b'x', 0, 2, b'y'], torn(1, 3, "length reaches beyond the block"));
    check(vec![0, 1, b'x', 20, 0], torn(1, 3, "position lies beyond the block's range"));
    check([vec![0xff; 19], vec![0]].concat(), torn(0, 0, "position delta is cut or too long"));
    check([vec![0xff; 18], vec![4, 0]].concat(), torn(0, 0, "position delta is cut or too long"));
    let most = [vec![0xff; 18], vec![3, 0]].concat();
    check(most, torn(0, 0, "position lies beyond the block's range"));
    let len = [vec![0], vec![0xff; 18], vec![3]].concat();
    check(len, torn(0, 0, "length reaches beyond the block"));
}

#[test]
fn a_header_whose_check_was_forgotten_still_does_not_panic() {
    let raw = Bytes::from_static(b"a\nb\n");
    let mut header = header(BlockKind::Lines, &raw, 2);
    (header.from, header.to) = (u128::MAX, u128::MAX);
    assert_eq!(records(&header, &raw).unwrap().len(), 2);
}

#[test]
fn the_payload_checksum_finds_every_flipped_bit_and_every_cut() {
    let (header, payload) = samples::block();
    header.check_payload(payload).unwrap();
    for bit in 0..payload.len() * 8 {
        let mut payload = payload.to_vec();
        payload[bit / 8] ^= 1 << (bit % 8);
        header.check_payload(&payload).unwrap_err();
    }
    for cut in 0..payload.len() {
        header.check_payload(&payload[..cut]).unwrap_err();
    }
}
