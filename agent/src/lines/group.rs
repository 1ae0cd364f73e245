//! Multiline: which lines belong to the record that the line before them began.
//!
//! In: lines in order, of one or more lanes. Out: groups; the last one of each lane is not whole, since the next line may
//! belong to it. Promise: each lane is grouped as if it were alone; a group beyond the limit is closed and the next line
//! begins another. Not here: for how long a group stays open ([`super::Ending`]).

use std::collections::HashMap;
use std::sync::Arc;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::Piece;

/// When a line belongs to the one before.
#[derive(Debug, Clone)]
pub enum Multiline {
    /// Unless it matches.
    Start(Arc<Regex>),
    /// If it matches.
    Continue(Arc<Regex>),
    /// Frames, causes and the exception under a log line, as the JVM prints them.
    Java(Arc<Regex>),
    /// A traceback up to the line that names the exception, and the tracebacks chained to it.
    Python,
    /// What the Go runtime prints when a program panics.
    Go(Arc<Regex>),
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRule {
    #[error("{name:?} is no ready rule; choose java, python or go, or give start or continue")]
    Name { name: String },
    #[error("{pattern:?} is no pattern: {why}")]
    Pattern { pattern: String, why: String },
}

const JAVA: &str = r"^\s+(?:at |\.\.\. \d+ |Suppressed: |Caused by: )|^Caused by: |^(?:[a-zA-Z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable)(?::|\s|$)";
const GO: &str = r"^\s|^$|^goroutine \d+ \[|^[^\s()]+\(.*\)$|^[^\s]+\.\(?[^\s]*\)?\(.*\)$|^created by |^exit status |^\[signal |^panic: |^runtime\.";

/// Where a rule with a memory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    /// The frames of a traceback, or a panic.
    Frames,
    /// Behind the line that named the exception.
    Named,
}

impl Multiline {
    pub fn start(pattern: &str) -> Result<Self, BadRule> {
        Ok(Self::Start(pattern_of(pattern)?))
    }

    pub fn continued(pattern: &str) -> Result<Self, BadRule> {
        Ok(Self::Continue(pattern_of(pattern)?))
    }

    pub fn ready(name: &str) -> Result<Self, BadRule> {
        match name {
            "java" => Ok(Self::Java(pattern_of(JAVA)?)),
            "python" => Ok(Self::Python),
            "go" => Ok(Self::Go(pattern_of(GO)?)),
            _ => Err(BadRule::Name { name: name.into() }),
        }
    }

    pub(super) fn group(&self, lines: Vec<Piece>, longest: usize) -> Vec<Piece> {
        let mut groups: Vec<Piece> = Vec::new();
        // Per lane: the group that may grow, and what the rule remembers.
        let mut open: HashMap<u8, (usize, Inside)> = HashMap::new();
        for line in lines {
            let begun = open.get(&line.lane).copied();
            let inside = begun.map_or(Inside::Nothing, |(_, inside)| inside);
            let (continues, inside) = self.judge(&line.bytes, inside);
            let group = begun.and_then(|(at, _)| groups.get_mut(at).map(|group| (at, group)));
            match group {
                Some((at, group))
                    if continues && group.bytes.len() + line.bytes.len() < longest =>
                {
                    group.bytes.push(b'\n');
                    group.bytes.extend_from_slice(&line.bytes);
                    group.end = line.end;
                    // A line that still lacks a part keeps its group open.
                    open.insert(line.lane, (at, inside));
                }
                before => {
                    if let Some((_, before)) = before {
                        before.whole = true;
                    }
                    open.insert(line.lane, (groups.len(), inside));
                    groups.push(Piece { whole: false, ..line });
                }
            }
        }
        groups
    }

    /// Whether the line continues what is before it, and what to remember for the next.
    fn judge(&self, line: &[u8], inside: Inside) -> (bool, Inside) {
        match self {
            Self::Start(start) => (!start.is_match(line), Inside::Nothing),
            Self::Continue(more) | Self::Java(more) => (more.is_match(line), Inside::Nothing),
            Self::Python => python(line, inside),
            Self::Go(frame) => {
                let begins = line.starts_with(b"panic: ") || line.starts_with(b"fatal error: ");
                match (begins, inside) {
                    (_, Inside::Frames) if frame.is_match(line) => (true, Inside::Frames),
                    (true, _) => (false, Inside::Frames),
                    _ => (false, Inside::Nothing),
                }
            }
        }
    }
}

fn python(line: &[u8], inside: Inside) -> (bool, Inside) {
    let indented = line.first().is_none_or(|byte| byte.is_ascii_whitespace());
    let chained = line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause");
    if line.starts_with(b"Traceback (most recent call last):") {
        return (true, Inside::Frames);
    }
    match inside {
        Inside::Frames if indented => (true, Inside::Frames),
        Inside::Frames => (true, Inside::Named),
        Inside::Named if line.is_empty() || chained => (true, Inside::Named),
        _ => (false, Inside::Nothing),
    }
}

fn pattern_of(pattern: &str) -> Result<Arc<Regex>, BadRule> {
    compile(pattern).map(Arc::new).map_err(|why| BadRule::Pattern { pattern: pattern.into(), why })
}

/// Compiles a pattern for bytes that need not be text.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let config = Regex::config().utf8_empty(false).nfa_size_limit(Some(4 << 20));
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build(pattern)
        .map_err(|error| {
            // The outer text only says that it failed; the one below says where.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.unwrap_or_else(|| error.to_string())
        })
}
