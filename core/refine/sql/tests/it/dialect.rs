//! What docs/sql.md says of the dialect is so.

use crate::world::{plan, refine, texts};

#[test]
fn what_is_written_down_can_be_planned() {
    let expressions = [
        "abs(n)",
        "ceil(share)",
        "floor(share)",
        "round(share, 1)",
        "sqrt(share)",
        "power(share, 2)",
        "ln(share)",
        "log10(share)",
        "exp(share)",
        "greatest(n, 1)",
        "least(n, 1)",
        "nullif(n, 0)",
        "coalesce(n, 0)",
        "nvl(n, 0)",
        "lower(name)",
        "upper(name)",
        "trim(name)",
        "ltrim(name)",
        "rtrim(name)",
        "concat(name, note)",
        "concat_ws('-', name, note)",
        "substring(name, 1, 2)",
        "replace(name, 'a', 'b')",
        "translate(name, 'a', 'b')",
        "split_part(name, ',', 1)",
        "lpad(name, 3, ' ')",
        "rpad(name, 3, ' ')",
        "left(name, 2)",
        "right(name, 2)",
        "length(name)",
        "reverse(name)",
        "repeat(name, 2)",
        "initcap(name)",
        "levenshtein(name, note)",
        "ascii(name)",
        "chr(n)",
        "regexp_like(name, 'a')",
        "regexp_replace(name, 'a', 'b')",
        "regexp_extract(name, '(a)', 1)",
        "date_trunc('hour', at)",
        "date_part('year', at)",
        "extract(year from at)",
        "to_timestamp(name)",
        "to_date(name)",
        "make_date(2026, n, 1)",
        "get_json_object(_rest, '$.a')",
        "sha2(name, 256)",
        "try_cast(name as int)",
        "cast(n as string)",
        "cast(name as decimal(10, 2))",
        "n % 2",
        "name || note",
        "name ~ 'a'",
        "name ilike 'a%'",
        "starts_with(name, 'a')",
        "strpos(name, 'a')",
        "case n when 1 then 'a' else 'b' end",
    ];
    for expression in expressions {
        let planned = plan(&format!("select id, {expression} as v from input"));
        assert!(planned.is_ok(), "{expression}: {}", planned.unwrap_err());
    }
}

#[test]
fn where_it_differs_from_spark_it_does_so_as_written() {
    let check = |expression: &str, expected: &str| {
        let refined = refine(
            &format!("select {expression} as v from input"),
            &[r#"{"id":7,"name":"aba","at":"2026-11-22T00:00:00Z"}"#],
        );
        assert_eq!(texts(&refined.rows), [expected], "{expression}");
    };
    check("id / 2", "3");
    check("name || note", "null");
    check("concat(name, note)", "aba");
    check("regexp_replace(name, 'a', '_')", "_ba");
    check("regexp_replace(name, 'a', '_', 'g')", "_b_");
    check("substring(name, 0, 2)", "a");
    check("date_part('dow', at)", "0");
    check("cast(share as text)", "null");
    check("try_cast(name as int)", "null");
    check("0.1 + 0.2", "0.3");
}
