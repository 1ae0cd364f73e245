//! What container runtimes wrap around a line: CRI (`time stream P|F content`) and Docker's JSON.
//!
//! Promise: parts of one line are joined per stream, however lines of the other stream stand between them; a line that is
//! not what the format says passes unchanged, so that the contract at the core can name it. Time, stream, tags and
//! attributes of a record are those of its first part; they are dropped unless a [`Keep`] says how they travel.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Piece;

/// The wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    Cri,
    Docker,
}

/// How time and stream of a record travel with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// `time stream F content`, of Docker's lines too: what a contract of the format `cri` reads.
    Cri,
    /// Members `container_time`, `container_stream` and, if any, `container_tags` and `container_attrs` in front of those of the object
    /// that the content is, or beside a member `message`.
    Json,
}

/// What was written around a line beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    time: String,
    stream: String,
    /// Behind the letter of CRI, with its colon.
    tags: String,
    /// Docker's labels and environment, as JSON.
    attrs: Option<String>,
}

/// What one wrapped line says.
struct Unwrapped {
    lane: u8,
    content: Vec<u8>,
    /// The line it belongs to goes on.
    partial: bool,
    meta: Meta,
}

#[derive(Deserialize)]
struct DockerLine<'a> {
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
    #[serde(borrow)]
    attrs: Option<&'a RawValue>,
}

impl Container {
    /// Unwraps lines and joins their parts. What still lacks a part is not whole.
    pub(super) fn unwrap(self, lines: Vec<Piece>) -> Vec<Piece> {
        let mut joined: Vec<Piece> = Vec::with_capacity(lines.len());
        // Per lane: which of the joined waits for its next part.
        let mut waiting: [Option<usize>; 3] = [None; 3];
        for line in lines {
            let unwrapped = match self {
                Self::Cri => cri(&line.bytes),
                Self::Docker => docker(&line.bytes),
            };
            let Some(Unwrapped { lane, content, partial, meta }) = unwrapped else {
                joined.push(Piece { lane: 0, ..line });
                continue;
            };
            let Some(slot) = waiting.get_mut(usize::from(lane)) else { continue };
            match slot.and_then(|at| joined.get_mut(at)) {
                Some(begun) => {
                    begun.bytes.extend_from_slice(&content);
                    begun.end = line.end;
                    begun.whole = !partial;
                }
                None => {
                    let (start, end) = (line.start, line.end);
                    let (whole, meta) = (!partial, Some(meta));
                    joined.push(Piece { start, end, lane, bytes: content, whole, meta });
                    *slot = Some(joined.len() - 1);
                }
            }
            if !partial {
                *slot = None;
            }
        }
        joined
    }
}

impl Keep {
    /// The record with what was written around it; in several records when it would be longer than the limit.
    pub(super) fn wrap(self, meta: &Meta, content: &[u8], longest: usize) -> Vec<Vec<u8>> {
        let whole = match self {
            Self::Cri => meta.in_cri(content),
            Self::Json => meta.in_json(content),
        };
        if whole.len() <= longest || content.len() < 2 {
            return vec![whole];
        }
        let (first, rest) = content.split_at(middle(content));
        [self.wrap(meta, first, longest), self.wrap(meta, rest, longest)].concat()
    }
}

impl Meta {
    fn in_cri(&self, content: &[u8]) -> Vec<u8> {
        let or_dash =
            |text: &'_ str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let head = format!("{} {} F{} ", or_dash(&self.time), or_dash(&self.stream), self.tags);
        [head.as_bytes(), content].concat()
    }

    fn in_json(&self, content: &[u8]) -> Vec<u8> {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut out = format!(
            "{{\"container_time\":{},\"container_stream\":{}",
            text(&self.time),
            text(&self.stream)
        );
        if let Some(tags) = self.tags.strip_prefix(':') {
            out += &format!(",\"container_tags\":{}", text(tags));
        }
        if let Some(attrs) = &self.attrs {
            out += &format!(",\"container_attrs\":{attrs}");
        }
        match members(content) {
            Some("") => out.push('}'),
            Some(members) => out += &format!(",{members}}}"),
            None => {
                out += &format!(",\"message\":{}}}", text(&String::from_utf8_lossy(content)));
            }
        }
        out.into_bytes()
    }
}

/// What stands between the braces, when the content is an object.
fn members(content: &[u8]) -> Option<&str> {
    let object = std::str::from_utf8(content).ok()?.trim();
    let inside = object.strip_prefix('{')?.strip_suffix('}')?;
    serde_json::from_str::<IgnoredAny>(object).ok()?;
    Some(inside.trim())
}

/// Half of the way, not inside a character.
fn middle(content: &[u8]) -> usize {
    let half = content.len() / 2;
    let begins = |at: &usize| content.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (half.saturating_sub(3).max(1)..=half).rev().find(begins).unwrap_or(half)
}

fn cri(line: &[u8]) -> Option<Unwrapped> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = words.next()?;
    let stream = words.next()?;
    // Tags may follow the first letter: `P:tag`.
    let tags = words.next()?;
    let partial = match tags.first()? {
        b'P' => true,
        b'F' => false,
        _ => return None,
    };
    time.first().filter(|byte| byte.is_ascii_digit())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Unwrapped {
        lane: lane(stream)?,
        content: words.next().unwrap_or_default().to_vec(),
        partial,
        meta: Meta {
            time: text(time),
            stream: text(stream),
            tags: text(tags.get(1..).unwrap_or_default()),
            attrs: None,
        },
    })
}

fn docker(line: &[u8]) -> Option<Unwrapped> {
    let parsed: DockerLine<'_> = serde_json::from_slice(line).ok()?;
    let lane = lane(parsed.stream.as_bytes()).unwrap_or(0);
    let mut content = parsed.log.into_bytes();
    let partial = content.last() != Some(&b'\n');
    if !partial {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    let attrs = parsed.attrs.map(|attrs| attrs.get().to_owned());
    let meta = Meta { time: parsed.time, stream: parsed.stream, tags: String::new(), attrs };
    Some(Unwrapped { lane, content, partial, meta })
}

fn lane(stream: &[u8]) -> Option<u8> {
    match stream {
        b"stdout" => Some(1),
        b"stderr" => Some(2),
        _ => None,
    }
}
