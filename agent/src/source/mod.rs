//! What the agent can read: the [`Source`] trait and its kinds.
//!
//! A source finds *origins* (a file, a server's timeline, a slot) and reads them forward from a position. It is driven by
//! the [`crate::engine`], which owns generations, marks, windows and acknowledgements; a source knows none of them.
//!
//! In: a position and the hash of what came before it. Out: a block's bytes, or the news that the origin is broken
//! (truncated, rewritten, another timeline) or gone. Promise: `read` returns bytes only if what precedes them still hashes
//! as the caller says, so a position is never continued in another content; a handle keeps its origin readable until
//! `close`, also when the file is renamed or unlinked. Calls may block on a disk; they come from one thread.
//! Not here: when to read, what is acknowledged, how a block is compressed.

pub mod file;
pub mod intake;
pub mod journal;
pub mod spool;
pub mod syslog;

use std::io;
use std::time::Duration;

use garam_proto::message::GapReason;
use garam_proto::{BlockKind, Descriptor, FileDescriptor, SourceName, StreamName};

/// A source's own number for an origin it holds open. Never reused while the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// An origin met for the first time in this process.
#[derive(Debug, Clone)]
pub struct Met {
    pub handle: Handle,
    pub source: SourceName,
    pub stream: StreamName,
    pub descriptor: Descriptor,
    /// What the lineage is derived from: for a file the path it was first met under.
    pub lineage_key: Vec<u8>,
    /// Older origins of a lineage are read first. Nanoseconds since the epoch where the source knows a time.
    pub age: i128,
    /// Where reading begins if nobody knows this origin yet.
    pub start: u128,
    /// The longest record that travels whole, bytes.
    pub max_record: usize,
    /// A last record without its end is shipped after so long a quiet, marked as unterminated.
    pub flush_partial: Option<Duration>,
}

/// Where the configuration sends an origin now.
#[derive(Debug, Clone)]
pub struct Place {
    pub source: SourceName,
    pub stream: StreamName,
    pub max_record: usize,
    pub flush_partial: Option<Duration>,
}

/// How well an origin fits a registered descriptor and the mark that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Another origin.
    No,
    /// The same origin, but its content before the mark is another: truncated or rewritten.
    Rewritten,
    /// Equal by path and content, with a full tail: enough when nothing fits better.
    ByContent,
    /// The same origin beyond doubt.
    Exact,
}

/// An origin known from a checkpoint or from the core.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub descriptor: &'a Descriptor,
    pub mark: u128,
    pub tail_hash: u64,
    /// The largest end that was seen.
    pub seen: u128,
    /// From this agent's own checkpoint: inode and path suffice where the file system has no birth times.
    pub own: bool,
}

/// A file of the checkpoint, told to the source before the first search.
#[derive(Debug, Clone)]
pub struct Expected {
    pub descriptor: FileDescriptor,
    pub mark: u128,
    pub tail_hash: u64,
    pub seen: u128,
}

impl Expected {
    pub(crate) fn of(descriptor: &FileDescriptor, known: &Known<'_>) -> Self {
        let descriptor = descriptor.clone();
        Self { descriptor, mark: known.mark, tail_hash: known.tail_hash, seen: known.seen }
    }
}

/// What became of an origin that is to be let go ([`Source::take_copy`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    No,
    /// A copy of it may lie there, which nobody has looked through yet.
    Later,
    /// The handle reads a copy now, which goes by this descriptor.
    Taken(Descriptor),
}

/// Whether the bytes before a position are still those that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    Same,
    Differs,
    /// The origin ends before the position.
    TooShort,
}

/// What an origin looks like now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// One past the last position that exists.
    pub end: u128,
    /// Nothing links to it any more: it vanishes when the handle is closed.
    pub unlinked: bool,
    /// It left its place (renamed out of the globs, unlinked) and the time to wait for late writers is over.
    pub left: bool,
    /// It will not grow any more, and is to be let go as soon as the core has all of it.
    pub ended: bool,
}

/// The result of [`Source::look`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Live(Look),
    /// What was read before `position` is no longer there: a new generation begins at 0.
    Broken(GapReason),
}

/// How blocks are cut.
#[derive(Debug, Clone, Copy)]
pub struct CutLimits {
    /// Raw bytes after which a block is cut.
    pub block_size: usize,
    /// The longest record that travels whole.
    pub max_record: usize,
    /// Also take a last record that may still grow.
    pub flush: bool,
    /// The origin will not grow any more. Else a flush only means that it was quiet for a while.
    pub over: bool,
}

