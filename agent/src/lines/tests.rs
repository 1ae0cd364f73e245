//! Records from bytes: each rule, and that reads may end anywhere.

use super::*;

fn rules(change: impl FnOnce(&mut Rules)) -> Rules {
    let mut rules = Rules { timeout: Duration::from_secs(1), ..Rules::default() };
    change(&mut rules);
    rules
}

/// All records, read in pieces of at most `step` bytes that grow until something is complete, as the reader does it.
fn read(rules: &Rules, bytes: &[u8], step: usize, longest: usize) -> Vec<String> {
    let mut at = 0;
    let mut want = step;
    let mut records = Vec::new();
    while at < bytes.len() {
        let end = (at + want).min(bytes.len());
        let ending = if end == bytes.len() { Ending::Over } else { Ending::Open };
        let taken = rules.take(&bytes[at..end], ending, at == 0, longest);
        want = if taken.used == 0 { want + step } else { step };
        let text =
            taken.records.into_iter().map(|r| String::from_utf8_lossy(&r.bytes).into_owned());
        records.extend(text);
        at += taken.used;
    }
    records
}

fn check(rules: &Rules, bytes: &[u8], expect: &[&str]) {
    for step in (1..20).chain([100, 1000, 100_000]) {
        assert_eq!(read(rules, bytes, step, 1 << 20), expect, "read {step} bytes at a time");
    }
}

#[test]
fn a_pattern_says_where_records_start_or_go_on() {
    let text = b"2026 one\n  more\n\n2026 two\n2026 three\nrest\n";
    let expect = ["2026 one\n  more\n", "2026 two", "2026 three\nrest"];
    let start = rules(|r| r.multiline = Some(Multiline::start("^2026 ").unwrap()));
    check(&start, text, &expect);
    let more = rules(|r| r.multiline = Some(Multiline::continued(r"^(\s|rest|$)").unwrap()));
    check(&more, text, &expect);
}

#[test]
fn stack_traces_of_java_python_and_go_are_one_record_with_the_line_that_reports_them() {
    let java = "10:00 ERROR it broke\njava.lang.IllegalStateException: no\n\tat a.B.c(B.java:1)\n\t... 3 more\nCaused by: java.io.IOException\n\tat d.E.f(E.java:2)\n10:01 INFO next\n";
    let (trace, next) = java.split_once("10:01").unwrap();
    let next = format!("10:01{}", next.trim_end());
    let ready = |name| rules(|r| r.multiline = Some(Multiline::ready(name).unwrap()));
    check(&ready("java"), java.as_bytes(), &[trace.trim_end(), &next]);
    let python = "ERROR:root:it broke\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: no\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 2, in g\n    h()\nmine.Odd: no\nINFO:root:next\n";
    let (trace, _) = python.split_once("\nINFO").unwrap();
    check(&ready("python"), python.as_bytes(), &[trace, "INFO:root:next"]);
    let go = "start\npanic: runtime error: index out of range [1] with length 1\n\ngoroutine 1 [running]:\nmain.f(...)\n\t/x/a.go:3\nmain.(*T).g(0xc00, 0x1)\n\t/x/a.go:7 +0x1d\ncreated by main.main\n\t/x/a.go:9 +0x2\nexit status 2\nstart again\n";
    let (_, rest) = go.split_once('\n').unwrap();
    let (trace, _) = rest.split_once("\nstart again").unwrap();
    check(&ready("go"), go.as_bytes(), &["start", trace, "start again"]);
}

