//! `garam-agent fsck`: what is remembered against what is on the disk. Reads only, beside a running agent too.
//!
//! In: a state folder. Out: a [`Findings`], one line per remembered file. Promise: nothing is written, locked or repaired: a
//! start of the agent heals what can be healed, and here stands what it would find. The exit code: 0 sound · 1 no checkpoint
//! is whole · 3 there is none · 7 the newer one is damaged, or a file is gone, rewritten or unreadable · 78 a newer format.

use std::io::Write;
use std::path::Path;

use garam_proto::shown::escape;
use serde::Serialize;

use crate::checkpoint::{self, CheckpointError, Entry, FileState};
use crate::source::file::{Condition, inspect};

/// What was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// `whole`, `damaged`, `absent` or `newer`, of the checkpoint and of the generation before it.
    pub checkpoint: &'static str,
    pub previous: &'static str,
    /// Why a checkpoint is not whole.
    pub why: Option<String>,
    pub files: Vec<File>,
    /// Bytes that the next start will read, and those that it will report as gaps.
    pub unread_bytes: u64,
    pub lost_bytes: u64,
    pub ok: bool,
    #[serde(skip)]
    pub exit_code: u8,
}

/// One remembered file.
#[derive(Debug, Serialize)]
pub struct File {
    pub path: String,
    pub generation: String,
    /// `same`, `moved`, `rewritten`, `missing`, `unreadable`, or `lost` when its gap is still to be reported.
    pub state: &'static str,
    /// Where it is now, when that is elsewhere.
    pub now: Option<String>,
    pub mark: u64,
    /// Where it ends, or ended when it was seen last.
    pub end: u64,
    pub why: Option<String>,
}

/// Looks at a state folder and at every file it remembers.
pub fn check(state_dir: &Path) -> Result<Findings, CheckpointError> {
    let [(_, newest), (_, before)] = checkpoint::inspect(state_dir)?;
    let (checkpoint, previous) = (name(&newest), name(&before));
    let why = [&newest, &before].into_iter().find_map(|state| match state {
        FileState::Damaged(why) => Some((*why).to_owned()),
        FileState::Newer(format) => Some(format!("format {format} is newer than this agent")),
        FileState::Absent | FileState::Whole(_) => None,
    });
    let newer = [&newest, &before].iter().any(|state| matches!(state, FileState::Newer(_)));
    let whole = matches!(newest, FileState::Whole(_));
    let absent = newest == FileState::Absent && before == FileState::Absent;
    let entries = match (newest, before) {
        (FileState::Whole(entries), _) | (_, FileState::Whole(entries)) => Some(entries),
        _ => None,
    };
    let files: Vec<File> = entries.iter().flatten().map(look).collect();
    let sound = files.iter().all(|file| matches!(file.state, "same" | "moved"));
    let exit_code = match (&entries, newer, absent) {
        (_, true, _) => 78,
        (None, _, true) => 3,
        (None, _, false) => 1,
        (Some(_), ..) if whole && sound => 0,
        (Some(_), ..) => 7,
    };
    let rest = |lost: bool| {
        let those = files.iter().filter(|file| matches!(file.state, "same" | "moved") != lost);
        those.map(|file| file.end.saturating_sub(file.mark)).sum()
    };
    let (unread_bytes, lost_bytes) = (rest(false), rest(true));
    let ok = exit_code == 0;
    Ok(Findings { checkpoint, previous, why, files, unread_bytes, lost_bytes, ok, exit_code })
}

fn name(state: &FileState) -> &'static str {
    match state {
        FileState::Absent => "absent",
        FileState::Whole(_) => "whole",
        FileState::Damaged(_) => "damaged",
        FileState::Newer(_) => "newer",
    }
}

fn look(entry: &Entry) -> File {
    let bytes = |position: u128| u64::try_from(position).unwrap_or(u64::MAX);
    let path = String::from_utf8_lossy(&entry.descriptor.path).into_owned();
    let mut file = File {
        path,
        generation: entry.generation.to_string(),
        state: "lost",
        now: None,
        mark: bytes(entry.mark),
        end: bytes(entry.seen),
        why: None,
    };
    if entry.lost {
        return file;
    }
    match inspect(&entry.descriptor, entry.mark, entry.tail_hash) {
        Condition::Same { path, end } => {
            let moved = path.as_os_str().as_encoded_bytes() != entry.descriptor.path;
            file.state = if moved { "moved" } else { "same" };
            file.now = moved.then(|| path.display().to_string());
            file.end = bytes(end);
        }
        Condition::Rewritten { path } => {
            file.state = "rewritten";
            file.now = Some(path.display().to_string());
        }
        Condition::Missing => file.state = "missing",
        Condition::Unreadable { path, error } => {
            file.state = "unreadable";
            file.now = Some(path.display().to_string());
            file.why = Some(error.to_string());
        }
    }
    file
}

/// Prints the findings for a person.
pub fn table(findings: &Findings, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "checkpoint  {}   the one before it  {}{}",
        findings.checkpoint,
        findings.previous,
        findings.why.as_ref().map_or(String::new(), |why| format!("   ({why})"))
    )?;
    writeln!(
        out,
        "files       {}   unread {} bytes   lost {} bytes\n",
        findings.files.len(),
        findings.unread_bytes,
        findings.lost_bytes
    )?;
    writeln!(out, "{:<10} {:>14} {:>14} FILE", "STATE", "MARK", "END")?;
    for file in &findings.files {
        let now = file.now.as_ref().map_or(String::new(), |now| format!("  now {}", escape(now)));
        let why = file.why.as_ref().map_or(String::new(), |why| format!("  ({})", escape(why)));
        let path = escape(&file.path);
        writeln!(out, "{:<10} {:>14} {:>14} {path}{now}{why}", file.state, file.mark, file.end)?;
    }
    writeln!(out, "{}", if findings.ok { "sound" } else { "not sound: see above" })
}
