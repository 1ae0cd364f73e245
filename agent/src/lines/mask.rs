//! Masks: what must not leave the host is replaced before anything is compressed or sent.
//!
//! Promise: applied to whole records, so that a secret is not missed because a read ended inside it; patterns are linear
//! in time. Classes such as `\d` and `\w` are those of ASCII. Not here: which fields are secret (the configuration).

use std::sync::Arc;

use regex_automata::meta::Regex;

use super::group::compile;

/// A pattern and what stands in its place.
#[derive(Debug, Clone)]
pub struct Mask {
    pattern: Arc<Regex>,
    replace: Vec<u8>,
}

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no pattern: {why}")]
pub struct BadMask {
    pub pattern: String,
    pub why: String,
}

impl Mask {
    pub fn new(pattern: &str, replace: &str) -> Result<Self, BadMask> {
        let bad = |why: String| BadMask { pattern: pattern.into(), why };
        let compiled = compile(pattern).map_err(bad)?;
        if compiled.is_match("") {
            return Err(bad("it matches nothing at all, and would do so everywhere".into()));
        }
        Ok(Self { pattern: Arc::new(compiled), replace: replace.into() })
    }

    pub(super) fn apply(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last = 0;
        for found in self.pattern.find_iter(&bytes) {
            out.extend_from_slice(bytes.get(last..found.start()).unwrap_or_default());
            out.extend_from_slice(&self.replace);
            last = found.end();
        }
        if last == 0 {
            return bytes;
        }
        out.extend_from_slice(bytes.get(last..).unwrap_or_default());
        out
    }
}
