//! What a `[[file]]` table may ask for beyond plain lines, as written.
//!
//! In: the keys `container`, `container_meta`, `multiline`, `mask`, `encoding`, `skip_nul`. Out: [`Rules`], or which key is wrong and why.
//! Promise: a table that asks for none of them has no rules, and its lines travel in blocks nobody looks into.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::lines::{Container, Encoding, Keep, Mask, Multiline, Rules};

/// A part of `[[file]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultilineTable {
    /// A ready rule: `java`, `python` or `go`.
    pub rule: Option<String>,
    /// A line that matches begins a record.
    pub start: Option<String>,
    /// A line that matches belongs to the record before it.
    #[serde(rename = "continue")]
    pub continued: Option<String>,
    /// After how long a quiet the last record is shipped although more lines could belong to it, 50 ms to 5 min.
    /// Default 1 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
}

/// One entry of `mask`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskTable {
    /// What is replaced, as a regular expression.
    pub pattern: String,
    /// What stands in its place. Default `***`.
    pub replace: Option<String>,
    /// Instead of a text, the keyed hash of what was there: 32 hex digits of HMAC-SHA-256 under the key in this file, 16 to
    /// 4096 bytes, a line break at its end aside. Read at the start and at SIGHUP.
    pub hash_key_file: Option<PathBuf>,
}

const STARS: &str = "***";
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=4096;

impl MaskTable {
    fn mask(&self) -> Result<Mask, Wrong> {
        let wrong = |problem: String, action| Wrong { key: "mask", problem, action };
        let mask = match (&self.replace, &self.hash_key_file) {
            (Some(_), Some(_)) => {
                let problem = "has both replace and hash_key_file".into();
                return Err(wrong(problem, "leave one of them out"));
            }
            (replace, None) => Mask::new(&self.pattern, replace.as_deref().unwrap_or(STARS)),
            (None, Some(path)) => {
                let key = key(path).map_err(|why| {
                    let problem = format!("hash_key_file {}: {why}", path.display());
                    wrong(problem, "put a random key of 16 bytes or more into it")
                })?;
                Mask::hashed(&self.pattern, &key)
            }
        };
        mask.map_err(|error| wrong(error.to_string(), "correct the pattern"))
    }
}

fn key(path: &Path) -> Result<Vec<u8>, String> {
    // No more than it takes to see that it is too long: the file may be a device without an end.
    let most = *KEY_BYTES.end() as u64 + 2;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(most).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if !KEY_BYTES.contains(&key.len()) {
        return Err(format!("holds {} bytes", key.len()));
    }
    Ok(key.to_vec())
}

/// Which key is wrong, why, and what to do.
pub(super) struct Wrong {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) action: &'static str,
}

/// Builds the rules; `None` when plain lines are all that is asked for.
pub(super) fn rules(
    (container, keep): (Option<Container>, Option<Keep>),
    multiline: Option<MultilineTable>,
    masks: &[MaskTable],
    encoding: Option<&str>,
    skip_nul: bool,
) -> Result<Option<Rules>, Wrong> {
    let timeout = multiline.as_ref().and_then(|table| table.timeout);
    let timeout = timeout.unwrap_or(Duration::from_secs(1));
    if !(Duration::from_millis(50)..=Duration::from_secs(300)).contains(&timeout) {
        let problem = format!("{timeout:?} is out of bounds");
        return Err(Wrong { key: "multiline.timeout", problem, action: "choose 50ms to 5m" });
    }
    if keep.is_some() && container.is_none() {
        let problem = "there is no container to keep anything of".into();
        return Err(Wrong { key: "container_meta", problem, action: "name container too" });
    }
    let encoding = encoding.map_or(Ok(Encoding::default()), Encoding::named);
    let encoding = encoding.map_err(|error| Wrong {
        key: "encoding",
        problem: error.to_string(),
        action: error.action(),
    })?;
    let rules = Rules {
        container,
        keep,
        multiline: multiline.map(group).transpose()?,
        timeout,
        masks: masks.iter().map(MaskTable::mask).collect::<Result<_, _>>()?,
        encoding,
        skip_nul,
    };
    if skip_nul && encoding.unit() > 1 {
        let problem = "NUL bytes are parts of characters in this encoding".into();
        return Err(Wrong { key: "skip_nul", problem, action: "leave one of them out" });
    }
    Ok((!rules.is_plain()).then_some(rules))
}

fn group(table: MultilineTable) -> Result<Multiline, Wrong> {
    let rule = match (&table.rule, &table.start, &table.continued) {
        (Some(rule), None, None) => Multiline::ready(rule),
        (None, Some(start), None) => Multiline::start(start),
        (None, None, Some(more)) => Multiline::continued(more),
        _ => {
            let problem = "names none or several of rule, start and continue".into();
            return Err(Wrong { key: "multiline", problem, action: "name exactly one" });
        }
    };
    rule.map_err(|error| Wrong {
        key: "multiline",
        problem: error.to_string(),
        action: "correct the rule",
    })
}
