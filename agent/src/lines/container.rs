//! What container runtimes wrap around a line: CRI (`time stream P|F content`) and Docker's JSON.
//!
//! Promise: parts of one line are joined per stream, however lines of the other stream stand between them; a line that is
//! not what the format says passes unchanged, so that the contract at the core can name it. Time and stream are dropped.

use serde::Deserialize;

use super::Piece;

/// The wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    Cri,
    Docker,
}

/// What one wrapped line says.
struct Unwrapped {
    lane: u8,
    content: Vec<u8>,
    /// The line it belongs to goes on.
    partial: bool,
}

#[derive(Deserialize)]
struct DockerLine {
    log: String,
    #[serde(default)]
    stream: String,
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
            let Some(Unwrapped { lane, content, partial }) = unwrapped else {
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
                    joined.push(Piece { start, end, lane, bytes: content, whole: !partial });
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

fn cri(line: &[u8]) -> Option<Unwrapped> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = words.next()?;
    let lane = lane(words.next()?)?;
    // Tags may follow the first letter: `P:tag`.
    let partial = match words.next()?.first()? {
        b'P' => true,
        b'F' => false,
        _ => return None,
    };
    time.first().filter(|byte| byte.is_ascii_digit())?;
    Some(Unwrapped { lane, content: words.next().unwrap_or_default().to_vec(), partial })
}

fn docker(line: &[u8]) -> Option<Unwrapped> {
    let parsed: DockerLine = serde_json::from_slice(line).ok()?;
    let lane = lane(parsed.stream.as_bytes()).unwrap_or(0);
    let mut content = parsed.log.into_bytes();
    let partial = content.last() != Some(&b'\n');
    if !partial {
        content.pop();
        if content.last() == Some(&b'\r') {
            content.pop();
        }
    }
    Some(Unwrapped { lane, content, partial })
}

fn lane(stream: &[u8]) -> Option<u8> {
    match stream {
        b"stdout" => Some(1),
        b"stderr" => Some(2),
        _ => None,
    }
}
