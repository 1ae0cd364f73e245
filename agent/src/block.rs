//! Where a block of lines ends: pure decisions on bytes already read.
//!
//! In: the bytes from a position on, whether the byte before them ended a line, and whether more may follow at once.
//! Out: a length and the flags of [`garam_proto::block`]. Promise: a block ends behind a newline unless it says
//! `UNTERMINATED`; nothing here looks at single lines.
//!
//! ```text
//!  … last line\n│first line\nsecond line\nthi│rd line, not complete yet
//!     before    └──────── the block ───────┘
//! ```

use garam_proto::block::{CONTINUES, UNTERMINATED};
use garam_proto::hash::{TAIL_BYTES, tail_hash};

/// What to do with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A block of this many bytes.
    Cut { len: usize, flags: u8 },
    /// A full buffer without an end of line: look for it further on.
    Grow,
    /// No complete line yet.
    Nothing,
}

/// Decides on `data`. `continues`: the byte before it was not a newline. `full`: the buffer is full, so more bytes may
/// follow. `flush`: the file will not grow any more, take what is there.
pub fn decide(data: &[u8], continues: bool, full: bool, flush: bool) -> Decision {
    let first = if continues { CONTINUES } else { 0 };
    if let Some(last_newline) = memchr::memrchr(b'\n', data) {
        return Decision::Cut { len: last_newline + 1, flags: first };
    }
    match (full, continues, flush && !data.is_empty()) {
        // Inside a line that is being cut already: pass it on piece by piece, in bounded memory.
        (true, true, _) => Decision::Cut { len: data.len(), flags: first | UNTERMINATED },
        (true, false, _) => Decision::Grow,
        (false, _, true) => Decision::Cut { len: data.len(), flags: first | UNTERMINATED },
        (false, _, false) => Decision::Nothing,
    }
}

/// Hash of the last 4 KiB of `before` followed by `block`.
pub fn tail_after(before: &[u8], block: &[u8]) -> u64 {
    if block.len() >= TAIL_BYTES || before.is_empty() {
        return tail_hash(block);
    }
    let keep = (TAIL_BYTES - block.len()).min(before.len());
    let mut tail = Vec::with_capacity(TAIL_BYTES);
    tail.extend_from_slice(&before[before.len() - keep..]);
    tail.extend_from_slice(block);
    tail_hash(&tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &str, continues: bool, full: bool, flush: bool, expect: Decision) {
        assert_eq!(decide(data.as_bytes(), continues, full, flush), expect, "{data:?}");
    }

    #[test]
    fn a_block_ends_behind_its_last_newline() {
        check("a\nbc\nd", false, false, false, Decision::Cut { len: 5, flags: 0 });
        check("a\nbc\nd", false, true, true, Decision::Cut { len: 5, flags: 0 });
        check("\n", false, false, false, Decision::Cut { len: 1, flags: 0 });
    }

    #[test]
    fn a_line_without_end_is_held_until_the_file_is_over() {
        check("abc", false, false, false, Decision::Nothing);
        check("abc", false, false, true, Decision::Cut { len: 3, flags: UNTERMINATED });
        check("", false, false, true, Decision::Nothing);
    }

    #[test]
    fn a_full_buffer_without_newline_grows_once_and_then_passes_on() {
        check("abc", false, true, false, Decision::Grow);
        check("abc", true, true, false, Decision::Cut { len: 3, flags: CONTINUES | UNTERMINATED });
        check("abc\nd", true, true, false, Decision::Cut { len: 4, flags: CONTINUES });
    }

    #[test]
    fn the_tail_hash_does_not_depend_on_where_blocks_were_cut() {
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 253) as u8).collect();
        for cut in [0, 1, 100, 4095, 4096, 9_000, 19_999] {
            let (before, block) = bytes.split_at(cut);
            assert_eq!(tail_after(before, block), tail_hash(&bytes), "cut at {cut}");
        }
    }
}
