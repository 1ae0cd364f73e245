//! A contract from a sample.

use expect_test::{Expect, expect};
use garam_refine::infer::{fit, infer};
use garam_stage::ContractConfig;

fn check(lines: &[&str], fits: u64, expect: Expect) {
    let toml = infer(lines).unwrap();
    expect.assert_eq(&toml);
    let contract = toml::from_str::<ContractConfig>(&toml).unwrap().check().unwrap();
    assert_eq!(fit(&contract, lines).0, fits);
}

#[test]
fn json_is_taken_apart_with_the_narrowest_types() {
    check(
        &[
            r#"{"ts":"2026-11-23T23:24:04Z","user-id":1,"amount":12.50,"ok":true,"ctx":{"a":{"b":{"c":1}},"n":1},"tags":[1],"x":1}"#,
            r#"{"ts":"2026-11-23T23:24:05Z","user-id":2,"amount":3,"ok":null,"ctx":{"a":{"b":{"c":1}},"n":2},"tags":[],"x":"y"}"#,
        ],
        2,
        expect![[r#"
            format = "json"
            time = "ts"
            [columns]
            amount = "decimal(18,2) not null"
            ctx_a_b = { type = "text not null", from = "/ctx/a/b", cast = "json" }
            ctx_n = { type = "bigint not null", from = "/ctx/n" }
            ok = "boolean"
            tags = { type = "text not null", cast = "json" }
            ts = "timestamp not null"
            user_id = { type = "bigint not null", from = "user-id" }
            x = { type = "text not null", cast = "json" }
        "#]],
    );
}

#[test]
fn what_is_an_object_only_at_times_is_kept_whole() {
    check(
        &[r#"{"a":{"b":1}}"#, r#"{"a":5}"#, r#"{"a":{"b":"x"}}"#],
        3,
        expect![[r#"
            format = "json"
            [columns]
            a = { type = "text", cast = "json" }
        "#]],
    );
}

#[test]
fn text_formats_are_told_apart() {
    check(
        &["id,name,at,sum", "1,a,2026-01-01,2.5", "2,,2026-01-02,3"],
        3,
        expect![[r#"
            format = "csv"
            fields = ["id", "name", "at", "sum"]
            header = true
            [columns]
            id = "bigint not null"
            name = "text"
            at = "date not null"
            sum = "decimal(18,1) not null"
        "#]],
    );
    check(
        &[
            "level=info ts=2026-01-01T00:00:00Z n=5",
            "level=warn ts=2026-01-01T00:00:01Z msg=\"a b\" n=6",
        ],
        2,
        expect![[r#"
            format = "logfmt"
            time = "ts"
            [columns]
            level = "text not null"
            ts = "timestamp not null"
            n = "bigint not null"
            msg = "text"
        "#]],
    );
    let access = r#"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.1" 200 2326 "-" "x""#;
    check(
        &[access],
        1,
        expect![[r#"
        format = "combined"
    "#]],
    );
    check(
        &["Oct 11 22:14:15 host su[230]: text"],
        1,
        expect![[r#"
        format = "syslog"
    "#]],
    );
    check(
        &["something happened", "and something else"],
        2,
        expect![[r#"
        format = "line"
    "#]],
    );
    assert_eq!(infer(&["", " "]), None);
}