/// A block's place and kind; its bytes are in the buffer the caller gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub to: u128,
    pub kind: BlockKind,
    /// [`garam_proto::block`] flags.
    pub flags: u8,
    /// Hash of the ≤ 4 KiB of source bytes before `to`.
    pub tail_hash: u64,
    /// Where reading must restart after this block, when that is more than a position.
    pub resume: Option<Vec<u8>>,
    /// How many records, where the source counted them anyway; else the compressor does.
    pub records: Option<u32>,
    /// Source bytes of the range that are deliberately not in it.
    pub skipped: u64,
}

/// The result of [`Source::read`].
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Block(Cut),
    /// No complete record yet.
    Nothing,
    Broken(GapReason),
}

/// A set of origins of one kind.
pub trait Source: Send {
    /// Searches for origins that were not met yet, oldest first.
    fn discover(&mut self) -> Vec<Met>;

    /// Opens the origin that a descriptor names although no search finds it (renamed out of the globs while the agent
    /// was down), if it can be found cheaply.
    fn seek(&mut self, wanted: &Descriptor) -> Option<Met>;

    /// Whether the place the origin lived in can be looked into, so that its absence means something.
    fn is_reachable(&self, wanted: &Descriptor) -> bool;

    /// How well an open origin fits a known one, its tail included.
    fn fit(&mut self, handle: Handle, known: Known<'_>) -> io::Result<Fit>;

    /// The descriptor as of now, for a new generation of the same origin.
    fn describe(&mut self, handle: Handle) -> io::Result<Descriptor>;

    /// Compares the bytes before `position` with their hash.
    fn check_tail(&mut self, handle: Handle, position: u128, tail_hash: u64) -> io::Result<Tail>;

    /// Hash of the bytes before `position`.
    fn tail_hash(&mut self, handle: Handle, position: u128) -> io::Result<u64>;

    /// Looks at the origin without reading it; `position` and `tail_hash` say how far it was read.
    fn look(&mut self, handle: Handle, position: u128, tail_hash: u64) -> io::Result<Seen>;

    /// Reads the block that begins at `position` into `buffer`, replacing what is in it. `WouldBlock`: it takes another turn to
    /// get there; `ResourceBusy`: others are to be read first.
    fn read(
        &mut self,
        handle: Handle,
        position: u128,
        tail_hash: u64,
        limits: &CutLimits,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Read>;

    /// Takes in what was told since the last time; true when a search is needed to know what it means.
    fn listen(&mut self) -> bool {
        false
    }

    /// Whether whatever changes is told, so that searches may be rare.
    fn is_watched(&self) -> bool {
        false
    }

    /// Whether more of it can become readable without anything that a watch or a search would see.
    fn grows_unseen(&self, _handle: Handle) -> bool {
        false
    }

    /// How many characters stand for bytes that are no text in what was read since the last time.
    fn replaced(&mut self) -> u64 {
        0
    }

    /// Tells what the checkpoint remembers, before the first search.
    fn expect(&mut self, _known: Vec<Expected>) {}

    /// Whether the origin will never grow, so that its last record is complete without an end.
    fn is_final(&self, _handle: Handle) -> bool {
        false
    }

    /// Whether something older of the lineage was found that cannot be read yet.
    fn awaits(&self, _handle: Handle) -> bool {
        false
    }

    /// From where on the content is known to be unreadable for ever.
    fn lost_from(&self, _handle: Handle) -> Option<u128> {
        None
    }

    /// The origin is let go: a copy of it may take its place, so that it goes on under the same handle.
    fn take_copy(&mut self, _handle: Handle, _position: u128) -> Copied {
        Copied::No
    }

    /// The descriptor to ask the core with.
    fn sought(&mut self, handle: Handle) -> io::Result<Descriptor> {
        self.describe(handle)
    }

    /// Origins that the last search saw changed, or that were told of since.
    fn changed(&mut self) -> Vec<Handle>;

    /// Takes another configuration; what is open stays open.
    fn reload(&mut self, files: Vec<file::FileSet>);

    /// Where the configuration sends the origin; `None` when it names it no more.
    fn place(&self, handle: Handle) -> Option<Place>;

    /// The core has all of an origin that has ended: what was kept for its sake may be removed.
    fn finished(&mut self, handle: Handle) -> io::Result<()>;

    /// What is kept on the disk because it cannot be read again.
    fn spools(&self) -> Vec<spool::SpoolStatus>;

    /// Lets the origin go.
    fn close(&mut self, handle: Handle);

    /// What to show a person.
    fn label(&self, handle: Handle) -> String;
}
