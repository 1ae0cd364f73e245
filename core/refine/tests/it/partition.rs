//! For any bytes whatever: no panic, and every record is a row or a bad record, never both, never neither.

use std::collections::BTreeSet;

use garam_stage::{Contract, RawBlock, Refined, UnknownColumns};
use proptest::prelude::*;

use crate::show::{block, contract, refine};

/// Text that is nearly a record: right and wrong values, names, repetitions and cuts.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("\"a\""),
        Just("\"b\""),
        Just("\"ts\""),
        Just("\"\\u0061\""),
        Just("\"x\""),
        Just("a"),
    ];
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("null".to_owned()),
        Just("\"2026-01-01T00:00:00Z\"".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("{\"n\":[1,{}]}".to_owned()),
        Just("1e999999999999".to_owned()),
        "-?[0-9]{0,40}(\\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?",
        "\"\\PC{0,20}\"",
    ];
    let member = (name, value).prop_map(|(name, value)| format!("{name}:{value}"));
    (prop::collection::vec(member, 0..5), any::<prop::sample::Index>(), 0..4u8).prop_map(
        |(members, at, cut)| {
            let mut text = format!("{{{}}}", members.join(",")).into_bytes();
            if cut == 0 {
                text.truncate(at.index(text.len()));
            }
            text
        },
    )
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => nearly_json(), 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

fn contracts() -> impl Strategy<Value = Contract> {
    let columns = [("a", "decimal(12,3)"), ("b", "text not null"), ("ts", "timestamp")];
    prop_oneof![
        Just(Contract::lines()),
        Just(contract(&columns, UnknownColumns::Keep)),
        Just(contract(&columns, UnknownColumns::Drop)),
        Just(contract(&[("a", "double"), ("b", "varchar(3)")], UnknownColumns::Quarantine)),
        Just(contract(&[("a", "bigint"), ("b", "date")], UnknownColumns::Drop)),
    ]
}

fn assert_partition(blocks: &[RawBlock], refined: &Refined) {
    let all: BTreeSet<(u64, u32)> = blocks
        .iter()
        .flat_map(|block| block.records.iter().map(|record| (block.offset.0, record.index)))
        .collect();
    let rows: BTreeSet<_> = refined.sources.iter().map(|at| (at.offset.0, at.index)).collect();
    let bad: BTreeSet<_> = refined.bad.iter().map(|bad| (bad.at.offset.0, bad.at.index)).collect();
    assert_eq!(rows.len(), refined.sources.len(), "a source is named once");
    assert_eq!(bad.len(), refined.bad.len(), "a bad record is named once");
    assert!(rows.is_disjoint(&bad));
    assert_eq!(rows.union(&bad).copied().collect::<BTreeSet<_>>(), all);
    assert_eq!(refined.rows.num_rows(), refined.sources.len());
    assert!(refined.sources.is_sorted(), "rows keep the order of the log");
    for bad in &refined.bad {
        assert!(bad.detail.len() < 600, "detail of {} bytes", bad.detail.len());
        assert!(!bad.detail.contains(char::is_control), "{:?}", bad.detail);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_a_row_or_a_bad_record(
        contract in contracts(),
        first in prop::collection::vec(record(), 0..6),
        second in prop::collection::vec(record(), 0..6),
    ) {
        let slices = |records: &'_ [Vec<u8>], offset| {
            block(offset, &records.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };
        let blocks = [slices(&first, 0), slices(&second, 1)];
        let refined = refine(contract.clone(), &blocks);
        assert_partition(&blocks, &refined);
        let again = refine(contract, &blocks);
        prop_assert_eq!(refined.rows, again.rows);
    }
}
