//! Format `json`: every type, every reason, every policy, as tables of input and outcome.

use garam_stage::UnknownColumns::{Drop, Keep, Quarantine};

use crate::show::{contract, outcome};

/// One column `v` of this type; each input is the text of the member's value.
fn check(kind: &str, cases: &[(&str, &str)]) {
    let contract = contract(&[("v", kind)], Drop);
    for (value, expect) in cases {
        let record = format!("{{\"v\":{value}}}");
        assert_eq!(outcome(&contract, record.as_bytes()), *expect, "{kind}: {value}");
    }
}

#[test]
fn booleans_are_true_and_false_only() {
    check(
        "boolean",
        &[
            ("true", "true"),
            ("false", "false"),
            ("null", "NULL"),
            ("1", "type: column v: expected boolean, found 1"),
            ("\"true\"", "type: column v: expected boolean, found \"true\""),
        ],
    );
}

#[test]
fn integers_come_from_integral_numbers_inside_their_bounds() {
    check(
        "smallint",
        &[
            ("32767", "32767"),
            ("-32768", "-32768"),
            ("32768", "range: column v: expected smallint, found 32768: it is out of bounds"),
        ],
    );
    check(
        "int",
        &[
            ("-2147483648", "-2147483648"),
            ("2147483648", "range: column v: expected int, found 2147483648: it is out of bounds"),
        ],
    );
    check(
        "bigint",
        &[
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-0", "0"),
            (
                "9223372036854775808",
                "range: column v: expected bigint, found 9223372036854775808: it is out of bounds",
            ),
            ("1.0", "type: column v: expected bigint, found 1.0"),
            ("1e3", "type: column v: expected bigint, found 1e3"),
            ("\"1\"", "type: column v: expected bigint, found \"1\""),
            ("[1]", "type: column v: expected bigint, found an array"),
            ("{\"a\":1}", "type: column v: expected bigint, found an object"),
        ],
    );
}

#[test]
fn floats_round_but_never_overflow() {
    check(
        "double",
        &[
            ("0.1", "0.1"),
            ("1", "1"),
            ("-1.5e300", &format!("{}", -1.5e300)),
            ("1e400", "range: column v: expected double, found 1e400: it is out of bounds"),
            ("\"NaN\"", "type: column v: expected double, found \"NaN\""),
        ],
    );
    check(
        "real",
        &[
            ("0.5", "0.5"),
            ("1e39", "range: column v: expected real, found 1e39: it is out of bounds"),
        ],
    );
}

#[test]
fn decimals_are_exact_or_refused() {
    check(
        "decimal(10,2)",
        &[
            ("12.5", "12.50"),
            ("\"12.50\"", "12.50"),
            ("-0.01", "-0.01"),
            ("1e2", "100.00"),
            ("99999999.99", "99999999.99"),
            ("0.1e1", "1.00"),
            (
                "12.505",
                "range: column v: expected decimal(10,2), found 12.505: it has too many digits",
            ),
            (
                "100000000",
                "range: column v: expected decimal(10,2), found 100000000: it has too many digits",
            ),
            ("\"12,50\"", "type: column v: expected decimal(10,2), found \"12,50\""),
            ("\"\"", "type: column v: expected decimal(10,2), found \"\""),
            ("true", "type: column v: expected decimal(10,2), found true"),
        ],
    );
    // Not representable as a binary float: proof that none is in between.
    check(
        "decimal(38,0)",
        &[("12345678901234567890123456789012345678", "12345678901234567890123456789012345678")],
    );
}

