//! Format `changes`: every kind of event, every way to say it, and what is put aside instead of being guessed.

use garam_stage::contract::OneOrMany;
use garam_stage::{Contract, ContractConfig, Format, UnknownColumns};

use crate::show::{block, refine, text};

fn contract(tables: &[&str]) -> Contract {
    let columns = [("id", "bigint not null"), ("name", "text not null"), ("n", "int")];
    let columns = columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec();
    ContractConfig {
        key: Some(OneOrMany::One("id".into())),
        unknown: UnknownColumns::Drop,
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        ..ContractConfig::new(Format::Changes, columns)
    }
    .check()
    .unwrap()
}

/// Each row as `op ordinal: cells`, or why there is none.
fn told(tables: &[&str], record: &str) -> String {
    let refined = refine(contract(tables), &[block(0, &[record.as_bytes()])]);
    if let [bad] = refined.bad.as_slice() {
        return format!("{}: {}", bad.reason.name(), bad.detail);
    }
    if let [(_, reason)] = refined.dropped.as_slice() {
        return format!("dropped: {}", reason.name());
    }
    let rows = &refined.rows;
    let at = |name: &str| rows.schema().index_of(name).unwrap();
    let show = |row: usize| {
        let cells: Vec<String> = (0..3).map(|column| text(rows, column, row)).collect();
        let (op, ordinal) = (text(rows, at("_op"), row), text(rows, at("_ordinal"), row));
        format!("{} {ordinal}: {}", op.trim_matches('"'), cells.join(" "))
    };
    (0..rows.num_rows()).map(show).collect::<Vec<_>>().join(" | ")
}

#[test]
fn each_kind_of_event_is_the_rows_it_means() {
    let check = |record: &str, expect: &str| assert_eq!(told(&[], record), expect, "{record}");
    check(r#"{"op":"c","before":null,"after":{"id":1,"name":"a","n":2}}"#, r#"insert 0: 1 "a" 2"#);
    check(r#"{"op":"r","after":{"id":1,"name":"a"}}"#, r#"insert 0: 1 "a" NULL"#);
    check(r#"{"op":"u","after":{"id":1,"name":"b","n":null}}"#, r#"update 0: 1 "b" NULL"#);
    check(
        r#"{"op":"u","before":{"id":1,"name":"a","n":1},"after":{"id":1,"name":"b","n":2}}"#,
        r#"update 0: 1 "b" 2"#,
    );
    check(
        r#"{"op":"u","before":{"id":1,"name":"a","n":1},"after":{"id":7,"name":"b","n":2}}"#,
        r#"delete 0: 1 "a" 1 | insert 1: 7 "b" 2"#,
    );
    // The key alone is known of what is gone, or what it was is not what the contract wants now.
    check(r#"{"op":"d","before":{"id":1}}"#, "delete 0: 1 NULL NULL");
    check(r#"{"op":"d","before":{"id":1,"name":"a","n":"many"}}"#, r#"delete 0: 1 "a" NULL"#);
    check(r#"{"op":"t"}"#, "truncate 0: NULL NULL NULL");
    check(
        r#"{"schema":{"type":"struct"},"payload":{"op":"c","after":{"id":1,"name":"a","n":2}}}"#,
        r#"insert 0: 1 "a" 2"#,
    );
    check("null", "dropped: tombstone");
    check(r#"{"schema":null,"payload":null}"#, "dropped: tombstone");
}

#[test]
fn what_is_not_known_is_put_aside_and_never_guessed() {
    let check = |record: &str, expect: &str| {
        let found = told(&[], record);
        assert!(found.starts_with(expect), "{record}: {found}");
    };
    check(r#"{"op":"u","after":{"id":1,"name":"b"}}"#, "shape: the update does not say column n");
    check(
        r#"{"op":"u","after":{"id":1,"name":"__debezium_unavailable_value","n":1}}"#,
        "shape: the update does not say column name",
    );
    check(r#"{"op":"c","after":{"id":1,"name":null,"n":1}}"#, "missing_value: column name");
    check(r#"{"op":"d","before":{"name":"a"}}"#, "missing_value: column id");
    check(r#"{"op":"d","before":null}"#, "shape: a delete without the row before");
    check(r#"{"op":"u","before":{"id":1}}"#, "shape: a row that is there without the row after");
    check(r#"{"op":"x"}"#, "shape: op \"x\" is none of c, r, u, d, t");
    check(r#"{"id":1}"#, "shape: \"op\" is missing: this is no row change");
    check(r#"{"op":"c","after":5}"#, "shape: record is a number, expected an object");
    check(r#"{"op":"c","op":"d"}"#, "shape: no row change: duplicate field");
    check("[]", "shape: record is an array, expected an object");
    check("{\"op\":\"c\"", "syntax: invalid JSON");
    check("", "syntax: empty record");
}

#[test]
fn a_stream_takes_the_tables_it_names() {
    let of = |source: &str| {
        format!(r#"{{"op":"c","after":{{"id":1,"name":"a","n":2}},"source":{source}}}"#)
    };
    let check = |tables: &[&str], source: &str, expect: &str| {
        assert!(told(tables, &of(source)).starts_with(expect), "{tables:?} {source}");
    };
    let source = r#"{"db":"shop","schema":"public","table":"orders"}"#;
    check(&[], source, "insert");
    check(&["orders"], source, "insert");
    check(&["public.orders"], source, "insert");
    check(&["users", "shop.public.orders"], source, "insert");
    check(&["shop.orders"], source, "insert");
    check(&["other.orders", "users", "rders"], source, "dropped: filtered");
    check(&["shop.orders"], r#"{"db":"shop","table":"orders"}"#, "insert");
    check(&["orders"], r#"{"db":"shop"}"#, "shape: source.table is missing");
}

#[test]
fn the_time_is_that_of_the_source_then_that_of_reading() {
    let time = |record: &str| {
        let refined = refine(contract(&[]), &[block(0, &[record.as_bytes()])]);
        let column = refined.rows.schema().index_of("_event_time").unwrap();
        text(&refined.rows, column, 0)
    };
    let row = r#""op":"c","after":{"id":1,"name":"a","n":2}"#;
    assert_eq!(time(&format!("{{{row},\"ts_ms\":7,\"source\":{{\"ts_ms\":5}}}}")), "5000");
    assert_eq!(time(&format!("{{{row},\"ts_ms\":7}}")), "7000");
    assert_eq!(time(&format!("{{{row}}}")), "NULL");
}

#[test]
fn changes_need_a_key() {
    let columns = vec![("id".to_owned(), "bigint not null".to_owned())];
    let refused = ContractConfig::new(Format::Changes, columns).check().unwrap_err();
    assert!(refused.to_string().starts_with("format changes needs key"), "{refused}");
}
