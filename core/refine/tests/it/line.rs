//! Format `line`.

use garam_stage::Contract;

use crate::show::{block, outcome, refine, text};

fn check(record: &[u8], expect: &str) {
    assert_eq!(outcome(&Contract::lines(), record), expect);
}

#[test]
fn a_line_is_its_text() {
    check(b"GET / 200", "\"GET / 200\"");
    check(b"", "\"\"");
    check("가람 \u{1b}[0m".as_bytes(), "\"가람 \\u{1b}[0m\"");
}

#[test]
fn only_the_carriage_return_of_a_crlf_ending_goes() {
    check(b"windows\r", "\"windows\"");
    check(b"two\r\r", "\"two\\r\"");
    check(b"in\rside", "\"in\\rside\"");
}

#[test]
fn bytes_that_are_no_text_are_put_aside() {
    check(b"ok \xff rest", "syntax: invalid UTF-8 at byte 3");
    check(b"a\0b", "syntax: NUL byte");
}

#[test]
fn a_piece_of_a_longer_record_is_put_aside() {
    let mut piece = block(3, &[b"first", b"cut here"]);
    piece.records[1].partial = true;
    let refined = refine(Contract::lines(), &[piece]);
    assert_eq!(text(&refined.rows, 0, 0), "\"first\"");
    assert_eq!(refined.bad.len(), 1);
    assert_eq!(refined.bad[0].at.index, 1);
    assert_eq!(refined.bad[0].reason.name(), "too_long");
    assert_eq!(refined.bad[0].detail, "piece of 8 bytes of a record that was cut at max_record");
}
