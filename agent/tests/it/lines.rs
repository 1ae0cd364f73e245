//! Records of several lines, masks and encodings, through the real agent.

use std::fs;
use std::io::Write;

use crate::agent::Host;
use crate::core::{Core, eventually};

fn append(host: &Host, name: &str, bytes: &[u8]) {
    let path = host.log(name);
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_stack_trace_arrives_as_one_record_also_when_the_agent_is_killed_inside_it() {
    let core = Core::start();
    let multiline = "multiline = { rule = \"java\", timeout = \"300ms\" }";
    let mut host = Host::new(&core, "*.log", multiline);
    append(&host, "a.log", b"first\nERROR broke\nx.YException: no\n\tat a.b(C.java:1)\n");
    host.start();
    let trace = "ERROR broke\nx.YException: no\n\tat a.b(C.java:1)";
    eventually("the last record is not waited for for ever", || {
        core.lines("raw") == ["first", trace]
    });
    host.kill();
    let mut expect = vec!["first".to_owned(), trace.to_owned()];
    for round in 0..4 {
        append(&host, "a.log", format!("ERROR {round}\nx.ZError\n\tat d.e(F.java:1)\n").as_bytes());
        expect.push(format!("ERROR {round}\nx.ZError\n\tat d.e(F.java:1)"));
        host.start();
        if round % 2 == 0 {
            eventually("it arrives", || core.lines("raw") == expect);
        }
        host.kill();
    }
    append(&host, "a.log", b"last\n");
    expect.push("last".into());
    host.start();
    eventually("nothing is lost or repeated", || core.lines("raw") == expect);
    core.verify();
    assert_eq!(core.state().origins.len(), 1);
}

#[test]
fn more_lines_than_a_block_holds_keep_their_groups() {
    let core = Core::start();
    let mut host =
        Host::new(&core, "*.log", "multiline = { start = \"^BEGIN \", timeout = \"100ms\" }");
    let mut expect = Vec::new();
    let mut text = String::new();
    for number in 0..3000 {
        let more = "  more of it\n".repeat(number % 40);
        expect.push(format!("BEGIN {number}\n{more}").trim_end().to_owned());
        text.push_str(&format!("BEGIN {number}\n{more}"));
    }
    append(&host, "a.log", text.as_bytes());
    host.start();
    eventually("all arrive", || core.lines("raw").len() >= expect.len());
    assert_eq!(core.lines("raw"), expect);
    core.verify();
    let size = text.len() as u64;
    eventually("the ledger balances", || {
        host.status().is_some_and(|s| s.files[0].read == size && s.files[0].acked == size)
    });
}

#[test]
fn secrets_are_masked_and_container_lines_unwrapped_and_joined() {
    let core = Core::start();
    let mut host = Host::new(
        &core,
        "*.log",
        "container = \"cri\"\nmask = [{ pattern = \"token=[a-z0-9]+\", replace = \"token=?\" }]",
    );
    let wire =
        b"2026-01-01T00:00:00Z stdout P user token=abc\n2026-01-01T00:00:00Z stdout F 123 end\n";
    append(&host, "a.log", wire);
    host.start();
    eventually("it arrives masked", || core.lines("raw") == ["user token=? end"]);
    core.verify();
}

#[test]
fn a_secret_is_hashed_under_a_key_and_equal_secrets_stay_equal() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let key = host.folder.path().join("mask.key");
    fs::write(&key, "0123456789abcdef\n").unwrap();
    let mask = format!("mask = [{{ pattern = \"u[0-9]+\", hash_key_file = {key:?} }}]");
    host.configure(&core, "*.log", &mask, "");
    append(&host, "a.log", b"u1 and u2\nu1 again\n");
    host.start();
    eventually("they arrive", || core.lines("raw").len() == 2);
    let lines = core.lines("raw");
    let first: Vec<&str> = lines[0].split(' ').collect();
    // HMAC-SHA-256 of "u1" under the key, as any other program computes it.
    assert_eq!(first[0], "5162bddb18bda0082a7b39c472f7d118");
    assert_ne!(first[0], first[2]);
    assert_eq!(lines[1], format!("{} again", first[0]));
    fs::write(&key, "short").unwrap();
    let output = crate::agent::run(&["check", "--config", host.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("16 bytes or more"));
}

#[test]
fn utf_16_arrives_as_utf_8_and_a_hole_is_skipped_and_counted() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "encoding = \"utf-16le\"");
    let text: Vec<u8> =
        "\u{feff}가람\r\nriver\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    append(&host, "a.log", &text);
    host.start();
    eventually("it arrives as UTF-8", || core.lines("raw") == ["가람", "river"]);
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "skip_nul = true");
    append(&host, "b.log", &[b"before\n", &[0; 5000][..], b"after\n"].concat());
    host.start();
    eventually("the hole is not in it", || core.lines("raw") == ["before", "after"]);
    eventually("it is counted", || {
        host.status().is_some_and(|s| s.files[0].skipped == 5000 && s.files[0].acked == 5013)
    });
    let status = host.status().unwrap();
    let file = &status.files[0];
    assert_eq!(file.read + file.skipped + file.gap + file.unread, file.size);
}

