//! A compressed file as plain bytes: positions, head and tail hashes are those of what it holds.
//!
//! In: the open file and what a [`Survey`] found in it. Out: [`Bytes`]. Promise: the content is decompressed forward; memory
//! is a window around the position that is read, a decoder while it is being read, and nothing once it was read. Of a
//! damaged file only whole lines before the damage are content; what lies behind hashes to 0, as a gap does in the core.
//! A restart in the middle decompresses what lies before without sending it, a bounded part a turn ([`Packed::approach`]).
//! Not here: which file holds what another one held ([`super::copies`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use garam_proto::hash::{HEAD_BYTES, TAIL_BYTES};

use super::bytes::{Bytes, offset};
use super::survey::Survey;
use super::unpack::{Format, Unpacker};
use crate::source::Tail;

/// Decompressed at once.
const CHUNK: usize = 64 * 1024;
/// Decompressed in one turn on the way to a position.
const TURN: u64 = 4 * 1024 * 1024;

pub(super) struct Packed {
    format: Format,
    /// The first bytes of what it holds.
    head: Vec<u8>,
    /// Up to where it can be read.
    readable: u64,
    /// How long the content is as far as anybody knows: beyond `readable` it is lost.
    end: u64,
    /// How many compressed bytes there were when it was surveyed.
    pub(super) size: u64,
    /// Hashes known without reading.
    tails: HashMap<u64, u64>,
    cursor: RefCell<Option<Cursor>>,
    /// Bytes before this are not asked for again.
    floor: Cell<u64>,
    /// How far it had been read at the last look.
    pub(super) read_to: u128,
}

struct Cursor {
    unpacker: Unpacker,
    /// Content from `start` on.
    window: Vec<u8>,
    start: u64,
    used: Instant,
}

impl Packed {
    pub(super) fn new(format: Format, head: Vec<u8>, survey: Survey) -> Self {
        let whole = survey.fault.is_none();
        let readable = if whole { survey.end } else { survey.lines_end };
        // Where something is missing there is at least one byte.
        let end = if whole { readable } else { survey.end.max(readable + 1) };
        Self {
            format,
            head,
            readable,
            end,
            size: survey.size,
            tails: survey.tails,
            cursor: RefCell::new(None),
            floor: Cell::new(0),
            read_to: 0,
        }
    }

    /// One that was read before as far as it reaches, so that it need not be surveyed.
    pub(super) fn finished(format: Format, head: Vec<u8>, size: u64, end: u64, tail: u64) -> Self {
        let tails = HashMap::from([(end, tail)]);
        let survey = Survey { end, lines_end: end, fault: None, tails, size };
        Self::new(format, head, survey)
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.readable < self.end
    }

    /// From where on nothing can be read although there was something.
    pub(super) fn lost_from(&self) -> Option<u64> {
        self.is_damaged().then_some(self.readable)
    }

    /// The original was seen so long: of a damaged copy that much is lost.
    pub(super) fn was_as_long_as(&mut self, seen: u64) {
        if self.is_damaged() {
            self.end = self.end.max(seen);
        }
    }

    /// What is missing was never to be read from here.
    pub(super) fn forgive(&mut self) {
        self.end = self.readable;
    }

    /// Takes over what a later survey found of the same, longer file.
    pub(super) fn grow(&mut self, survey: Survey) {
        if survey.fault.is_none() && survey.end >= self.end {
            (self.readable, self.end) = (survey.end, survey.end);
            self.tails.extend(survey.tails);
            self.cursor.replace(None);
        }
        self.size = survey.size;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read_to >= u128::from(self.end)
    }

    pub(super) fn known_tail(&self, position: u128) -> Option<u64> {
        if position == 0 || position > u128::from(self.readable) {
            return Some(0);
        }
        self.tails.get(&u64::try_from(position).ok()?).copied()
    }

    /// How long ago it was read from, when it holds a decoder.
    pub(super) fn cursor_age(&self) -> Option<Duration> {
        self.cursor.borrow().as_ref().map(|cursor| cursor.used.elapsed())
    }

    pub(super) fn drop_cursor(&self) {
        self.cursor.replace(None);
    }

