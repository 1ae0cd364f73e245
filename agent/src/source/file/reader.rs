//! The block at a position of a file: which bytes belong to it.
//!
//! In: a position and the hash of the ≤ 4 KiB before it. Out: a block's bytes in the caller's buffer.
//! Promise: the bytes before the block are compared *after* the block was read, so a truncation in between is seen, and a
//! position is never continued in other content. Memory: the caller's buffer, at most one `max_record`; a line still
//! growing is searched through a fixed scratch and never twice. Not here: where the bytes come from ([`super::bytes`]).

use std::io;

use std::sync::Arc;

use garam_proto::BlockKind;
use garam_proto::block::{CONTINUES, RecordsBuilder, UNTERMINATED};
use garam_proto::hash::tail_hash;
use garam_proto::message::GapReason;

use super::bytes::{Bytes, offset};
use crate::block::{Decision, decide, tail_after};
use crate::lines::{Ending, Rules, Taken};
use crate::source::{Cut, CutLimits, Read, Tail};

const SCRATCH: usize = 64 * 1024;

/// Cuts one file into blocks.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// No newline in `[0, 1)` of a line longer than a block that is still being searched.
    searched: Option<(u64, u64)>,
    /// `None`: lines as they are, in blocks nobody looks into.
    rules: Option<Arc<Rules>>,
    /// Source bytes on their way into records.
    scratch: Vec<u8>,
    /// Characters that stand for bytes which are no text, since somebody asked.
    replaced: u64,
}

impl Reader {
    pub(super) fn new(rules: Option<Arc<Rules>>) -> Self {
        Self { rules, ..Self::default() }
    }

    pub(super) fn set_rules(&mut self, rules: Option<Arc<Rules>>) {
        self.rules = rules;
    }

    pub(super) fn replaced(&mut self) -> u64 {
        std::mem::take(&mut self.replaced)
    }

