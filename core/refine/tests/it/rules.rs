//! What a column has beyond its type: where its value comes from, what stands in for it, what it may be.

use garam_refine::ContractRefiner;
use garam_stage::{ContractConfig, Refiner as _};

use crate::show::{INGEST_US, block, outcome, refine};

fn contract(toml: &str) -> garam_stage::Contract {
    toml::from_str::<ContractConfig>(toml).unwrap().check().unwrap()
}

fn check(toml: &str, cases: &[(&str, &str)]) {
    let contract = contract(toml);
    for (record, expect) in cases {
        assert_eq!(outcome(&contract, record.as_bytes()), *expect, "{record}");
    }
}

/// A json contract with one column.
fn column(rules: &str, cases: &[(&str, &str)]) {
    let toml = format!("format = 'json'\nunknown = 'drop'\n[columns]\nv = {{ {rules} }}");
    let contract = contract(&toml);
    for (value, expect) in cases {
        let record = if value.is_empty() { "{}".into() } else { format!("{{\"v\":{value}}}") };
        assert_eq!(outcome(&contract, record.as_bytes()), *expect, "{rules}: {value}");
    }
}

fn refused(toml: &str) -> String {
    let contract = contract(toml);
    ContractRefiner::new(contract).unwrap_err().to_string()
}

const NESTED: &str = "[columns]\nid = { type = 'bigint not null', from = '/order/id' }\n\
    price = { type = 'decimal(8,2)', from = '/order/sum/amount' }\n\
    first = { type = 'text', from = ['/items/0/sku', 'sku'] }";

