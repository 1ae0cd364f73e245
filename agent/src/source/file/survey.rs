//! One pass through a compressed file before it is read: whether it is whole, how long its content is, and whether
//! that is what another file holds.
//!
//! In: an open file, positions whose tail hash is wanted, files that begin alike. Out: a [`Report`]. Promise: a thread of
//! its own, one file at a time, so that nothing waits for it; bounded memory; nothing is believed from a header.
//! Not here: what is done with the answer ([`super::copies`]).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;

use garam_proto::hash::{TAIL_BYTES, tail_hash};

use super::identity;
use super::unpack::{Format, Unpacker};
use crate::source::Handle;

const CHUNK: usize = 256 * 1024;

/// What a compressed file holds.
#[derive(Debug)]
pub(super) struct Survey {
    /// How many bytes came out.
    pub(super) end: u64,
    /// Where the last line ends.
    pub(super) lines_end: u64,
    /// Why no more came out, unless that is all.
    pub(super) fault: Option<String>,
    /// Hash of the ≤ 4 KiB before the positions that were asked for, and before the end.
    pub(super) tails: HashMap<u64, u64>,
    /// How many compressed bytes there were.
    pub(super) size: u64,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) survey: Survey,
    /// Whose content begins with all of this.
    pub(super) twin: Option<Handle>,
}

/// A file that begins as the compressed one does.
pub(super) enum Rival {
    Open {
        handle: Handle,
        file: File,
        format: Option<Format>,
    },
    /// It cannot be read any more, but this much was read.
    Gone {
        handle: Handle,
        end: u64,
        tail: u64,
    },
}

pub(super) struct Task {
    pub(super) file: File,
    pub(super) format: Format,
    pub(super) marks: Vec<u64>,
    pub(super) rivals: Vec<Rival>,
}

impl Task {
    /// Does it on a thread of its own.
    pub(super) fn start(self) -> io::Result<mpsc::Receiver<io::Result<Report>>> {
        let (answer, report) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("survey".into()).spawn(move || {
            // Nobody waits for it any more when the agent is ending.
            drop(answer.send(self.run()));
        })?;
        Ok(report)
    }

    pub(super) fn run(self) -> io::Result<Report> {
        let mut marks = self.marks;
        for rival in &self.rivals {
            if let Rival::Gone { end, .. } = rival {
                marks.push(*end);
            }
        }
        let survey = survey(&self.file, self.format, marks)?;
        let mut twin = None;
        for rival in self.rivals {
            let (handle, same) = match rival {
                Rival::Gone { handle, end, tail } => {
                    let same = survey.tails.get(&end) == Some(&tail);
                    (handle, end > 0 && survey.end >= end && same)
                }
                Rival::Open { handle, file, format } => {
                    (handle, begins_with(&file, format, &self.file, self.format, survey.end)?)
                }
            };
            if same {
                twin = Some(handle);
                break;
            }
        }
        Ok(Report { survey, twin })
    }
}

fn survey(file: &File, format: Format, mut marks: Vec<u64>) -> io::Result<Survey> {
    marks.sort_unstable();
    marks.dedup();
    let mut marks = marks.into_iter().filter(|mark| *mark > 0).peekable();
    let mut unpacker = Unpacker::new(format, file)?;
    let mut tails = HashMap::new();
    let (mut end, mut lines_end) = (0u64, 0u64);
    // The 4 KiB before the chunk stand before it in the buffer.
    let mut buffer = vec![0; TAIL_BYTES + CHUNK];
    let mut kept = 0;
    let fault = loop {
        let read = match unpacker.fill(&mut buffer[kept..kept + CHUNK]) {
            Ok(0) => break None,
            Ok(read) => read,
            // The disk does not answer: that says nothing about the content.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(error) => break Some(error.to_string()),
        };
        let start = end - kept as u64;
        end += read as u64;
        let bytes = &buffer[..kept + read];
        while let Some(mark) = marks.next_if(|mark| *mark <= end) {
            let upto = usize::try_from(mark - start).unwrap_or(usize::MAX);
            tails.insert(mark, tail_hash(bytes.get(..upto).unwrap_or_default()));
        }
        if let Some(newline) = memchr::memrchr(b'\n', &bytes[kept..]) {
            lines_end = start + (kept + newline) as u64 + 1;
        }
        let keep = bytes.len().min(TAIL_BYTES);
        let from = bytes.len() - keep;
        buffer.copy_within(from..from + keep, 0);
        kept = keep;
    };
    tails.insert(end, tail_hash(&buffer[..kept]));
    Ok(Survey { end, lines_end, fault, tails, size: file.metadata()?.size() })
}

/// Whether the content of `whole` begins with the first `len` bytes of what `file` holds.
fn begins_with(
    whole: &File,
    whole_format: Option<Format>,
    file: &File,
    format: Format,
    len: u64,
) -> io::Result<bool> {
    if whole_format.is_none() && whole.metadata()?.size() < len {
        return Ok(false);
    }
    let mut other = match whole_format {
        Some(format) => Some(Unpacker::new(format, whole)?),
        None => None,
    };
    let mut unpacker = Unpacker::new(format, file)?;
    let (mut mine, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        let read = unpacker.fill(&mut mine[..want])?;
        if read == 0 {
            return Err(io::Error::other("the file became shorter"));
        }
        let found = match &mut other {
            Some(other) => other.fill(&mut theirs[..read]).unwrap_or(0),
            None => identity::read_full(whole, &mut theirs[..read], at)?,
        };
        if found < read || mine[..read] != theirs[..read] {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
