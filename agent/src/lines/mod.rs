//! Lines into records, for sources that ask for more than plain lines: containers, multiline, masks, encodings.
//!
//! ```text
//! source bytes ─► lines ─► decode ─► unwrap (cri, docker) ─► group (multiline) ─► mask ─► wrap ─► records [start, end)
//! ```
//!
//! In: source bytes that begin where a record begins. Out: whole records with the source range each covers, and how far
//! the bytes are used up. Promise: a function of the bytes alone, so where reads happen to end changes nothing; no range is
//! left with a record half inside it; a record is never longer than the limit, a longer one is cut into several.
//! Not here: when a record that may still grow is given up on (the engine), files ([`crate::source::file`]).

mod container;
mod encoding;
mod group;
mod mask;

use std::time::Duration;

use container::Meta;
pub use container::{Container, Keep};
pub use encoding::{BadEncoding, Encoding};
pub use group::{BadRule, Multiline};
pub use mask::{BadMask, Mask};

/// What a `[[file]]` table asks for beyond plain lines.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub container: Option<Container>,
    /// How what the container wrapped around a line travels; `None`: not at all.
    pub keep: Option<Keep>,
    pub multiline: Option<Multiline>,
    /// How long the last group may still grow.
    pub timeout: Duration,
    pub masks: Vec<Mask>,
    pub encoding: Encoding,
    /// NUL bytes at the beginning of a line are a hole that a crash or a truncation left.
    pub skip_nul: bool,
}

/// A record and the source bytes it was made of, as offsets into the bytes given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub start: usize,
    pub end: usize,
    pub bytes: Vec<u8>,
}

/// What became of a run of bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub records: Vec<Record>,
    /// Everything before this is used up.
    pub used: usize,
    /// NUL bytes that were left out.
    pub skipped: u64,
    /// Characters that stand for bytes which are no text.
    pub replaced: u64,
}

/// How the bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// More may follow.
    Open,
    /// Nothing followed for a while: whole lines are not waited for any longer.
    Quiet,
    /// Nothing will follow: the last line may lack its end.
    Over,
}

/// A line, or what a container made of several.
#[derive(Debug)]
struct Piece {
    start: usize,
    end: usize,
    /// Lines of different lanes do not belong together (stdout and stderr).
    lane: u8,
    bytes: Vec<u8>,
    whole: bool,
    /// What a container wrapped around it.
    meta: Option<Meta>,
}

/// What the line at an offset lost on its way into text.
#[derive(Debug)]
struct Loss {
    at: usize,
    nuls: u64,
    replaced: u64,
}

impl Rules {
    /// Whether plain lines are all that is asked for.
    pub fn is_plain(&self) -> bool {
        self.container.is_none()
            && self.multiline.is_none()
            && self.masks.is_empty()
            && self.encoding == Encoding::Utf8
            && !self.skip_nul
    }

    /// Whether a record may be several lines.
    pub fn joins(&self) -> bool {
        self.container.is_some() || self.multiline.is_some()
    }

    /// Makes records of `bytes`. `at_start`: they are the first of their file, where a byte order mark may stand.
    pub fn take(&self, bytes: &[u8], ending: Ending, at_start: bool, longest: usize) -> Taken {
        let mut losses = Vec::new();
        let mut pieces = self.split(bytes, ending, at_start, &mut losses);
        let lines_end = pieces.last().map_or(0, |piece| piece.end);
        if let Some(container) = self.container {
            pieces = container.unwrap(pieces);
        }
        let mut groups = match &self.multiline {
            Some(multiline) => multiline.group(pieces, longest),
            None => pieces,
        };
        if ending != Ending::Open {
            groups.iter_mut().for_each(|group| group.whole = true);
        }
        let used = boundary(&groups, lines_end);
        groups.retain(|group| group.end <= used);
        let mut records: Vec<Record> =
            groups.into_iter().flat_map(|group| self.finish(group, longest)).collect();
        records.sort_by_key(|record| record.start);
        losses.retain(|loss| loss.at < used);
        Taken {
            records,
            used,
            skipped: losses.iter().map(|loss| loss.nuls).sum(),
            replaced: losses.iter().map(|loss| loss.replaced).sum(),
        }
    }

    fn split(
        &self,
        bytes: &[u8],
        ending: Ending,
        at_start: bool,
        losses: &mut Vec<Loss>,
    ) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < bytes.len() {
            let (end, content_end) = match self.encoding.line_end(bytes, start) {
                Some(ends) => ends,
                None if ending == Ending::Over => (bytes.len(), bytes.len()),
                None => break,
            };
            let mut content = bytes.get(start..content_end).unwrap_or_default();
            let hole = content.iter().take_while(|byte| self.skip_nul && **byte == 0).count();
            content = content.get(hole..).unwrap_or_default();
            let (mut line, replaced) = self.encoding.decode(content, at_start && start == 0);
            if hole > 0 || replaced > 0 {
                losses.push(Loss { at: start, nuls: hole as u64, replaced });
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            pieces.push(Piece { start, end, lane: 0, bytes: line, whole: true, meta: None });
            start = end;
        }
        pieces
    }

    /// Masks a group, wraps it again if so asked, and cuts it to the limit.
    fn finish(&self, group: Piece, longest: usize) -> Vec<Record> {
        let bytes = self.masks.iter().fold(group.bytes, |bytes, mask| mask.apply(bytes));
        let (start, end) = (group.start, group.end);
        let parts = match (self.keep, &group.meta) {
            (Some(keep), Some(meta)) => keep.wrap(meta, &bytes, longest),
            _ if bytes.len() <= longest => vec![bytes],
            _ => bytes.chunks(longest.max(1)).map(<[u8]>::to_vec).collect(),
        };
        // Each piece has a position of its own, so that the destination tells them apart.
        let places = (start..end).chain(std::iter::repeat(end.saturating_sub(1)));
        parts.into_iter().zip(places).map(|(bytes, start)| Record { start, end, bytes }).collect()
    }
}

/// The furthest offset that no unfinished group reaches behind and that lies inside no group.
fn boundary(groups: &[Piece], lines_end: usize) -> usize {
    let mut used = lines_end;
    loop {
        let inside = |group: &&Piece| group.start < used && (!group.whole || group.end > used);
        match groups.iter().filter(inside).map(|group| group.start).min() {
            Some(start) => used = start,
            None => return used,
        }
    }
}

#[cfg(test)]
mod tests;