    pub(super) fn view<'a>(&'a self, file: &'a File) -> View<'a> {
        View { packed: self, file }
    }

    /// Decompresses a bounded part of what lies before a position; true when it is reached.
    pub(super) fn approach(&self, file: &File, position: u128) -> io::Result<bool> {
        let position = offset(position)?;
        self.floor.set(position.saturating_sub(TAIL_BYTES as u64));
        self.with_cursor(file, |cursor, floor| {
            if cursor.start > floor {
                *cursor = Cursor::new(self.format, file)?;
            }
            let goal = position.min(cursor.end().saturating_add(TURN));
            cursor.reach(goal, floor)?;
            Ok(cursor.end() >= position || cursor.end() < goal)
        })
        .map(|reached| reached || position > self.readable)
    }

    fn with_cursor<T>(
        &self,
        file: &File,
        act: impl FnOnce(&mut Cursor, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut slot = self.cursor.borrow_mut();
        let cursor = match &mut *slot {
            Some(cursor) => cursor,
            empty => empty.insert(Cursor::new(self.format, file)?),
        };
        cursor.used = Instant::now();
        let result = act(cursor, self.floor.get());
        if result.is_err() {
            *slot = None;
        }
        result
    }
}

impl Cursor {
    fn new(format: Format, file: &File) -> io::Result<Self> {
        let unpacker = Unpacker::new(format, file)?;
        Ok(Self { unpacker, window: Vec::new(), start: 0, used: Instant::now() })
    }

    fn end(&self) -> u64 {
        self.start + self.window.len() as u64
    }

    /// Decompresses until the window holds the content up to `goal`, or all there is; what lies before `floor` may go.
    fn reach(&mut self, goal: u64, floor: u64) -> io::Result<()> {
        while self.end() < goal {
            let spare = usize::try_from(floor.min(self.end()).saturating_sub(self.start));
            let spare = spare.unwrap_or(self.window.len());
            if spare >= CHUNK {
                self.window.drain(..spare);
                self.start += spare as u64;
            }
            let have = self.window.len();
            self.window.resize(have + CHUNK, 0);
            let filled = self.unpacker.fill(&mut self.window[have..]);
            self.window.truncate(have + *filled.as_ref().unwrap_or(&0));
            if filled? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// The content, with the file that holds it open.
pub(super) struct View<'a> {
    packed: &'a Packed,
    file: &'a File,
}

impl Bytes for View<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let to = offset.saturating_add(buffer.len() as u64).min(self.packed.readable);
        if offset >= to {
            return Ok(0);
        }
        self.packed.with_cursor(self.file, |cursor, floor| {
            if offset < cursor.start {
                *cursor = Cursor::new(self.packed.format, self.file)?;
            }
            cursor.reach(to, floor.min(offset))?;
            let from = usize::try_from(offset - cursor.start).unwrap_or(usize::MAX);
            let to = usize::try_from(to - cursor.start).unwrap_or(usize::MAX);
            let found = cursor.window.get(from..to.min(cursor.window.len())).unwrap_or_default();
            buffer[..found.len()].copy_from_slice(found);
            Ok(found.len())
        })
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.packed.readable)
    }

    fn check_tail(&self, position: u128, tail: u64) -> io::Result<Tail> {
        Ok(if self.tail_hash(position)? == tail { Tail::Same } else { Tail::Differs })
    }

    fn tail_hash(&self, position: u128) -> io::Result<u64> {
        if let Some(known) = self.packed.known_tail(position) {
            return Ok(known);
        }
        self.packed.floor.set(offset(position)?.saturating_sub(TAIL_BYTES as u64));
        let bytes =
            self.before(position)?.ok_or_else(|| io::Error::other("the content is shorter"))?;
        Ok(garam_proto::hash::tail_hash(&bytes))
    }
}

/// The first bytes of what a compressed file holds, as far as they can be decompressed.
pub(super) fn head(format: Format, file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let read = match Unpacker::new(format, file)?.fill(&mut head) {
        Ok(read) => read,
        Err(error) if error.raw_os_error().is_some() => return Err(error),
        Err(_) => 0,
    };
    head.truncate(read);
    Ok(head)
}