#[test]
fn parts_of_container_lines_are_joined_per_stream() {
    let cri = b"2026-01-01T00:00:00Z stdout P one \n2026-01-01T00:00:01Z stderr F other\n2026-01-01T00:00:02Z stdout F line\n2026-01-01T00:00:03Z stdout F \nnot cri\n";
    let unwrap = |container| rules(|r| r.container = Some(container));
    check(&unwrap(Container::Cri), cri, &["one line", "other", "", "not cri"]);
    let docker = br#"{"log":"one ","stream":"stdout","time":"t"}
{"log":"other\n","stream":"stderr","time":"t"}
{"log":"line\n","stream":"stdout","time":"t"}
{"log":"cr\r\n","stream":"stdout","time":"t"}
{"log":
"#;
    check(&unwrap(Container::Docker), docker, &["one line", "other", "cr", "{\"log\":"]);
}

#[test]
fn time_and_stream_of_a_container_travel_with_each_record_when_asked() {
    let cri = b"2026-01-01T00:00:00.1Z stdout P one \n2026-01-01T00:00:01Z stderr P:t {\"a\":\n2026-01-01T00:00:02Z stdout F line\n2026-01-01T00:00:03Z stderr F 1}\nnot cri\n";
    let keep = |container, keep| {
        rules(|r| {
            r.container = Some(container);
            r.keep = Some(keep);
        })
    };
    let lines = [
        "2026-01-01T00:00:00.1Z stdout F one line",
        "2026-01-01T00:00:01Z stderr F:t {\"a\":1}",
        "not cri",
    ];
    check(&keep(Container::Cri, Keep::Cri), cri, &lines);
    let members = [
        r#"{"container_time":"2026-01-01T00:00:00.1Z","container_stream":"stdout","message":"one line"}"#,
        r#"{"container_time":"2026-01-01T00:00:01Z","container_stream":"stderr","container_tags":"t","a":1}"#,
        "not cri",
    ];
    check(&keep(Container::Cri, Keep::Json), cri, &members);
    let docker = br#"{"log":"one \"","stream":"stdout","attrs":{"pod": "p"},"time":"t1"}
{"log":"{ }\n","stream":"stderr","time":"t2"}
{"log":"two\n","stream":"stdout","time":"t3"}
"#;
    let lines = ["t1 stdout F one \"two", "t2 stderr F { }"];
    check(&keep(Container::Docker, Keep::Cri), docker, &lines);
    let members = [
        r#"{"container_time":"t1","container_stream":"stdout","container_attrs":{"pod": "p"},"message":"one \"two"}"#,
        r#"{"container_time":"t2","container_stream":"stderr"}"#,
    ];
    check(&keep(Container::Docker, Keep::Json), docker, &members);
}

#[test]
fn a_record_that_is_too_long_with_its_time_is_cut_into_several_that_each_have_it() {
    let keep = rules(|r| {
        r.container = Some(Container::Cri);
        r.keep = Some(Keep::Json);
    });
    let content = "가\"".repeat(100);
    let records = read(&keep, format!("1 stdout F {content}\n").as_bytes(), 10_000, 200);
    let mut joined = String::new();
    for record in &records {
        assert!(record.len() <= 200);
        let value: serde_json::Value = serde_json::from_str(record).unwrap();
        assert_eq!(value["container_stream"], "stdout");
        joined += value["message"].as_str().unwrap();
    }
    assert_eq!(joined, content);
    assert!(records.len() > 1);
}

#[test]
fn no_block_ends_between_the_parts_of_a_line() {
    let unwrap = rules(|r| r.container = Some(Container::Cri));
    let text =
        b"1 stdout F a\n1 stdout P b\n1 stderr F c\n1 stderr P d\n1 stdout F e\n1 stderr F f\n";
    let line = 13;
    for lines in 2..6 {
        let taken = unwrap.take(&text[..lines * line], Ending::Open, true, 100);
        assert_eq!((taken.used, taken.records.len()), (line, 1), "{lines} lines are there");
    }
    assert_eq!(unwrap.take(text, Ending::Open, true, 100).used, text.len());
}

#[test]
fn a_trace_in_a_container_is_one_record_although_the_other_stream_speaks_in_between() {
    let both = rules(|r| {
        r.container = Some(Container::Cri);
        r.multiline = Some(Multiline::ready("java").unwrap());
    });
    let text = b"1 stderr F x.YException: no\n1 stdout F fine\n1 stderr F \tat a.b(C.java:1)\n1 stdout F good\n1 stderr F next\n";
    check(&both, text, &["x.YException: no\n\tat a.b(C.java:1)", "fine", "good", "next"]);
}

#[test]
fn a_group_that_is_not_over_is_held_and_its_range_never_cut() {
    let rules = rules(|r| r.multiline = Some(Multiline::start("^A").unwrap()));
    let taken = rules.take(b"A 1\nb\nA 2\nc\n", Ending::Open, true, 100);
    assert_eq!((taken.records.len(), taken.used), (1, 6));
    let taken = rules.take(b"A 2\nc\npart", Ending::Quiet, false, 100);
    assert_eq!((taken.records.len(), taken.used), (1, 6), "a line without end is not part of it");
    let taken = rules.take(b"A 2\nc\npart", Ending::Over, false, 100);
    assert_eq!((taken.records.len(), taken.used), (1, 10));
}

#[test]
fn a_record_beyond_the_limit_is_closed_or_cut_and_nothing_of_it_is_lost() {
    let start = rules(|r| r.multiline = Some(Multiline::start("^A").unwrap()));
    let text = b"A 1\n22\n33\n44\n55\n";
    assert_eq!(read(&start, text, 1000, 8), ["A 1\n22", "33\n44\n55"]);
    let masked = rules(|r| r.masks = vec![Mask::new("Z", "").unwrap()]);
    assert_eq!(read(&masked, b"0123456789\n", 1000, 4), ["0123", "4567", "89"]);
    let taken = masked.take(b"0123456789\n", Ending::Open, true, 4);
    let places: Vec<usize> = taken.records.iter().map(|record| record.start).collect();
    assert_eq!(places, [0, 1, 2], "each piece has its own place");
}

#[test]
fn masks_replace_before_anything_leaves_and_see_whole_records() {
    let masked = rules(|r| {
        r.masks = vec![
            Mask::new(r"\d{4}-\d{4}", "****").unwrap(),
            Mask::new("password=[^ ]+", "password=?").unwrap(),
        ];
    });
    let text = b"card 1234-5678 and 1111-2222\r\npassword=geheim \xff rest\nnothing\n";
    check(&masked, text, &["card **** and ****", "password=? \u{fffd} rest", "nothing"]);
    assert!(Mask::new("x*", "").is_err(), "it would match everywhere");
    assert!(Mask::new("(", "").unwrap_err().to_string().contains("no pattern"));
}

#[test]
fn other_encodings_become_utf_8_and_holes_are_left_out_and_counted() {
    let utf16 = |little: bool, text: &str| -> Vec<u8> {
        let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    };
    let text = "\u{feff}가람 \u{1f30a}\r\n\u{a0a}\u{d0d}\nend";
    let lines = ["가람 \u{1f30a}", "\u{a0a}\u{d0d}", "end"];
    check(&rules(|r| r.encoding = Encoding::Utf16Le), &utf16(true, text), &lines);
    check(&rules(|r| r.encoding = Encoding::Utf16Be), &utf16(false, text), &lines);
    check(&rules(|r| r.encoding = Encoding::Latin1), b"caf\xe9\n", &["caf\u{e9}"]);
    let holes = rules(|r| r.skip_nul = true);
    check(&holes, b"\0\0\0one\n\0two\n", &["one", "two"]);
    assert_eq!(holes.take(b"\0\0\0one\n\0two\n\0\0", Ending::Open, true, 100).skipped, 4);
}

#[test]
fn encodings_of_the_list_become_utf_8_line_by_line_and_what_is_no_text_is_counted() {
    let text = "첫째 줄\r\n二番目\n";
    for (label, text) in [
        ("euc-kr", "첫째 줄\r\n漢字\n"),
        ("shift_jis", "ソース表\r\nｱｲｳ\n"),
        ("euc-jp", "日本語\r\nかな\n"),
        ("gbk", "中文\r\n汉字\n"),
        ("gb18030", text),
        ("big5", "中文\r\n功能\n"),
        ("windows-1252", "caf\u{e9} \u{20ac}\r\n\u{201c}x\u{201d}\n"),
        ("koi8-r", "привет\r\nмир\n"),
    ] {
        let encoding = Encoding::named(label).unwrap();
        let Encoding::Listed(listed) = encoding else { panic!("{label} is one of the list") };
        let (bytes, _, unmappable) = listed.encode(text);
        assert!(!unmappable, "{label}");
        let lines: Vec<&str> = text.lines().collect();
        let rules = rules(|r| r.encoding = encoding);
        check(&rules, &bytes, &lines);
        let taken = rules.take(&bytes, Ending::Open, true, 100);
        assert_eq!((taken.used, taken.replaced), (bytes.len(), 0), "{label}");
    }
    let sjis = rules(|r| r.encoding = Encoding::named("shift_jis").unwrap());
    let taken = sjis.take(b"a\xff\xffb\n\x83\nend\n\xff", Ending::Open, true, 100);
    let lines: Vec<String> =
        taken.records.iter().map(|r| String::from_utf8_lossy(&r.bytes).into_owned()).collect();
    assert_eq!(lines, ["a\u{fffd}\u{fffd}b", "\u{fffd}", "end"]);
    assert_eq!((taken.replaced, taken.used), (3, 11), "what is not taken yet is not counted");
}

#[test]
fn any_bytes_are_used_up_without_a_panic_and_in_any_reads_the_same() {
    let mut random = fastrand::Rng::with_seed(5);
    let words: [&[u8]; 12] = [
        b"\n",
        b"\n",
        b"1 stdout P ",
        b"1 stdout F ",
        b"1 stderr P ",
        b"1 stderr F ",
        b"A",
        b" ",
        b"\0",
        b"\xff",
        b"{\"log\":\"a\",\"stream\":\"stdout\"}\n",
        b"\r\n",
    ];
    for _ in 0..200 {
        let count = random.usize(1..60);
        let bytes: Vec<u8> =
            (0..count).flat_map(|_| words[random.usize(..words.len())]).copied().collect();
        let rules = rules(|r| {
            r.container = [None, Some(Container::Cri), Some(Container::Docker)][random.usize(..3)];
            r.skip_nul = random.bool();
            r.keep = [None, Some(Keep::Cri), Some(Keep::Json)][random.usize(..3)];
            if random.bool() {
                r.multiline = Some(Multiline::start("^A").unwrap());
            }
        });
        let whole = read(&rules, &bytes, 1 << 20, 1 << 20);
        for step in [1, 2, 7, 31] {
            assert_eq!(
                read(&rules, &bytes, step, 1 << 20),
                whole,
                "{step} {:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}
