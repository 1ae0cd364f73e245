//! One message as one line.
//!
//! In: the bytes of a message. Out: the same bytes and a line feed. Promise: a line feed inside becomes `#012` and a NUL
//! `#000`, as rsyslog writes them, so that one message is one line and a spool holds no NUL; line feeds, carriage returns and NULs at the end are framing
//! and go. Everything else passes unchanged, also what is no UTF-8. Nothing but framing is no message.

use crate::source::spool::Batch;

/// By how much a message may grow at most.
pub(super) const GROWTH: usize = 4;

/// Adds a message to a batch, unless it is empty.
pub(super) fn add(message: &[u8], batch: &mut Batch) {
    let framing = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    let Some(last) = message.iter().rposition(|byte| !framing(byte)) else { return };
    let mut rest = message.get(..=last).unwrap_or_default();
    while let Some(at) = memchr::memchr2(b'\n', 0, rest) {
        let (before, after) = rest.split_at(at);
        batch.bytes.extend_from_slice(before);
        batch.bytes.extend_from_slice(if after.first() == Some(&0) { b"#000" } else { b"#012" });
        rest = after.get(1..).unwrap_or_default();
    }
    batch.bytes.extend_from_slice(rest);
    batch.bytes.push(b'\n');
    batch.messages += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_one_line() {
        let check = |message: &[u8], expect: &[u8]| {
            let mut batch = Batch::default();
            add(message, &mut batch);
            assert_eq!(batch.bytes, expect, "{message:?}");
            assert_eq!(batch.messages, u64::from(!expect.is_empty()));
        };
        check(b"<13>plain", b"<13>plain\n");
        check(b"<13>a\nb\0c\r\n\0", b"<13>a#012b#000c\n");
        check(b"\n\n\0", b"");
        check(b"", b"");
        check(b"\xff\xfe \r x", b"\xff\xfe \r x\n");
        check(b"\na", b"#012a\n");
    }
}
