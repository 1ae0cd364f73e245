//! Whole batches: system columns, order, and that a bad record leaves nothing behind.

use expect_test::expect;
use garam_refine::ContractRefiner;
use garam_stage::UnknownColumns::Keep;
use garam_stage::{Refiner, system};

use crate::show::{block, contract, refine, text};

#[test]
fn every_row_says_where_it_came_from() {
    let contract = contract(&[("ts", "timestamp not null"), ("n", "int")], Keep);
    let refined = refine(contract, &[block(5, &[br#"{"ts":1,"n":1}"#, br#"{"ts":2,"n":2}"#])]);
    let rows = &refined.rows;
    let mut shown = String::new();
    for row in 0..rows.num_rows() {
        for name in system::ALL {
            let column = rows.schema().index_of(name).unwrap();
            shown += &format!("{name}: {}\n", text(rows, column, row));
        }
    }
    expect![[r#"
        _host: "web-1"
        _path: "/var/log/app.log"
        _origin: a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        _position: 00000000000000000000000000001388
        _ordinal: 0
        _version: 0000000700000000000000000000000000001388
        _event_time: 1000000
        _ingest_time: 1795476244000000
        _host: "web-1"
        _path: "/var/log/app.log"
        _origin: a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        _position: 00000000000000000000000000001397
        _ordinal: 0
        _version: 0000000700000000000000000000000000001397
        _event_time: 2000000
        _ingest_time: 1795476244000000
    "#]]
    .assert_eq(&shown);
}

#[test]
fn a_bad_record_leaves_nothing_of_itself_behind() {
    let contract = contract(&[("a", "int"), ("b", "text"), ("c", "int not null")], Keep);
    let blocks = [
        block(1, &[br#"{"a":1,"b":"x","c":1,"z":9}"#, br#"{"a":2,"b":"y"}"#]),
        block(2, &[br#"{"c":"no"}"#, br#"{"c":3}"#]),
    ];
    let refined = refine(contract.clone(), &blocks);
    let at: Vec<_> = refined.sources.iter().map(|at| (at.offset.0, at.index)).collect();
    assert_eq!(at, [(1, 0), (2, 1)]);
    let bad: Vec<_> = refined.bad.iter().map(|bad| (bad.at.offset.0, bad.at.index)).collect();
    assert_eq!(bad, [(1, 1), (2, 0)]);
    let shown: Vec<Vec<String>> =
        (0..2).map(|row| (0..4).map(|column| text(&refined.rows, column, row)).collect()).collect();
    assert_eq!(shown, [["1", "\"x\"", "1", "\"{\\\"z\\\":9}\""], ["NULL", "NULL", "3", "NULL"]]);
    assert_eq!(refined.rows.schema(), contract.schema());
}

#[test]
fn no_records_make_an_empty_batch_in_the_contracts_schema() {
    let contract = contract(&[("a", "decimal(5,2)"), ("b", "date"), ("c", "real")], Keep);
    let refiner = ContractRefiner::new(contract.clone()).unwrap();
    let refined = refiner.refine(&[]).unwrap();
    assert_eq!(refined.rows.num_rows(), 0);
    assert_eq!(refined.rows.schema(), contract.schema());
    assert_eq!(refiner.schema(), contract.schema());
}

#[test]
fn every_type_has_a_builder() {
    let columns = [
        ("a", "boolean"),
        ("b", "smallint"),
        ("c", "int"),
        ("d", "bigint"),
        ("e", "real"),
        ("f", "double"),
        ("g", "decimal(5,2)"),
        ("h", "text"),
        ("i", "varchar(9)"),
        ("j", "date"),
        ("k", "timestamp"),
    ];
    let values = br#"{"k":5,"a":true,"b":1,"c":2,"d":3,"e":0.5,"f":0.25,"g":1.5,"h":"t","i":"v","j":"1970-01-05"}"#;
    let refined = refine(contract(&columns, Keep), &[block(0, &[b"{}", values])]);
    let row = |row| -> Vec<String> {
        (0..columns.len()).map(|column| text(&refined.rows, column, row)).collect()
    };
    assert!(row(0).iter().all(|value| value == "NULL"));
    assert_eq!(row(1).join(" "), "true 1 2 3 0.5 0.25 1.50 \"t\" \"v\" 4 5000000");
}
