//! What an operator reads when a dimension is not configured right.

use expect_test::{Expect, expect};

use crate::plan::parse;

const FILE: &str = "[from.file]\npath = \"users.csv\"\nformat = \"csv\"\n";

fn check(text: &str, expected: Expect) {
    let outcome = match parse(text) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.lines().last().unwrap_or_default().to_owned(),
    };
    expected.assert_eq(&outcome);
}

fn with(top: &str, columns: &str, from: &str, expected: Expect) {
    check(&format!("{top}\n[columns]\n{columns}\n{from}"), expected);
}

#[test]
fn the_smallest_is_a_key_a_column_and_a_source() {
    with("key = \"id\"", "id = \"bigint not null\"", FILE, expect!["ok"]);
    let plan = parse(&format!("key = \"id\"\n[columns]\nid = \"int not null\"\n{FILE}")).unwrap();
    assert_eq!((plan.refresh.as_secs(), plan.max_bytes), (10, 256 * 1024 * 1024));
    let query = "[from.sqlite]\npath = \"x\"\nquery = \"select 1\"\n";
    let plan = parse(&format!("key = \"id\"\n[columns]\nid = \"int not null\"\n{query}")).unwrap();
    assert_eq!(plan.refresh.as_secs(), 300);
}

#[test]
fn a_key_names_rows_and_is_never_null_or_a_float() {
    let id = "id = \"bigint not null\"";
    with("key = []", id, FILE, expect!["key: name at least one column"]);
    with(
        "key = \"user\"",
        id,
        FILE,
        expect!["key: key names column user, which the contract does not have"],
    );
    with(
        "key = \"id\"",
        "id = \"bigint\"",
        FILE,
        expect![[r#"key: key column id must be "not null""#]],
    );
    with("key = [\"id\", \"id\"]", id, FILE, expect!["key: column id is named twice"]);
    with(
        "key = \"id\"",
        "id = \"double not null\"",
        FILE,
        expect!["key: column id is a binary float, which is seldom equal to another: use decimal"],
    );
}

#[test]
fn bounds_are_named() {
    let id = "id = \"bigint not null\"";
    with(
        "key = \"id\"\nrefresh = \"10ms\"",
        id,
        FILE,
        expect!["refresh: 10ms is out of bounds: 1s to 86400s"],
    );
    with(
        "key = \"id\"\nmax_bytes = \"1KiB\"",
        id,
        FILE,
        expect!["max_bytes: 1.0 KiB is out of bounds: 64.0 KiB to 1.0 GiB"],
    );
    with(
        "key = \"id\"\nmax_rows = 0",
        id,
        FILE,
        expect!["max_rows: 0 is out of bounds: 1 to 100000000"],
    );
    let slow = "[from.postgres]\nurl = \"postgres://a@b/c\"\nquery = \"select 1\"\nstatement_timeout = \"2h\"\n";
    with(
        "key = \"id\"",
        id,
        slow,
        expect!["from.postgres.statement_timeout: 7200s is out of bounds: 1s to 3600s"],
    );
}

#[test]
fn a_dimension_has_one_source_that_can_be_reached() {
    let id = "id = \"bigint not null\"";
    with(
        "key = \"id\"",
        id,
        "[from]\n",
        expect!["from: no source: add .from.file, .from.postgres, .from.mysql or .from.sqlite"],
    );
    let two = format!("{FILE}[from.sqlite]\npath = \"x\"\nquery = \"select 1\"\n");
    with(
        "key = \"id\"",
        id,
        &two,
        expect!["from: two sources: a dimension has one, make another dimension"],
    );
    let wrong = "[from.mysql]\nurl = \"postgres://a@b/c\"\nquery = \"select 1\"\n";
    with(
        "key = \"id\"",
        id,
        wrong,
        expect![
            "from.mysql: url holds no MySQL address: expected mysql://USER:PASSWORD@HOST:PORT/DATABASE"
        ],
    );
    let json = "[from.file]\npath = \"x\"\nformat = \"json\"\nheader = true\n";
    with(
        "key = \"id\"",
        id,
        json,
        expect!["from.file.header: is for formats csv and tsv: remove it"],
    );
}

#[test]
fn what_stands_in_for_a_missing_row_must_be_there() {
    let columns = "id = \"bigint not null\"\ntier = \"varchar not null\"";
    with(
        "key = \"id\"\nmissing = \"default\"",
        columns,
        FILE,
        expect![[
            r#"missing: "default" needs a default for column tier, which is "not null": tier = { type = "…", default = … }"#
        ]],
    );
    let columns = "id = \"bigint not null\"\ntier = { type = \"varchar not null\", default = \"none\" }\nnote = \"text\"";
    let text = format!("key = \"id\"\nmissing = \"default\"\n[columns]\n{columns}\n{FILE}");
    let plan = parse(&text).unwrap();
    let row = &plan.shape.dimension().default_row;
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray as _;
    assert_eq!(row.num_rows(), 1);
    assert_eq!(row.column(1).as_string::<i32>().value(0), "none");
    assert!(row.column(0).is_null(0) && row.column(2).is_null(0));
}
