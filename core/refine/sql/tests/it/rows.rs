use arrow_array::cast::AsArray as _;
use garam_stage::{DropReason, Refiner as _, system};

use crate::world::{block, columns, contract, refine, texts};

#[track_caller]
fn check(sql: &str, records: &[&str], expected: &[&str]) {
    let refined = refine(sql, records);
    assert!(refined.bad.is_empty(), "{:?}", refined.bad);
    assert_eq!(texts(&refined.rows), expected, "{sql}");
}

const THREE: [&str; 3] = [
    r#"{"id":1,"name":"Ada","amount":"10.50","n":4,"at":"2026-11-23T23:24:04Z","extra":{"a":[7]}}"#,
    r#"{"id":2,"name":"Bo","amount":"0.10","n":0,"note":"x"}"#,
    r#"{"id":3,"n":-7,"is_new":true,"share":0.5}"#,
];

#[test]
fn rows_are_filtered_and_computed() {
    check("select id, upper(name) as name from input where n >= 0", &THREE, &["1|ADA", "2|BO"]);
    check(
        "select id, amount * 2 as twice from input where amount is not null",
        &THREE,
        &["1|21.00", "2|0.20"],
    );
    check(
        "select case when n > 0 then 'more' when n = 0 then 'none' else 'less' end as how from input",
        &THREE,
        &["more", "none", "less"],
    );
    check(
        "select t.i as i from (select id + 1 as i, n from input where n <> 0) t where t.i > 2",
        &THREE,
        &["4"],
    );
    check("with t as (select id, n from input) select id from t where n < 0", &THREE, &["3"]);
    check("select id from input where name like 'A%' or is_new", &THREE, &["1", "3"]);
    check("select id from input where n between -10 and 0 and id in (2, 3)", &THREE, &["2", "3"]);
    check(
        "select cast(n as text) || '!' as t, coalesce(name, '?') as name from input",
        &THREE,
        &["4!|Ada", "0!|Bo", "-7!|?"],
    );
}

#[test]
fn personal_data_is_masked_and_hashed() {
    let hash = "5e8ff9bf55ba3508199d22e984129be6d5a8d4d7c4f6d6bd4b3a8d9a9a1a0d3a";
    let refined = refine(
        "select mask(name, 1) as m, sha256(name) as h, sha2(name, 256) as h2 from input",
        &THREE,
    );
    let rows = texts(&refined.rows);
    let cells: Vec<Vec<&str>> = rows.iter().map(|row| row.split('|').collect()).collect();
    assert_eq!((cells[0][0], cells[1][0], cells[2][0]), ("**a", "*o", "null"));
    assert_eq!(cells[0][1].len(), hash.len());
    assert!(cells.iter().all(|row| row[1] == row[2]));
}

#[test]
fn values_come_out_of_json_and_of_patterns() {
    check(
        "select get_json_object(_rest, '$.extra.a[0]') as a from input",
        &THREE,
        &["7", "null", "null"],
    );
    check(
        "select regexp_extract(name, '^(.)(.*)$', 2) as r, regexp_replace(name, '[aeiou]', '_', 'g') as p from input where name is not null",
        &THREE,
        &["da|Ad_", "o|B_"],
    );
    check(
        "select regexp_like(name, '^A') as is_a from input where name is not null",
        &THREE,
        &["true", "false"],
    );
}

#[test]
fn the_result_has_types_and_nulls_as_a_contract_has() {
    assert_eq!(
        columns(
            "select id, name, length(name) as len, amount * 1.5 as more, n / 2 as half, at, day, date_trunc('hour', at) as hour, coalesce(n, 0) as m from input"
        ),
        [
            "id Int64!",
            "name Utf8",
            "len Int32",
            "more Decimal128(13, 3)",
            "half Int64",
            "at Timestamp(µs, \"UTC\")",
            "day Date32",
            "hour Timestamp(µs, \"UTC\")",
            "m Int64!",
        ]
    );
    assert_eq!(
        columns("select name, n from input where name is not null and n > 3"),
        ["name Utf8!", "n Int32!"]
    );
    assert_eq!(
        columns("select cast('2026-01-02 03:04:05' as timestamp) as t from input"),
        ["t Timestamp(µs, \"UTC\")!"]
    );
}

#[test]
fn garams_own_columns_come_with_every_row_whatever_is_selected() {
    let all = contract().refine(&[block(&THREE)]).unwrap();
    for sql in [
        "select id from input where id <> 2",
        "select id, _host, _position from input where id <> 2",
        "select * from input where id <> 2",
    ] {
        let refined = refine(sql, &THREE);
        for name in system::ALL {
            let found = refined.rows.column_by_name(name).unwrap();
            let whole = all.rows.column_by_name(name).unwrap();
            for (row, source) in [(0, 0), (1, 2)] {
                assert_eq!(
                    found.slice(row, 1).as_ref(),
                    whole.slice(source, 1).as_ref(),
                    "{sql}: {name}"
                );
            }
        }
        let names: Vec<_> =
            refined.rows.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert!(names.ends_with(&system::ALL.map(str::to_owned)), "{names:?}");
    }
    let refined = refine("select * from input", &THREE);
    assert_eq!(refined.rows, all.rows);
    check("select _host as host, id from input where id = 1", &THREE, &["sample|1"]);
}

