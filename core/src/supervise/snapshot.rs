//! What is seen of the tree at one moment, and how it is drawn. Stable JSON: `/v1/tree` serves it, `garam tree` draws it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_proto::shown::escape;
use serde::{Deserialize, Serialize};

use super::exit::Fault;
use super::policy::kind_name;

/// One node of the tree and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    /// Names from below the root, joined by `/`; empty for the root.
    pub path: String,
    /// `task`, or the strategy of a branch.
    pub role: String,
    #[serde(flatten)]
    pub state: State,
    /// How often it was started.
    pub generation: u64,
    /// How often it was restarted, by its own fault or with its group.
    pub restarts: u64,
    pub last_fault: Option<LastFault>,
    /// Since the newest generation began; `None` while none runs.
    pub uptime_ms: Option<u64>,
    /// Since the last sign of life; zero while it waits for somebody. Only tasks with a progress deadline have it.
    pub since_progress_ms: Option<u64>,
    pub children: Vec<Snapshot>,
}

/// What a child is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Runs, but has given no sign of life yet.
    Starting,
    Running,
    /// Runs, and waits for somebody else.
    Waiting {
        on: String,
    },
    /// Was asked to stop or cut off, and is not gone yet.
    Stopping,
    BackingOff {
        retry_in_ms: u64,
    },
    /// Put aside until somebody resumes it.
    Parked,
    Stopped,
}

/// The newest fault of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFault {
    /// How it ended: `failed`, `panicked`, `stuck` …
    pub exit: String,
    pub what: String,
    pub kind: String,
    pub advice: String,
    /// Wall clock, milliseconds since the epoch.
    pub at_ms: u64,
}

impl LastFault {
    pub(super) fn new(exit: &str, fault: &Fault, at: SystemTime) -> Self {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            exit: exit.to_owned(),
            what: fault.what.clone(),
            kind: kind_name(fault.kind).to_owned(),
            advice: fault.advice.to_owned(),
            at_ms: millis(at),
        }
    }
}

impl Snapshot {
    /// The node at `path`; the empty path is this one.
    pub fn at(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        self.children.iter().find(|child| child.name == name)?.at(rest)
    }

    /// This node and all below it, parents first.
    pub fn walk(&self) -> Vec<&Self> {
        let mut nodes = vec![self];
        for child in &self.children {
            nodes.extend(child.walk());
        }
        nodes
    }
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting { .. } => "waiting",
            Self::Stopping => "stopping",
            Self::BackingOff { .. } => "backing_off",
            Self::Parked => "parked",
            Self::Stopped => "stopped",
        }
    }
}

/// Draws the tree: a line a node, under it the last fault of those that had one.
pub fn render(snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    collect(snapshot, "", "", &mut lines);
    let width = lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for line in lines {
        let pad = width - line.label.chars().count();
        let text = format!("{}{:pad$}  {}", line.label, "", line.text);
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

struct Line {
    label: String,
    text: String,
}

fn collect(node: &Snapshot, lead: &str, below: &str, lines: &mut Vec<Line>) {
    lines.push(Line { label: format!("{lead}{}", escape(&node.name)), text: describe(node) });
    if let Some(fault) = &node.last_fault {
        let bar = if node.children.is_empty() { "   " } else { "│  " };
        let text = format!("! {}, {}: {}", fault.exit, fault.kind, escape(&fault.what));
        lines.push(Line { label: format!("{below}{bar}"), text });
        if node.state == State::Parked {
            lines
                .push(Line { label: format!("{below}{bar}"), text: format!("  {}", fault.advice) });
        }
    }
    for (i, child) in node.children.iter().enumerate() {
        let last = i + 1 == node.children.len();
        let (branch, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        collect(child, &format!("{below}{branch}"), &format!("{below}{rest}"), lines);
    }
}

fn describe(node: &Snapshot) -> String {
    let mut text = format!("{:<12}  ", node.role);
    match &node.state {
        State::Waiting { on } => text.push_str(&format!("waiting for {}", escape(on))),
        State::BackingOff { retry_in_ms } => {
            text.push_str(&format!("back in {}", short(Duration::from_millis(*retry_in_ms))));
        }
        state => text.push_str(state.name()),
    }
    if let Some(uptime) = node.uptime_ms {
        text.push_str(&format!(", up {}", short(Duration::from_millis(uptime))));
    }
    if node.restarts > 0 {
        let plural = if node.restarts == 1 { "" } else { "s" };
        text.push_str(&format!(", {} restart{plural}", node.restarts));
    }
    text
}

fn short(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