#[test]
fn text_comes_from_strings_with_their_escapes_resolved() {
    check(
        "text",
        &[
            ("\"plain\"", "\"plain\""),
            ("\"\"", "\"\""),
            (r#""tab\tquote\"\u00e9\ud83d\ude00""#, "\"tab\\tquote\\\"é😀\""),
            ("1", "type: column v: expected text, found 1"),
            ("{}", "type: column v: expected text, found an object"),
            (
                r#""\ud800""#,
                r#"syntax: column v: expected text, found "\ud800": it has an escape that stands for no character"#,
            ),
            (r#""a\u0000b""#, r#"syntax: column v: expected text, found "a\u0000b": NUL byte"#),
        ],
    );
}

#[test]
fn varchar_counts_characters_not_bytes() {
    check(
        "varchar(3)",
        &[
            ("\"가나다\"", "\"가나다\""),
            (r#""\u0061bc""#, "\"abc\""),
            ("\"abcd\"", "range: column v: expected varchar(3), found \"abcd\": it is too long"),
        ],
    );
}

#[test]
fn dates_are_days() {
    check(
        "date",
        &[
            ("\"1970-01-02\"", "1"),
            (
                "\"2026-02-30\"",
                "range: column v: expected date, found \"2026-02-30\": there is no such time",
            ),
            (
                "\"2026-02-03T00:00:00Z\"",
                "type: column v: expected date, found \"2026-02-03T00:00:00Z\"",
            ),
            ("20260203", "type: column v: expected date, found 20260203"),
        ],
    );
}

#[test]
fn timestamps_come_from_text_and_from_epoch_numbers() {
    check(
        "timestamp",
        &[
            ("\"2026-11-23T23:24:04.123456Z\"", "1795476244123456"),
            ("\"2026-11-24T08:24:04.123456+09:00\"", "1795476244123456"),
            ("\"2026-11-23 23:24:04.123456\"", "1795476244123456"),
            ("1795476244", "1795476244000000"),
            ("1795476244123", "1795476244123000"),
            ("1795476244123456", "1795476244123456"),
            ("1795476244.5", "type: column v: expected timestamp, found 1795476244.5"),
            (
                "1795476244123456789",
                "range: column v: expected timestamp, found 1795476244123456789: there is no such time",
            ),
            ("\"23/Nov/2026\"", "type: column v: expected timestamp, found \"23/Nov/2026\""),
        ],
    );
}

#[test]
fn the_time_column_fills_event_time_and_has_a_reason_of_its_own() {
    let contract = contract(&[("ts", "timestamp"), ("n", "int")], Drop);
    let check = |record: &str, expect: &str| {
        assert_eq!(outcome(&contract, record.as_bytes()), expect, "{record}");
    };
    check(r#"{"ts":1,"n":2}"#, "1000000 | 2 | event=1000000");
    check(r#"{"n":2}"#, "NULL | 2 | event=NULL");
    check(r#"{"ts":"soon","n":2}"#, "event_time: column ts: expected timestamp, found \"soon\"");
}

#[test]
fn not_null_columns_need_a_value() {
    check(
        "int not null",
        &[("null", "missing_value: column v: expected int not null, found null"), ("0", "0")],
    );
    let contract = contract(&[("v", "int not null")], Drop);
    assert_eq!(
        outcome(&contract, b"{}"),
        "missing_value: column v: expected int not null, found no value"
    );
}

#[test]
fn unknown_members_follow_the_policy() {
    let record = br#"{ "x" : {"deep": [1, 2]}, "v": 1, "q\"\u000a" : "\ud800" }"#;
    let columns = [("v", "int")];
    let check = |unknown, record: &[u8], expect: &str| {
        assert_eq!(outcome(&contract(&columns, unknown), record), expect);
    };
    let rest = r#"{"x":{"deep": [1, 2]},"q\"\n":"\ud800"}"#;
    check(Keep, record, &format!("1 | {rest:?}"));
    check(Keep, br#"{"v":1}"#, "1 | NULL");
    check(Drop, record, "1");
    check(Quarantine, record, "unknown_column: member \"x\" is no column of the contract");
    check(Quarantine, br#"{"v":1}"#, "1");
}

#[test]
fn a_member_that_occurs_twice_is_put_aside() {
    let columns = [("v", "int")];
    let check = |unknown, record: &[u8], expect: &str| {
        assert_eq!(outcome(&contract(&columns, unknown), record), expect);
    };
    check(Keep, br#"{"v":1,"v":1}"#, "shape: member \"v\" occurs twice");
    check(Keep, br#"{"v":null,"\u0076":2}"#, "shape: member \"v\" occurs twice");
    check(Keep, br#"{"v":1,"x":1,"y":2,"x":3}"#, "shape: member \"x\" occurs twice");
    check(Keep, br#"{"v":1,"x":1,"\u0078":3}"#, "shape: member \"x\" occurs twice");
    check(Drop, br#"{"v":1,"x":1,"x":3}"#, "1");
}

#[test]
fn what_is_no_json_object_is_put_aside_by_cause() {
    let contract = contract(&[("v", "int")], Keep);
    let check = |record: &[u8], expect: &str| {
        assert_eq!(outcome(&contract, record), expect, "{}", String::from_utf8_lossy(record));
    };
    check(b"", "syntax: empty record, expected a JSON object");
    check(b" \r", "syntax: empty record, expected a JSON object");
    check(b"[1]", "shape: record is an array, expected an object");
    check(b"\"v\"", "shape: record is a string, expected an object");
    check(b"null", "shape: record is null, expected an object");
    check(b"12", "shape: record is a number, expected an object");
    check(b"[1", "syntax: invalid JSON: EOF while parsing a list at line 1 column 2");
    check(b"{\"v\":1", "syntax: invalid JSON: EOF while parsing an object at line 1 column 6");
    check(b"{\"v\":1} {}", "syntax: invalid JSON: trailing characters at line 1 column 9");
    check(b"{\"v\":01}", "syntax: invalid JSON: invalid number at line 1 column 7");
    check(b"{\"v\":1,\"x\":tru}", "syntax: invalid JSON: expected ident at line 1 column 15");
    check(b"{\"v\":\0}", "syntax: NUL byte");
    check(b"{\"v\":\xff}", "syntax: invalid UTF-8 at byte 5");
    check(b"{\"v\":1}\r", "1 | NULL");
}

#[test]
fn deep_nesting_costs_no_stack() {
    let deep = format!("{{\"v\":1,\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let kept = outcome(&contract(&[("v", "int")], Keep), deep.as_bytes());
    assert!(kept.starts_with("1 | \"{\\\"x\\\":[[["), "{}", kept.get(..80).unwrap_or(&kept));
    assert_eq!(outcome(&contract(&[("v", "int")], Drop), deep.as_bytes()), "1");
}

#[test]
fn details_are_short_and_harmless_on_a_terminal() {
    let contract = contract(&[("v", "int")], Quarantine);
    let long = format!("{{\"v\":\"{}\"}}", "x".repeat(10_000));
    let detail = outcome(&contract, long.as_bytes());
    assert_eq!(
        detail,
        format!("type: column v: expected int, found \"{}… (10002 bytes)", "x".repeat(63))
    );
    assert_eq!(
        outcome(&contract, b"{\"v\":\"\x7f\xc2\x9b31m\"}"),
        "type: column v: expected int, found \"\\u{7f}\\u{9b}31m\""
    );
    assert_eq!(
        outcome(&contract, br#"{"\u001b[2J":1}"#),
        r#"unknown_column: member "\\u{1b}[2J" is no column of the contract"#
    );
}