#[test]
fn filtered_rows_are_dropped_and_the_others_keep_their_record() {
    let refined = refine("select id from input where n <> 0", &THREE);
    assert_eq!(refined.sources.iter().map(|at| at.index).collect::<Vec<_>>(), [0, 2]);
    let dropped: Vec<_> = refined.dropped.iter().map(|(at, why)| (at.index, *why)).collect();
    assert_eq!(dropped, [(1, DropReason::Filtered)]);
    let none = refine("select id, name from input where id > 9", &THREE);
    assert_eq!((none.rows.num_rows(), none.sources.len(), none.dropped.len()), (0, 0, 3));
    assert_eq!(
        none.rows.schema(),
        crate::world::plan("select id, name from input").unwrap().schema()
    );
    assert_eq!(refine("select id from input", &[]).rows.num_rows(), 0);
}

/// Which records are put aside and how it is told; the others have to become rows.
#[track_caller]
fn put_aside(sql: &str, records: &[&str], expected: &[(u32, &str)]) {
    let refined = refine(sql, records);
    let found: Vec<_> = refined.bad.iter().map(|bad| (bad.at.index, bad.detail.as_str())).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((index, detail), (at, part)) in found.iter().zip(expected) {
        assert!(index == at && detail.contains(part), "{index}: {detail}, not {at}: {part}");
    }
    assert!(refined.bad.iter().all(|bad| bad.reason.name() == "sql"));
    assert_eq!(refined.rows.num_rows() + expected.len(), records.len());
}

#[test]
fn a_record_that_fails_is_put_aside_alone_and_told() {
    let names = [
        r#"{"id":1,"name":"7"}"#,
        r#"{"id":2,"name":"abc"}"#,
        r#"{"id":3}"#,
        r#"{"id":4,"name":"9"}"#,
    ];
    put_aside(
        "select cast(name as int) as v from input",
        &names,
        &[(1, "column v: Cannot cast string 'abc' to value of Int32 type")],
    );
    let divisors = [r#"{"id":1,"n":2}"#, r#"{"id":2,"n":0}"#, r#"{"id":3,"n":0}"#];
    put_aside(
        "select id / n as v from input",
        &divisors,
        &[(1, "column v: Divide by zero"), (2, "Divide by zero")],
    );
    let large = [r#"{"id":9223372036854775807}"#, r#"{"id":1}"#];
    put_aside("select id + 1 as v from input", &large, &[(0, "column v: Overflow")]);
    let money = [r#"{"id":1,"amount":"99999999.99"}"#, r#"{"id":2,"amount":"1.00"}"#];
    put_aside("select cast(amount as decimal(5,2)) as v from input", &money, &[(0, "column v: ")]);
}

#[test]
fn a_filter_guards_what_is_computed_behind_it() {
    let records = [r#"{"id":10,"n":0}"#, r#"{"id":10,"n":3}"#, r#"{"id":10}"#];
    let refined = refine("select id / n as v from input where n <> 0 and id / n > 1", &records);
    assert_eq!((texts(&refined.rows), refined.bad.len()), (vec!["3".to_owned()], 0));
    let refined =
        refine("select case when n <> 0 then id / n else 0 end as v from input", &records);
    assert_eq!((texts(&refined.rows).join(","), refined.bad.len()), ("0,3,0".to_owned(), 0));
    let refined = refine("select id from input where id / n > 1", &records);
    assert!(refined.bad[0].detail.starts_with("where: Divide by zero"), "{:?}", refined.bad);
    assert_eq!((refined.rows.num_rows(), refined.dropped.len()), (1, 1));
}

#[test]
fn records_that_break_the_contract_never_reach_the_sql() {
    let records = [r#"{"id":"x"}"#, r#"{"id":2,"name":"abc"}"#, r#"{"id":3}"#];
    let refined = refine("select cast(name as int) as v from input", &records);
    let reasons: Vec<_> = refined.bad.iter().map(|bad| (bad.at.index, bad.reason.name())).collect();
    assert_eq!(reasons, [(0, "type"), (1, "sql")]);
    assert_eq!(refined.rows.column(0).as_primitive::<arrow_array::types::Int32Type>().len(), 1);
}

#[test]
fn a_text_keeps_its_length_where_it_is_untouched() {
    let length = |sql: &str| {
        let schema = crate::world::plan(sql).unwrap().schema();
        schema.field_with_name("v").unwrap().metadata().values().next().cloned()
    };
    assert_eq!(length("select note as v from input").as_deref(), Some("20"));
    assert_eq!(
        length("select t.n as v from (select note as n from input where id > 0) t").as_deref(),
        Some("20")
    );
    assert_eq!(length("select note || name as v from input"), None);
}
