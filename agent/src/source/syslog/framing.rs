//! Where messages end in a stream of bytes (RFC 6587): counted octets, or a line feed, decided message by message.
//!
//! In: bytes as they come. Out: whole messages in a batch. Promise: never keeps more than `max_message` bytes; a longer
//! message is cut there, counted, and the rest of it passed over. A count has at most seven digits and is followed by a
//! space: whatever else a message begins with, also a longer number, is text up to the next line feed. So no input is an
//! error, and what a stream breaks off in the middle of is still handed on, counted as cut when its count says so.

use super::message;
use crate::source::spool::Batch;

/// No message is longer than seven digits can say.
const MOST_DIGITS: usize = 7;

#[derive(Debug)]
pub(super) struct Deframer {
    state: State,
    message: Vec<u8>,
    max_message: usize,
    is_cut: bool,
    /// Messages that lost their end since the last look.
    cut: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Between,
    /// The digits so far are in `message`.
    Count,
    Counted {
        left: usize,
    },
    Line,
}

impl Deframer {
    pub(super) fn new(max_message: usize) -> Self {
        Self { state: State::Between, message: Vec::new(), max_message, is_cut: false, cut: 0 }
    }

    /// Takes the next bytes of the stream.
    pub(super) fn feed(&mut self, mut bytes: &[u8], batch: &mut Batch) {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Between => match first {
                    b'\n' | b'\r' | 0 => bytes = rest(bytes, 1),
                    b'1'..=b'9' => self.state = State::Count,
                    _ => self.state = State::Line,
                },
                State::Count => match first {
                    b'0'..=b'9' if self.message.len() < MOST_DIGITS => {
                        self.message.push(first);
                        bytes = rest(bytes, 1);
                    }
                    b' ' => {
                        let digits = std::str::from_utf8(&self.message).unwrap_or_default();
                        let left = digits.parse().unwrap_or(0);
                        self.message.clear();
                        self.state = State::Counted { left };
                        bytes = rest(bytes, 1);
                    }
                    _ => self.state = State::Line,
                },
                State::Counted { left } => {
                    let (part, more) = bytes.split_at(left.min(bytes.len()));
                    self.keep(part);
                    bytes = more;
                    match left - part.len() {
                        0 => self.end(batch),
                        left => self.state = State::Counted { left },
                    }
                }
                State::Line => match memchr::memchr(b'\n', bytes) {
                    Some(at) => {
                        self.keep(bytes.get(..at).unwrap_or_default());
                        bytes = rest(bytes, at + 1);
                        self.end(batch);
                    }
                    None => {
                        self.keep(bytes);
                        return;
                    }
                },
            }
        }
    }

    /// The stream has ended: what there is of a message is one.
    pub(super) fn finish(&mut self, batch: &mut Batch) {
        if let State::Counted { left: 1.. } = self.state {
            self.is_cut = true;
        }
        self.end(batch);
    }

    /// How many messages were cut since the last call.
    pub(super) fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    fn keep(&mut self, part: &[u8]) {
        let room = self.max_message.saturating_sub(self.message.len()).min(part.len());
        self.is_cut |= room < part.len();
        self.message.extend_from_slice(part.get(..room).unwrap_or_default());
    }

    fn end(&mut self, batch: &mut Batch) {
        message::add(&self.message, batch);
        self.cut += u64::from(std::mem::take(&mut self.is_cut));
        self.message.clear();
        self.message.shrink_to(4 * 1024);
        self.state = State::Between;
    }
}

fn rest(bytes: &[u8], from: usize) -> &[u8] {
    bytes.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the stream in pieces of every size; gives the lines and how many were cut.
    fn check(stream: &[u8], expect: &str, cut: u64) {
        for piece in [1, 2, 3, 7, 1000] {
            let (lines, found) = lines(stream, 16, piece);
            assert_eq!((lines.as_str(), found), (expect, cut), "{stream:?} by {piece}");
        }
    }

    fn lines(stream: &[u8], max_message: usize, piece: usize) -> (String, u64) {
        let mut deframer = Deframer::new(max_message);
        let mut batch = Batch::default();
        for bytes in stream.chunks(piece) {
            deframer.feed(bytes, &mut batch);
            assert!(deframer.message.len() <= max_message.max(MOST_DIGITS));
        }
        deframer.finish(&mut batch);
        (String::from_utf8_lossy(&batch.bytes).into_owned(), deframer.take_cut())
    }

    #[test]
    fn both_framings_may_follow_each_other() {
        check(b"<13>one\n<13>two\r\n", "<13>one\n<13>two\n", 0);
        check(b"7 <13>one7 <13>two", "<13>one\n<13>two\n", 0);
        check(b"7 <1>a\nb\0<2>x\n6 <3>yyy", "<1>a#012b\n<2>x\n<3>yyy\n", 0);
        check(b"\n\n\0<1>a\0\n\n", "<1>a\n", 0);
        check(b"9 123456789\n5 abcde", "123456789\nabcde\n", 0);
    }

    #[test]
    fn what_only_looks_like_a_count_is_text() {
        check(b"2026-11-27 up\n", "2026-11-27 up\n", 0);
        check(b"12345678 up\n", "12345678 up\n", 0);
        check(b"0 up\n12\n", "0 up\n12\n", 0);
    }

    #[test]
    fn what_has_no_end_is_cut_and_counted_and_keeps_no_memory() {
        check(&[b'x'; 5000], "xxxxxxxxxxxxxxxx\n", 1);
        check(b"9999999 <1>abcdefghijklmnopq", "<1>abcdefghijklm\n", 1);
        check(b"20 <1>abcdefghijklmnopq<2>next\n", "<1>abcdefghijklm\n<2>next\n", 1);
        check(b"<1>abcdefghijklmnopq\n<2>next\n", "<1>abcdefghijklm\n<2>next\n", 1);
    }

    #[test]
    fn a_stream_that_breaks_off_gives_what_it_had() {
        check(b"<1>a", "<1>a\n", 0);
        check(b"9 <1>a", "<1>a\n", 1);
        check(b"12", "12\n", 0);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(stream in prop::collection::vec(prop_oneof![
            Just(b'\n'), Just(0), Just(b' '), Just(b'1'), Just(b'9'), Just(b'x'), any::<u8>()
        ], 0..200), piece in 1usize..50) {
            prop_assert_eq!(lines(&stream, 16, piece), lines(&stream, 16, 1000));
        }
    }
}
