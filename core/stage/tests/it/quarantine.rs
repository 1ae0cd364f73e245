//! Quarantine entries: what is put aside comes back whole, and damaged entries are errors.

use expect_test::expect;
use garam_proto::{AgentId, Generation, Incarnation, OriginId, StreamName};
use garam_stage::{QuarantineReason, QuarantinedRecord};
use proptest::prelude::*;

fn record(detail: &str, bytes: &[u8]) -> QuarantinedRecord {
    QuarantinedRecord {
        stream: StreamName::new("raw.app").unwrap(),
        partition: 3,
        incarnation: Incarnation([1; 16]),
        offset: 1_000_000,
        index: 7,
        reason: QuarantineReason::Type,
        detail: detail.into(),
        records: 1,
        origin: OriginId { agent: AgentId([2; 16]), generation: Generation([3; 16]) },
        position: u128::MAX,
        source_epoch: 9,
        ingest_time_us: -5,
        host: "web-1".into(),
        path: "/var/log/app.log".into(),
        time_us: 1_795_476_244_000_000,
        bytes_len: u32::try_from(bytes.len()).unwrap(),
    }
}

#[test]
fn an_entry_names_its_record() {
    let record = record("", b"");
    assert_eq!((record.at().offset.0, record.at().index), (1_000_000, 7));
}

/// Entries lie in logs for as long as their quarantine: these bytes must be readable for ever.
#[test]
fn entries_of_today_can_be_read_tomorrow() {
    let bytes = b"{\"a\":\"x\"}";
    let encoded = record("column a: expected int, found \"x\"", bytes).encode(bytes).unwrap();
    let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<&str> =
        hex.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    expect![[r#"
        97000000077261772e6170700301010101010101010101010101010101fc4042
        0f00070221636f6c756d6e20613a20657870656374656420696e742c20666f75
        6e64202278220102020202020202020202020202020202030303030303030303
        03030303030303feffffffffffffffffffffffffffffffff0909057765622d31
        102f7661722f6c6f672f6170702e6c6f67fd00da73c7f3c10c00097b2261223a
        2278227d"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn every_cut_is_an_error() {
    let bytes = b"some bytes";
    let encoded = record("detail", bytes).encode(bytes).unwrap();
    for length in 0..encoded.len() {
        let error = QuarantinedRecord::decode(&encoded[..length]).unwrap_err();
        assert_eq!(error.what, "quarantined record");
    }
    let mut longer = encoded;
    longer.push(0);
    QuarantinedRecord::decode(&longer).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_put_aside_comes_back_whole(
        detail in ".{0,300}",
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let record = record(&detail, &bytes);
        let encoded = record.encode(&bytes).unwrap();
        let (decoded, raw) = QuarantinedRecord::decode(&encoded).unwrap();
        prop_assert_eq!(decoded, record);
        prop_assert_eq!(raw, &bytes[..]);
    }

    #[test]
    fn a_flipped_entry_never_panics_and_never_grows(
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let bytes = b"raw bytes of the record";
        let mut encoded = record("detail", bytes).encode(bytes).unwrap();
        let at = at.index(encoded.len());
        encoded[at] ^= 1 << bit;
        if let Ok((decoded, raw)) = QuarantinedRecord::decode(&encoded) {
            prop_assert_eq!(raw.len(), decoded.bytes_len as usize);
            prop_assert!(raw.len() <= encoded.len());
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((decoded, raw)) = QuarantinedRecord::decode(&bytes) {
            prop_assert_eq!(raw.len(), decoded.bytes_len as usize);
        }
    }
}