#[test]
fn a_listed_encoding_arrives_as_utf_8_and_the_ledger_counts_source_bytes() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "encoding = \"euc-kr\"");
    append(&host, "a.log", b"\xb0\xa1\xb6\xf7\n\xff bad\n");
    host.start();
    eventually("it arrives as UTF-8", || core.lines("raw") == ["가람", "\u{fffd} bad"]);
    core.verify();
    eventually("its bytes are those of the file", || {
        host.status().is_some_and(|s| s.files[0].read == 11 && s.files[0].acked == 11)
    });
    assert_eq!(host.status().unwrap().totals.characters_replaced, 1);
}

#[test]
fn time_and_stream_of_containers_arrive_with_their_lines_when_asked() {
    let core = Core::start();
    let container = "container = \"docker\"\ncontainer_meta = \"cri\"";
    let mut host = Host::new(&core, "*.log", container);
    let lines = br#"{"log":"in ","stream":"stdout","time":"2026-01-01T00:00:01Z"}
{"log":"other\n","stream":"stderr","time":"2026-01-01T00:00:02Z"}
{"log":"parts\n","stream":"stdout","time":"2026-01-01T00:00:03Z"}
"#;
    append(&host, "a.log", lines);
    host.start();
    let expect = ["2026-01-01T00:00:01Z stdout F in parts", "2026-01-01T00:00:02Z stderr F other"];
    eventually("they arrive", || core.lines("raw") == expect);
    core.verify();
}

#[test]
fn the_last_record_of_a_rotated_file_comes_before_its_successor() {
    let core = Core::start();
    let mut host =
        Host::new(&core, "a.log*", "multiline = { start = \"^A\", timeout = \"400ms\" }");
    append(&host, "a.log", b"A 1\nmore\n");
    host.start();
    eventually("the file is met", || host.status().is_some_and(|s| s.files.len() == 1));
    append(&host, "a.log", b"A 2\nmore\n");
    fs::rename(host.log("a.log"), host.log("a.log.1")).unwrap();
    append(&host, "a.log", b"A 3\n");
    eventually("all in order", || core.lines("raw") == ["A 1\nmore", "A 2\nmore", "A 3"]);
    core.verify();
}

#[test]
fn a_rule_that_cannot_be_used_names_its_key() {
    for (extra, key) in [
        ("multiline = { rule = \"cobol\" }", "multiline"),
        ("multiline = { start = \"(\" }", "multiline"),
        ("multiline = { }", "multiline"),
        ("multiline = { rule = \"go\", timeout = \"1h\" }", "multiline.timeout"),
        ("mask = [{ pattern = \"x*\" }]", "mask"),
        ("container = \"cri\"\nflush_partial = \"1s\"", "flush_partial"),
        ("encoding = \"utf-16le\"\nskip_nul = true", "skip_nul"),
        ("encoding = \"iso-2022-jp\"", "encoding"),
        ("encoding = \"utf-16\"", "encoding"),
        ("encoding = \"klingon\"", "encoding"),
        ("container_meta = \"json\"", "container_meta"),
    ] {
        let text = format!(
            "core = [\"core-1:7470\"]\n[[file]]\nname = \"a\"\ninclude = [\"/l/*\"]\nstream = \"raw\"\n{extra}\n"
        );
        let error = garam_agent::config::Config::parse("agent.toml".as_ref(), &text).unwrap_err();
        assert!(error.to_string().contains(&format!("key file.a.{key}:")), "{extra}: {error}");
    }
}
