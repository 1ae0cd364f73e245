//! `[stream.NAME.contract]`: what it means, and what is said about one that means nothing.

use expect_test::{Expect, expect};
use garam_stage::{Contract, ContractConfig, DropReason, QuarantineReason, system};

fn read(toml: &str) -> Result<Contract, String> {
    let config: ContractConfig =
        toml::from_str(toml).map_err(|error| error.message().to_owned())?;
    // A plan's recipe keeps it as JSON.
    let kept = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ContractConfig>(&kept).unwrap(), config, "{kept}");
    config.check().map_err(|error| error.to_string())
}

/// A contract's schema, or why it is refused.
fn check(toml: &str, expect: Expect) {
    let shown = match read(toml) {
        Ok(contract) => {
            let schema = contract.schema();
            let user = schema.fields().len() - system::ALL.len();
            let line = |field: &arrow_schema::FieldRef| {
                let nullable = if field.is_nullable() { "" } else { " not null" };
                format!("{}: {}{nullable}", field.name(), field.data_type())
            };
            schema.fields().iter().take(user).map(line).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("error: {error}"),
    };
    expect.assert_eq(&shown);
}

#[test]
fn columns_keep_the_order_they_are_written_in() {
    check(
        "format = 'json'\n[columns]\nz = 'int'\na = 'text'\nm = 'BIGINT  NOT NULL'\nb = 'date'",
        expect![[r#"
            z: Int32
            a: Utf8
            m: Int64 not null
            b: Date32
            _rest: Utf8"#]],
    );
}

#[test]
fn every_type_has_its_arrow_form() {
    check(
        "format = 'json'\nunknown = 'drop'\n[columns]\na = 'boolean'\nb = 'smallint'\nc = 'integer'\nd = 'bigint'\ne = 'real'\nf = 'double precision'\ng = 'decimal(18, 2)'\nh = 'numeric(5)'\ni = 'varchar(20) not null'\nj = 'timestamp'\nk = 'varchar'",
        expect![[r#"
            a: Boolean
            b: Int16
            c: Int32
            d: Int64
            e: Float32
            f: Float64
            g: Decimal128(18, 2)
            h: Decimal128(5, 0)
            i: Utf8 not null
            j: Timestamp(µs, "UTC")
            k: Utf8"#]],
    );
}

#[test]
fn lines_need_no_columns() {
    check("format = 'line'", expect!["line: Utf8 not null"]);
    check(
        "format = 'line'\n[columns]\nmessage = 'text not null'",
        expect!["message: Utf8 not null"],
    );
    assert_eq!(read("format = 'line'"), Ok(Contract::lines()));
}

#[test]
fn the_system_columns_follow_in_their_order() {
    let schema = Contract::lines().schema();
    let names: Vec<&str> = schema.fields().iter().skip(1).map(|f| f.name().as_str()).collect();
    assert_eq!(names, system::ALL);
}

#[test]
fn time_and_key_are_taken_over() {
    let toml = "format = 'json'\ntime = 'at'\nkey = ['b', 'a']\n[columns]\na = 'int not null'\nb = 'text not null'\nat = 'timestamp'";
    let contract = read(toml).unwrap();
    assert_eq!(contract.time.as_deref(), Some("at"));
    assert_eq!(contract.key, ["b", "a"]);
    let one = read("format = 'json'\nkey = 'a'\n[columns]\na = 'int not null'").unwrap();
    assert_eq!(one.key, ["a"]);
}

#[test]
fn a_type_nobody_knows_is_named_with_those_there_are() {
    let known = "use boolean, smallint, int, bigint, real, double, decimal(p,s), text, varchar(n), date or timestamp, with \"not null\" behind it where wanted";
    for (kind, shown) in [
        ("money", "money"),
        ("varchar(0)", "varchar(0)"),
        ("varchar(-1)", "varchar(-1)"),
        ("varchar(99999999999)", "varchar(99999999999)"),
        ("int(4)", "int(4)"),
        ("decimal(1,2,3)", "decimal(1,2,3)"),
        ("decimal(5", "decimal(5"),
        ("not null", ""),
        ("", ""),
    ] {
        let error = read(&format!("format = 'json'\n[columns]\na = '{kind}'")).unwrap_err();
        assert_eq!(error, format!("column a: unknown type {shown:?}: {known}"));
    }
}

#[test]
fn decimals_have_bounds() {
    for (precision, scale) in [(0, 0), (39, 0), (5, 6), (300, 2), (38, 300)] {
        let error =
            read(&format!("format = 'json'\n[columns]\na = 'decimal({precision},{scale})'"));
        assert_eq!(
            error.unwrap_err(),
            format!(
                "column a: decimal({precision},{scale}) is out of bounds: 1 to 38 digits, scale 0 to precision"
            )
        );
    }
}

#[test]
fn names_are_usable_in_every_database() {
    let long = "a".repeat(64);
    for name in ["_rest", "1st", "a b", "a-b", "가", "a\\\"b", "", &long] {
        let error = read(&format!("format = 'json'\n[columns]\n\"{name}\" = 'int'")).unwrap_err();
        assert!(error.contains("is not a usable name: letters, digits and _"), "{error}");
    }
    read(&format!("format = 'json'\n[columns]\n{} = 'int'", &long[1..])).unwrap();
    check(
        "format = 'json'\n[columns]\nuserId = 'int'\nuserid = 'int'",
        expect![
            "error: columns userId and userid differ only in case: databases would mix them up"
        ],
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    check(
        "format = 'json'",
        expect!["error: format json needs [columns]: nothing says which fields to keep"],
    );
    check(
        "format = 'line'\n[columns]\na = 'text'",
        expect![[r#"error: format line has exactly one column, of type text, "not null""#]],
    );
    check(
        "format = 'json'\ntime = 'at'\n[columns]\na = 'int'",
        expect!["error: time names column at, which the contract does not have"],
    );
    check(
        "format = 'json'\ntime = 'a'\n[columns]\na = 'int'",
        expect!["error: time column a must be a timestamp"],
    );
    check(
        "format = 'json'\nkey = 'a'\n[columns]\na = 'int'",
        expect![[r#"error: key column a must be "not null""#]],
    );
    check(
        "format = 'json'\nkey = ['a', 'b']\n[columns]\na = 'int not null'",
        expect!["error: key names column b, which the contract does not have"],
    );
}

#[test]
fn unknown_keys_and_values_are_errors() {
    check(
        "format = 'xml'",
        expect![
            "error: unknown variant `xml`, expected one of `line`, `json`, `logfmt`, `csv`, `tsv`, `common`, `combined`, `syslog`, `cri`, `regex`, `grok`, `changes`"
        ],
    );
    check(
        "format = 'line'\ncolumn = 'a'",
        expect![
            "error: unknown field `column`, expected one of `version`, `format`, `time`, `key`, `unknown`, `columns`, `aliases`, `time_format`, `zone`, `time_fallback`, `max_ahead`, `max_behind`, `fields`, `delimiter`, `header`, `pattern`, `patterns`, `tables`"
        ],
    );
    check(
        "format = 'line'\nunknown = 'ignore'",
        expect!["error: unknown variant `ignore`, expected one of `keep`, `drop`, `quarantine`"],
    );
    check("time = 'a'", expect!["error: missing field `format`"]);
}

#[test]
fn the_text_of_a_contract_tells_contracts_apart() {
    let text = |toml: &str| read(toml).unwrap().canonical_text();
    let base = "format = 'json'\n[columns]\na = 'int'\nb = 'int'";
    assert_eq!(text(base), text("format = \"json\"\n[columns]\na = \"INT\"\nb = ' int '"));
    for other in [
        "format = 'json'\n[columns]\nb = 'int'\na = 'int'",
        "format = 'json'\n[columns]\na = 'int'\nb = 'int not null'",
        "format = 'json'\n[columns]\na = 'int'\nb = 'bigint'",
        "format = 'json'\nunknown = 'drop'\n[columns]\na = 'int'\nb = 'int'",
    ] {
        assert_ne!(text(base), text(other), "{other}");
    }
}

/// Metric labels, stored counters and `garam dlq` show these names: they never change.
#[test]
fn names_of_reasons_are_stable() {
    use QuarantineReason::{
        EventTime, MissingValue, Poison, Range, Refused, Shape, Syntax, TooLong, Type, Undecodable,
        UnknownColumn,
    };
    let all = [
        Syntax,
        Shape,
        Type,
        Range,
        MissingValue,
        UnknownColumn,
        EventTime,
        TooLong,
        Undecodable,
        Refused,
        Poison,
    ];
    expect![[r#"
        syntax shape type range missing_value unknown_column event_time too_long undecodable refused poison"#]]
    .assert_eq(&all.map(QuarantineReason::name).join(" "));
    expect!["filtered stale"]
        .assert_eq(&[DropReason::Filtered, DropReason::Stale].map(DropReason::name).join(" "));
}

#[test]
fn a_column_may_be_a_table_of_rules() {
    check(
        "format = 'json'\nunknown = 'drop'\n[columns]\na = 'int'\nb = { type = 'decimal(8,2) not null', from = '/order/price', default = 0, min = 0 }\nc = { type = 'text', constant = 'x' }",
        expect![[r#"
            a: Int32
            b: Decimal128(8, 2) not null
            c: Utf8"#]],
    );
    let one = |rules: &str| {
        let toml = format!("format = 'json'\n[columns]\na = 'int'\nv = {{ {rules} }}");
        read(&toml).unwrap_err()
    };
    let says = |rules: &str, expect: &str| assert_eq!(one(rules), expect, "{rules}");
    says(
        "type = 'int', constant = 1, min = 0",
        "column v: constant stands alone: nothing is read, so nothing is checked",
    );
    says("type = 'text', min = 0", "column v: min or max is for numbers, dates and timestamps");
    says("type = 'int', pattern = 'x'", "column v: pattern is for text and varchar");
    says(
        "type = 'int', cast = 'json'",
        "column v: cast = \"json\" is for a text column of format json",
    );
    says(
        "type = 'int not null', on_breach = 'null'",
        "column v: on_breach = \"null\" contradicts \"not null\"",
    );
    says(
        "type = 'int', on_breach = 'default'",
        "column v: on_breach = \"default\" needs a default",
    );
    says(
        "type = 'int', from = '/a/b'",
        "column v is read from inside of what column a is read from: let only one of them read it",
    );
    says(
        "type = 'int', from = 'a'",
        "field \"a\" is there twice: which one is meant cannot be known",
    );
    assert!(
        one("type = 'int', mim = 0").starts_with("unknown field `mim`, expected one of `type`")
    );
    assert!(one("type = 'date', min = 2026-01-01").contains("dates and times stand in quotes"));
    let deep = "/x".repeat(17);
    says(&format!("type = 'int', from = '{deep}'"), "column v: a pointer has at most 16 segments");
    assert_eq!(
        read("format = 'json'\nmax_ahead = '1h'\n[columns]\na = 'int'"),
        Err("max_ahead needs a time column: say time = \"COLUMN\"".into())
    );
    assert!(read("format = 'json'\n[columns]\na = 5").unwrap_err().contains("a type like"));
}