    pub(super) fn read(
        &mut self,
        file: &dyn Bytes,
        position: u128,
        tail: u64,
        limits: &CutLimits,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Read> {
        let from = offset(position)?;
        if let Some(rules) = self.rules.clone() {
            return self.read_records(&rules, file, position, tail, limits, buffer);
        }
        // Not cleared first: only what the last block cut off is zeroed again.
        buffer.resize(limits.block_size, 0);
        let read = file.read_at(buffer, from)?;
        let mut before = [0u8; 1];
        let continues = from > 0 && file.read_at(&mut before, from - 1)? == 1 && before != *b"\n";
        let full = read == limits.block_size;
        let decision = decide(&buffer[..read], continues, full, limits.flush);
        let (len, flags) = match decision {
            Decision::Nothing => return unless_broken(file, position, tail, Read::Nothing),
            Decision::Cut { len, flags } => (len, flags),
            Decision::Grow => match self.find_end(file, from, read, limits)? {
                None => return unless_broken(file, position, tail, Read::Nothing),
                Some((len, flags)) => {
                    buffer.resize(len, 0);
                    let got = file.read_at(&mut buffer[read..], from + read as u64)?;
                    if read + got < len {
                        return unless_broken(file, position, tail, Read::Nothing);
                    }
                    (len, flags)
                }
            },
        };
        self.searched = None;
        buffer.truncate(len);
        let Some(before) = file.before(position)?.filter(|b| tail_hash(b) == tail) else {
            return Ok(Read::Broken(GapReason::Truncated));
        };
        let flags = match before.last() {
            Some(b'\n') | None => flags & !CONTINUES,
            Some(_) => flags | CONTINUES,
        };
        Ok(Read::Block(Cut {
            to: position + len as u128,
            kind: BlockKind::Lines,
            flags,
            tail_hash: tail_after(&before, buffer),
            resume: None,
            records: None,
            skipped: 0,
        }))
    }

    /// The same for sources with rules: whole records, however many lines each is made of.
    fn read_records(
        &mut self,
        rules: &Rules,
        file: &dyn Bytes,
        position: u128,
        tail: u64,
        limits: &CutLimits,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Read> {
        let mut source = std::mem::take(&mut self.scratch);
        let taken = take_records(rules, file, offset(position)?, limits, &mut source);
        let outcome = match taken {
            Ok(taken) if taken.records.is_empty() => {
                unless_broken(file, position, tail, Read::Nothing)
            }
            Ok(taken) => {
                self.replaced += taken.replaced;
                close_records(file, position, tail, &taken, &source, buffer)
            }
            Err(error) => Err(error),
        };
        if source.capacity() <= 4 * limits.block_size {
            self.scratch = source;
        }
        outcome
    }

    /// Searches the end of a line that fills a whole block: its length, `max_record` when it is longer, `None` when the
    /// file ends before either.
    fn find_end(
        &mut self,
        file: &dyn Bytes,
        from: u64,
        known: usize,
        limits: &CutLimits,
    ) -> io::Result<Option<(usize, u8)>> {
        let longest = from + limits.max_record.max(limits.block_size) as u64;
        let mut at = match self.searched {
            Some((start, searched)) if start == from => searched.max(from + known as u64),
            _ => from + known as u64,
        };
        let mut scratch = vec![0; SCRATCH];
        // One byte further than the longest record: its newline may stand there.
        while at <= longest {
            let want = usize::try_from(longest + 1 - at).unwrap_or(SCRATCH).min(SCRATCH);
            let read = file.read_at(&mut scratch[..want], at)?;
            if let Some(newline) = memchr::memchr(b'\n', &scratch[..read]) {
                let len = at + newline as u64 + 1 - from;
                return Ok(Some((usize::try_from(len).unwrap_or(usize::MAX), 0)));
            }
            at += read as u64;
            self.searched = Some((from, at));
            if read < want {
                let all = usize::try_from(at - from).unwrap_or(usize::MAX);
                return Ok(limits.flush.then_some((all, UNTERMINATED)));
            }
        }
        Ok(Some((limits.max_record.max(limits.block_size), UNTERMINATED)))
    }
}

/// Reads until at least one record is complete, the file ends, or the longest record fits.
fn take_records(
    rules: &Rules,
    file: &dyn Bytes,
    from: u64,
    limits: &CutLimits,
    source: &mut Vec<u8>,
) -> io::Result<Taken> {
    let longest = limits.max_record.max(limits.block_size);
    let mut want = limits.block_size;
    let mut read = 0;
    loop {
        source.resize(want, 0);
        read += file.read_at(source.get_mut(read..).unwrap_or_default(), from + read as u64)?;
        let bytes = source.get(..read).unwrap_or_default();
        let ends = read < want;
        let ending = match (ends, limits.over, limits.flush) {
            (true, true, _) => Ending::Over,
            (true, false, true) => Ending::Quiet,
            _ => Ending::Open,
        };
        let take = |ending| rules.take(bytes, ending, from == 0, limits.max_record);
        let taken = take(ending);
        if taken.used > 0 || ends {
            return Ok(taken);
        }
        if want >= longest {
            // Longer than any record may be: what is there is taken, first by whole lines, then wherever it ends.
            let lines = take(Ending::Quiet);
            return Ok(if lines.used > 0 { lines } else { take(Ending::Over) });
        }
        want = (want * 2).min(longest);
    }
}

/// Builds the block, after a look whether what stands before it is still the same.
fn close_records(
    file: &dyn Bytes,
    position: u128,
    tail: u64,
    taken: &Taken,
    source: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<Read> {
    let Some(before) = file.before(position)?.filter(|b| tail_hash(b) == tail) else {
        return Ok(Read::Broken(GapReason::Truncated));
    };
    let mut builder = RecordsBuilder::new(position);
    for record in &taken.records {
        builder.push(position + record.start as u128, &record.bytes);
    }
    let (payload, records) = builder.finish();
    *buffer = payload;
    Ok(Read::Block(Cut {
        to: position + taken.used as u128,
        kind: BlockKind::Records,
        flags: 0,
        tail_hash: tail_after(&before, source.get(..taken.used).unwrap_or_default()),
        resume: None,
        records: Some(records),
        skipped: taken.skipped,
    }))
}

/// Where the last line that is not complete yet begins: the place to start at "the end".
pub(super) fn last_line_start(file: &dyn Bytes) -> io::Result<u128> {
    let size = file.size()?;
    let from = size.saturating_sub(SCRATCH as u64);
    let mut last = vec![0; usize::try_from(size - from).unwrap_or(SCRATCH)];
    let read = file.read_at(&mut last, from)?;
    let newline = memchr::memrchr(b'\n', &last[..read]).map(|at| from + at as u64 + 1);
    Ok(u128::from(newline.unwrap_or(if from == 0 { 0 } else { size })))
}

fn unless_broken(file: &dyn Bytes, position: u128, tail: u64, otherwise: Read) -> io::Result<Read> {
    Ok(match file.check_tail(position, tail)? {
        Tail::Same => otherwise,
        Tail::Differs | Tail::TooShort => Read::Broken(GapReason::Truncated),
    })
}
