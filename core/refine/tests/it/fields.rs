//! The text formats: tables of records and what becomes of them.

use garam_refine::ContractRefiner;
use garam_stage::ContractConfig;
use proptest::prelude::*;

use crate::show::{block, outcome, refine};

fn contract(toml: &str) -> garam_stage::Contract {
    toml::from_str::<ContractConfig>(toml).unwrap().check().unwrap()
}

fn check(toml: &str, cases: &[(&str, &str)]) {
    let contract = contract(toml);
    for (record, expect) in cases {
        assert_eq!(outcome(&contract, record.as_bytes()), *expect, "{record}");
    }
}

#[test]
fn logfmt_has_bare_and_quoted_values() {
    check(
        "format = 'logfmt'\n[columns]\nlevel = 'text not null'\nmsg = 'text'\nn = 'bigint'\ndone = 'boolean'",
        &[
            (
                r#"level=info msg="it said \"hi\"\n" n=42 done"#,
                r#""info" | "it said \"hi\"\n" | 42 | true | NULL"#,
            ),
            ("level=info  msg= n=\r", r#""info" | NULL | NULL | NULL | NULL"#),
            (
                r#"level=info msg="" x=1 y="a\"b" z"#,
                r#""info" | "" | NULL | NULL | "{\"x\":\"1\",\"y\":\"a\\\"b\",\"z\":\"true\"}""#,
            ),
            ("msg=x", "missing_value: column level: expected text not null, found no value"),
            ("level=a level=b", r#"shape: field "level" occurs twice"#),
            ("level=a x=1 x=2", r#"shape: field "x" occurs twice"#),
            ("level=a n=4x", "type: column n: expected bigint, found 4x"),
            ("level=a msg=\"open", "syntax: a quoted value does not end"),
            ("level=a msg=\"x\"y", r#"syntax: text behind a closing quote: "y""#),
            (
                "level=a msg=x\"y",
                r#"syntax: a value with a quote inside stands in no quotes: "x\"y""#,
            ),
            ("=x", r#"syntax: expected a key at "=x""#),
            ("level=a msg=\"\\q\"", r#"syntax: an escape is not known in "\q""#),
            ("level=a msg=\"\\u0000\"", "syntax: NUL byte"),
            ("level=a\0", "syntax: NUL byte"),
        ],
    );
}

#[test]
fn csv_is_rfc_4180_on_one_line() {
    check(
        "format = 'csv'\nunknown = 'drop'\nheader = true\n[columns]\nid = 'int not null'\nname = 'text'\namount = 'decimal(8,2)'",
        &[
            ("1,plain,2.50", r#"1 | "plain" | 2.50"#),
            ("2,\"a, \"\"b\"\"\",-1.5\r", r#"2 | "a, \"b\"" | -1.50"#),
            ("3,,", "3 | NULL | NULL"),
            ("4,\"\",0", r#"4 | "" | 0.00"#),
            ("5,a b\"c,0", r#"5 | "a b\"c" | 0.00"#),
            ("id,name,amount", "dropped: header"),
            ("id,name,sum", "type: column id: expected int, found id"),
            ("6,x", "shape: 2 cells, expected 3"),
            ("6,x,1,2", "shape: more than 3 cells"),
            ("6,\"x,1", "syntax: a quoted cell does not end in this line"),
            ("6,\"x\"y,1", r#"syntax: text behind a closing quote: "y,1""#),
            (
                "6,x,1.234",
                "range: column amount: expected decimal(8,2), found 1.234: it has too many digits",
            ),
            (",x,1", "missing_value: column id: expected int not null, found no value"),
        ],
    );
}

#[test]
fn cells_have_names_and_delimiters_of_their_own() {
    check(
        "format = 'csv'\ndelimiter = ';'\nfields = ['nr', 'junk', 'who']\nkey = 'id'\n[aliases]\nid = ['nr', 'number']\n[columns]\nwho = 'varchar(3)'\nid = 'bigint not null'",
        &[
            ("7;x;Ann", r#""Ann" | 7 | "{\"junk\":\"x\"}""#),
            ("7;;Anna", "range: column who: expected varchar(3), found Anna: it is too long"),
        ],
    );
    check(
        "format = 'tsv'\nunknown = 'drop'\n[columns]\na = 'text'\nb = 'text'",
        &[
            ("x\\ty\t\\N", r#""x\ty" | NULL"#),
            ("\t\\\\", r#""" | "\\""#),
            ("\\x\t", r#"syntax: an escape is not known in "\\x""#),
        ],
    );
}

#[test]
fn access_logs_of_apache_and_nginx() {
    check(
        "format = 'combined'\n[columns]\nremote_addr = 'text not null'\nremote_user = 'text'\ntime_local = 'timestamp'\nmethod = 'text'\npath = 'text'\nrequest = 'text'\nstatus = 'smallint not null'\nbody_bytes_sent = 'bigint'\nhttp_user_agent = 'text'",
        &[
            (
                r#"192.0.2.1 - alice [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.1" 200 2326 "-" "Mozilla/5.0 \"x\" \x16" "10.0.0.1""#,
                r#""192.0.2.1" | "alice" | 971211336000000 | "GET" | "/a?b=c" | "GET /a?b=c HTTP/1.1" | 200 | 2326 | "Mozilla/5.0 \"x\" \\x16" | "{\"ident\":null,\"protocol\":\"HTTP/1.1\",\"http_referer\":null,\"extra\":\"\\\"10.0.0.1\\\"\"}""#,
            ),
            (
                r#"::1 - - [10/Oct/2000:13:55:36 +0000] "\x16\x03\x01" 400 - "-" "-""#,
                r#""::1" | NULL | 971186136000000 | NULL | NULL | "\\x16\\x03\\x01" | 400 | NULL | NULL | "{\"ident\":null,\"http_referer\":null}""#,
            ),
            ("192.0.2.1 - - nothing", "syntax: there is no [time_local]"),
            (
                r#"h - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 1"#,
                "syntax: there is no quoted http_referer",
            ),
            (
                r#"h - - [10/Oct/2000:13:55:36 +0000] "GET /"#,
                "syntax: the quoted request does not end",
            ),
        ],
    );
    // Without columns the format brings its own.
    check(
        "format = 'common'\nunknown = 'drop'",
        &[(
            r#"h i u [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.0" 200 5"#,
            r#""h" | "u" | 971186136000000 | "GET / HTTP/1.0" | "GET" | "/" | "HTTP/1.0" | 200 | 5 | event=971186136000000"#,
        )],
    );
}

#[test]
fn syslog_old_and_new_with_and_without_a_priority() {
    check(
        "format = 'syslog'\nunknown = 'drop'",
        &[
            (
                r#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [ex@32473 iut="3" es="a\"]b"][x@1 y="z"] An application"#,
                r#""local4" | "notice" | 1065910455003000 | "mymachine.example.com" | "evntslog" | NULL | "ID47" | "[ex@32473 iut=\"3\" es=\"a\\\"]b\"][x@1 y=\"z\"]" | "An application" | event=1065910455003000"#,
            ),
            (
                "<34>1 - - su - - -",
                r#""auth" | "crit" | NULL | NULL | "su" | NULL | NULL | NULL | NULL | event=NULL"#,
            ),
            (
                // The block was taken in on 2026-11-24, so this is the 25th of the same year, and December of the year before.
                "<34>Nov 25 22:14:15 mymachine su[230]: 'su root' failed",
                r#""auth" | "crit" | 1795644855000000 | "mymachine" | "su" | "230" | NULL | NULL | "'su root' failed" | event=1795644855000000"#,
            ),
            (
                "Jan  1 00:00:00 host kernel: x",
                r#"NULL | NULL | 1798761600000000 | "host" | "kernel" | NULL | NULL | NULL | "x" | event=1798761600000000"#,
            ),
            (
                "2026-11-23T23:24:04.123456+09:00 host just text here",
                r#"NULL | NULL | 1795443844123456 | "host" | NULL | NULL | NULL | NULL | "just text here" | event=1795443844123456"#,
            ),
            ("<192>1 - - - - - -", "syntax: the priority is not 0 to 191"),
            ("<34", "syntax: the priority does not end"),
            ("<34>1 - - su - - [a b=\"c", "syntax: the structured data does not end"),
            ("hello", "syntax: there is no timestamp"),
            (
                "Feb 30 00:00:00 h x",
                "event_time: column timestamp: expected timestamp, found Feb 30 00:00:00: there is no such time",
            ),
        ],
    );
}

#[test]
fn container_lines_and_patterns() {
    check(
        "format = 'cri'",
        &[
            (
                "2026-11-23T23:24:04.123456789Z stderr F a  b",
                r#"1795476244123456 | "stderr" | "F" | "a  b" | NULL | event=1795476244123456"#,
            ),
            ("2026-11-23T23:24:04Z stdout", "syntax: there is no logtag"),
        ],
    );
    check(
        "format = 'regex'\npattern = '^(?<level>[A-Z]+) (?:\\[(?<who>\\w+)\\] )?(?<rest>.*)$'\nunknown = 'drop'\n[aliases]\nmessage = 'rest'\n[columns]\nlevel = 'text not null'\nwho = 'text'\nmessage = 'text not null'",
        &[
            ("WARN [main] slow", r#""WARN" | "main" | "slow""#),
            ("WARN slow", r#""WARN" | NULL | "slow""#),
            ("warn slow", "shape: the pattern does not match"),
        ],
    );
}

#[test]
fn grok_puts_named_patterns_together() {
    check(
        "format = 'grok'\npattern = '%{COMBINEDAPACHELOG}'\nunknown = 'drop'\ntime = 'timestamp'\n\
         time_format = '%d/%b/%Y:%H:%M:%S %z'\n[columns]\nclientip = 'text not null'\ntimestamp = 'timestamp not null'\n\
         verb = 'text'\nrequest = 'text'\nresponse = 'int not null'\nbytes = 'bigint'\nagent = 'text'",
        &[
            (
                r#"2001:db8::7 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.0" 200 2326 "-" "Mozilla/4.08""#,
                r#""2001:db8::7" | 971211336000000 | "GET" | "/a?b=c" | 200 | 2326 | "\"Mozilla/4.08\"" | event=971211336000000"#,
            ),
            (
                r#"10.0.0.7 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03" 400 - "-" "-""#,
                r#""10.0.0.7" | 971211336000000 | NULL | NULL | 400 | NULL | "\"-\"" | event=971211336000000"#,
            ),
            ("10.0.0.7 hello", "shape: the pattern does not match"),
        ],
    );
    // A field in two branches, an own pattern that hides a known one, and groups of the expression itself.
    check(
        "format = 'grok'\npattern = '^(?:%{ORDER:order}|no %{WORD:order}) (?<left>[0-9]+)$'\nunknown = 'drop'\n\
         [patterns]\nORDER = '[A-Z]{2}%{INT}'\nINT = '[0-9]{3}'\n[columns]\norder = 'text not null'\nleft = 'int'",
        &[
            ("AB123 7", r#""AB123" | 7"#),
            ("no order 7", r#""order" | 7"#),
            ("AB12 7", "shape: the pattern does not match"),
        ],
    );
}

#[test]
fn times_are_read_as_the_contract_says() {
    check(
        "format = 'csv'\nunknown = 'drop'\ntime = 'at'\ntime_format = '%d.%m.%Y %H:%M:%S,%f'\nzone = '+09:00'\n[columns]\nat = 'timestamp not null'\nother = 'timestamp'",
        &[
            (
                "\"24.11.2026 08:24:04,123456\",2026-11-24 08:24:04",
                "1795476244123456 | 1795476244000000 | event=1795476244123456",
            ),
            (
                "\"24.11.2026 08:24:04,1\",2026-11-24T08:24:04",
                "1795476244100000 | 1795476244000000 | event=1795476244100000",
            ),
            (
                "2026-11-24 08:24:04,",
                "event_time: column at: expected timestamp, found 2026-11-24 08:24:04",
            ),
        ],
    );
    check(
        "format = 'csv'\nunknown = 'drop'\n[columns]\nat = 'timestamp'",
        &[
            ("1795476244", "1795476244000000"),
            ("1795476244.123", "1795476244123000"),
            ("-1.5", "-1500000"),
            ("1795476244123", "1795476244123000"),
            ("1795476244.", "type: column at: expected timestamp, found 1795476244."),
            (
                "2026-11-23T23:24:04",
                "type: column at: expected timestamp, found 2026-11-23T23:24:04",
            ),
        ],
    );
    check(
        "format = 'json'\nunknown = 'drop'\ntime = 'at'\ntime_format = '%d/%b/%Y:%H:%M:%S %z'\n[aliases]\nat = ['time', '@timestamp']\n[columns]\nat = 'timestamp not null'",
        &[
            (
                r#"{"@timestamp":"10/Oct/2000:13:55:36 -0700"}"#,
                "971211336000000 | event=971211336000000",
            ),
            (
                r#"{"time":"10/Oct/2000:13:55:36 -0700","at":"10/Oct/2000:13:55:36 -0700"}"#,
                r#"shape: member "at" occurs twice"#,
            ),
        ],
    );
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_read() {
    let refused = |toml: &str| match toml::from_str::<ContractConfig>(toml).unwrap().check() {
        Err(error) => error.to_string(),
        Ok(contract) => ContractRefiner::new(contract).unwrap_err().to_string(),
    };
    let cases = [
        (
            "format = 'regex'\n[columns]\na = 'text'",
            "format regex needs a pattern with named groups, like \"^(?<level>[A-Z]+) (?<message>.*)$\"",
        ),
        (
            "format = 'regex'\npattern = 'x'\n[columns]\na = 'text'",
            "the pattern has no named group: write (?<name>...)",
        ),
        (
            "format = 'regex'\npattern = '(?<b>x)'\n[columns]\na = 'text not null'",
            "column a is not null, but the pattern has no group of that name",
        ),
        (
            "format = 'grok'\n[columns]\na = 'text'",
            "format grok needs a pattern, like \"%{IPORHOST:client} %{NUMBER:took}\"",
        ),
        (
            "format = 'grok'\npattern = '%{IPP:a}'\n[columns]\na = 'text'",
            "the pattern cannot be put together: there is no pattern \"IPP\": add it to `patterns`, or use one of IP",
        ),
        (
            "format = 'regex'\npattern = '(?<a>x)'\n[patterns]\nA = 'x'\n[columns]\na = 'text'",
            "patterns means nothing to format regex: remove it",
        ),
        (
            "format = 'json'\npattern = 'x'\n[columns]\na = 'text'",
            "pattern means nothing to format json: remove it",
        ),
        (
            "format = 'tsv'\ndelimiter = ';'\n[columns]\na = 'text'",
            "delimiter means nothing to format tsv: remove it",
        ),
        (
            "format = 'csv'\ndelimiter = '\"'\n[columns]\na = 'text'",
            "delimiter '\"' is no single ASCII character that can stand between cells",
        ),
        (
            "format = 'csv'\nfields = ['a', 'a']\n[columns]\na = 'text'",
            "field \"a\" is there twice: which one is meant cannot be known",
        ),
        (
            "format = 'json'\naliases = { a = 'b' }\n[columns]\na = 'text'\nb = 'text'",
            "name \"b\" is there twice: which one is meant cannot be known",
        ),
        (
            "format = 'json'\naliases = { x = 'b' }\n[columns]\na = 'text'",
            "aliases names column x, which the contract does not have",
        ),
        (
            "format = 'json'\nzone = 'Seoul'\n[columns]\na = 'text'",
            "zone \"Seoul\" is not known: use \"UTC\" or an offset like \"+09:00\"",
        ),
        (
            "format = 'json'\ntime_format = '%Y'\n[columns]\na = 'text'",
            "time_format needs a time column: say time = \"COLUMN\"",
        ),
        (
            "format = 'json'\ntime = 'a'\ntime_format = '%H:%M'\n[columns]\na = 'timestamp'",
            "time_format \"%H:%M\" does not say which day is meant: a time that it wrote, \"23:24\", cannot be read back",
        ),
        ("format = 'csv'", "format csv needs [columns]: nothing says which fields to keep"),
    ];
    for (toml, expect) in cases {
        assert_eq!(refused(toml), expect, "{toml}");
    }
}

proptest! {
    /// Each record is one row, one drop or one rejection, twice the same.
    #[test]
    fn no_text_breaks_any_format(text in "[ -~\t\"\\\\=,<>\\[\\]:1a\r가]{0,40}", head in 0..7usize) {
        let heads = ["", "<34>1 ", "<34>", "Oct 11 22:14:15 h ", "a=\"", "h - - [10/Oct/2000:13:55:36 +0000] \"", "<34>1 - - - - - ["];
        let text = format!("{}{text}", heads[head]);
        for format in ["logfmt", "csv", "tsv", "common", "combined", "syslog", "cri"] {
            let contract = contract(&format!("format = '{format}'\n[columns]\na = 'text'\nmessage = 'text'"));
            let blocks = [block(0, &[text.as_bytes()])];
            let (once, again) = (refine(contract.clone(), &blocks), refine(contract, &blocks));
            prop_assert_eq!(once.sources.len() + once.bad.len() + once.dropped.len(), 1);
            prop_assert_eq!(once.rows, again.rows);
            prop_assert_eq!(once.bad, again.bad);
        }
    }
}