#[test]
fn columns_are_read_from_inside_of_nested_objects() {
    check(
        &format!("format = 'json'\n{NESTED}"),
        &[
            (
                r#"{"order":{"id":1,"sum":{"amount":2.5}},"items":[{"sku":"a"}]}"#,
                r#"1 | 2.50 | "a" | NULL"#,
            ),
            (r#"{"order":{"id":1,"sum":null},"sku":"b"}"#, r#"1 | NULL | "b" | NULL"#),
            (r#"{"order":{"\u0069d":1},"items":[]}"#, "1 | NULL | NULL | NULL"),
            // What holds more than the columns is kept whole.
            (
                r#"{"order":{"id":1,"x":[1]},"items":[{"sku":"a"},2]}"#,
                r#"1 | NULL | "a" | "{\"order\":{\"id\":1,\"x\":[1]},\"items\":[{\"sku\":\"a\"},2]}""#,
            ),
            (r#"{"id":7}"#, "missing_value: column id: expected bigint not null, found no value"),
            (r#"{"order":5}"#, r#"shape: member "order" is a number, expected an object"#),
            (
                r#"{"order":{"id":1,"sum":"x"}}"#,
                r#"shape: member "sum" is a string, expected an object"#,
            ),
            (r#"{"order":{"id":1,"id":2}}"#, r#"shape: member "id" occurs twice"#),
            (
                r#"{"order":{"id":1},"sku":"b","items":[{"sku":"a"}]}"#,
                r#"shape: member "first" occurs twice"#,
            ),
            (r#"{"order":{"id":"x"}}"#, r#"type: column id: expected bigint, found "x""#),
        ],
    );
    let deep = format!("{{\"order\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let whole = contract(&format!("format = 'json'\nunknown = 'drop'\n{NESTED}"));
    assert!(outcome(&whole, deep.as_bytes()).starts_with("missing_value: column id"));
}

#[test]
fn unknown_members_of_nested_objects_follow_the_policy() {
    check(
        &format!("format = 'json'\nunknown = 'quarantine'\n{NESTED}"),
        &[(
            r#"{"order":{"id":1,"x":2}}"#,
            r#"unknown_column: member "order/x" is no column of the contract"#,
        )],
    );
    check(
        &format!("format = 'json'\nunknown = 'drop'\n{NESTED}"),
        &[(r#"{"order":{"id":1,"x":2},"id":"y"}"#, "1 | NULL | NULL")],
    );
}

#[test]
fn a_lenient_cast_takes_what_means_the_same() {
    column(
        "type = 'bigint', cast = 'lenient'",
        &[
            ("1.0", "1"),
            ("1e3", "1000"),
            ("\" +42 \"", "42"),
            ("\"\"", "type: column v: expected bigint, found \"\""),
            (
                "1.5",
                "range: column v: expected bigint, found 1.5: it is no whole number, or out of bounds",
            ),
            (
                "9223372036854775808",
                "range: column v: expected bigint, found 9223372036854775808: it is out of bounds",
            ),
            ("true", "type: column v: expected bigint, found true"),
            ("[1]", "type: column v: expected bigint, found an array"),
            ("\"+-1\"", "type: column v: expected bigint, found \"+-1\""),
        ],
    );
    column(
        "type = 'boolean', cast = 'lenient'",
        &[
            ("\"Yes\"", "true"),
            ("0", "false"),
            ("true", "true"),
            ("2", "type: column v: expected boolean, found 2"),
        ],
    );
    column(
        "type = 'varchar(4)', cast = 'lenient'",
        &[
            ("12.0", "\"12.0\""),
            ("true", "\"true\""),
            ("12345", "range: column v: expected varchar(4), found 12345: it is too long"),
        ],
    );
    column(
        "type = 'decimal(8,2)', cast = 'lenient'",
        &[
            ("\" 2.50 \"", "2.50"),
            ("\"2,5\"", "type: column v: expected decimal(8,2), found \"2,5\""),
        ],
    );
    column("type = 'timestamp', cast = 'lenient'", &[("\"1795476244.5\"", "1795476244500000")]);
    column(
        "type = 'text', cast = 'json'",
        &[(r#"{"a": [1]}"#, r#""{\"a\": [1]}""#), ("\"x\"", r#""\"x\"""#), ("null", "NULL")],
    );
    check(
        "format = 'logfmt'\nunknown = 'drop'\n[columns]\nn = { type = 'int', cast = 'lenient' }\nb = { type = 'boolean', cast = 'lenient' }",
        &[
            ("n=\" 7.0\" b=off", "7 | false"),
            (
                "n=7.5 b=off",
                "range: column n: expected int, found 7.5: it is no whole number, or out of bounds",
            ),
        ],
    );
}

#[test]
fn a_default_stands_in_for_nothing_and_a_constant_for_everything() {
    column(
        "type = 'decimal(8,2) not null', default = 0.1",
        &[
            ("", "0.10"),
            ("null", "0.10"),
            ("2", "2.00"),
            ("\"x\"", "type: column v: expected decimal(8,2), found \"x\""),
        ],
    );
    check(
        "format = 'json'\n[columns]\nsite = { type = 'text not null', constant = 'seoul' }\nn = 'int'",
        &[
            (r#"{"n":1}"#, r#""seoul" | 1 | NULL"#),
            (r#"{"n":1,"site":"busan"}"#, r#""seoul" | 1 | "{\"site\":\"busan\"}""#),
        ],
    );
    check(
        "format = 'csv'\nunknown = 'drop'\n[columns]\nsite = { type = 'text', constant = 'x' }\nid = { type = 'int', from = 'nr' }\nn = { type = 'int not null', default = 7 }",
        &[("1,", r#""x" | 1 | 7"#), ("1", "shape: 1 cells, expected 2")],
    );
}

#[test]
fn ranges_patterns_and_sets_name_what_was_expected() {
    column(
        "type = 'int', min = 0, max = 100",
        &[
            ("0", "0"),
            ("100", "100"),
            ("null", "NULL"),
            ("-1", "range: column v: expected at least 0, found -1"),
            ("101", "range: column v: expected at most 100, found 101"),
        ],
    );
    column(
        "type = 'decimal(8,2)', min = '-0.05'",
        &[("-0.05", "-0.05"), ("-0.06", "range: column v: expected at least -0.05, found -0.06")],
    );
    column(
        "type = 'date', max = '2026-12-31'",
        &[("\"2027-01-01\"", "range: column v: expected at most 2026-12-31, found 2027-01-01")],
    );
    column(
        "type = 'timestamp', min = '2026-01-01T00:00:00Z'",
        &[(
            "0",
            "range: column v: expected at least 2026-01-01T00:00:00Z, found 1970-01-01T00:00:00Z",
        )],
    );
    column(
        "type = 'text', pattern = '^[A-Z]{2}$'",
        &[
            ("\"KR\"", "\"KR\""),
            ("\"kr\"", "pattern: column v: expected text like ^[A-Z]{2}$, found \"kr\""),
        ],
    );
    column(
        "type = 'varchar(9)', one_of = ['new', 'done']",
        &[
            ("\"new\"", "\"new\""),
            ("\"old\"", "not_allowed: column v: expected one of \"done\", \"new\", found \"old\""),
        ],
    );
    column(
        "type = 'smallint', one_of = [2, 1]",
        &[("2", "2"), ("3", "not_allowed: column v: expected one of 1, 2, found 3")],
    );
}

#[test]
fn a_breach_may_be_mended_and_the_text_is_kept() {
    let toml = "format = 'json'\n[columns]\nid = 'int not null'\n\
        age = { type = 'smallint', min = 0, on_breach = 'null' }\n\
        tier = { type = 'text not null', one_of = ['a', 'b'], default = 'a', on_breach = 'default' }";
    check(
        toml,
        &[
            (r#"{"id":1,"age":5,"tier":"b"}"#, r#"1 | 5 | "b" | NULL"#),
            (r#"{"id":1,"age":-5}"#, r#"1 | NULL | "a" | "{\"age\":-5}""#),
            (r#"{"id":1,"age":"x","tier":3}"#, r#"1 | NULL | "a" | "{\"age\":\"x\",\"tier\":3}""#),
            (r#"{"id":"x","age":-5}"#, r#"type: column id: expected int, found "x""#),
        ],
    );
    check(
        "format = 'logfmt'\n[columns]\nn = { type = 'int', on_breach = 'null' }",
        &[("n=x y=1", r#"NULL | "{\"y\":\"1\",\"n\":\"x\"}""#)],
    );
    let refiner = ContractRefiner::new(contract(toml)).unwrap();
    let records: [&[u8]; 3] = [br#"{"id":1,"age":-5}"#, br#"{"id":2}"#, br#"{"id":"x","age":-5}"#];
    refiner.refine(&[block(0, &records)]).unwrap();
    assert_eq!(refiner.replaced(), 1, "a default for nothing and a bad record replace nothing");
}

#[test]
fn the_event_time_has_bounds_and_a_fallback() {
    let at = |seconds: i64| format!("{{\"ts\":{}}}", INGEST_US / 1_000_000 + seconds);
    let bounds =
        "format = 'json'\nunknown = 'drop'\ntime = 'ts'\nmax_ahead = '1m'\nmax_behind = '1h'\n";
    let strict = contract(&format!("{bounds}[columns]\nts = 'timestamp not null'"));
    let shown = |contract, record: &str| outcome(contract, record.as_bytes());
    assert!(shown(&strict, &at(60)).contains("event="));
    assert!(shown(&strict, &at(-3600)).contains("event="));
    assert_eq!(
        shown(&strict, &at(61)),
        "event_time: column ts: 2026-11-23T23:25:05Z lies 61 s after the arrival at the gateway, max_ahead is 60 s"
    );
    assert_eq!(
        shown(&strict, &at(-3601)),
        "event_time: column ts: 2026-11-23T22:24:03Z lies 3601 s before the arrival at the gateway, max_behind is 3600 s"
    );
    let lax = format!("{bounds}time_fallback = 'ingest'\n[columns]\nts = 'timestamp not null'");
    let lax = contract(&lax);
    let fallen_back = format!("{INGEST_US} | event={INGEST_US}");
    for record in [&at(61), &at(-3601), "{}", r#"{"ts":null}"#, r#"{"ts":"soon"}"#] {
        assert_eq!(shown(&lax, record), fallen_back, "{record}");
    }
    let rows = refine(lax, &[block(0, &[at(1).as_bytes()])]).rows;
    assert_eq!(rows.num_rows(), 1);
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let one = |rules: &str| refused(&format!("format = 'json'\n[columns]\nv = {{ {rules} }}"));
    assert_eq!(
        one("type = 'int', min = 'x'"),
        "column v: its min does not fit: column v: expected int, found x"
    );
    assert_eq!(
        one("type = 'int', max = 5, default = 6"),
        "column v: its default does not fit: column v: expected at most 5, found 6"
    );
    assert!(
        one("type = 'text', pattern = '('").starts_with("column v: its pattern cannot be read:")
    );
}
