//! Masks: what must not leave the host is replaced before anything is compressed or sent.
//!
//! In its place stands a fixed text, or the keyed hash (HMAC-SHA-256, its first 128 bits) of what was there, so that equal
//! secrets stay equal and nobody without the key can try values out.
//!
//! Promise: applied to whole records, so that a secret is not missed because a read ended inside it; patterns are linear
//! in time. Classes such as `\d` and `\w` are those of ASCII. Not here: which fields are secret (the configuration).

use std::sync::Arc;

use regex_automata::meta::Regex;
use ring::hmac;

use super::group::compile;

/// A pattern and what stands in its place.
#[derive(Debug, Clone)]
pub struct Mask {
    pattern: Arc<Regex>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Text(Vec<u8>),
    Hash(hmac::Key),
}

/// Bytes of the hash that are shown, as hex digits.
const SHOWN: usize = 16;

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no pattern: {why}")]
pub struct BadMask {
    pub pattern: String,
    pub why: String,
}

impl Mask {
    pub fn new(pattern: &str, replace: &str) -> Result<Self, BadMask> {
        Self::of(pattern, Place::Text(replace.into()))
    }

    /// Puts the keyed hash in the place of what matches.
    pub fn hashed(pattern: &str, key: &[u8]) -> Result<Self, BadMask> {
        Self::of(pattern, Place::Hash(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    fn of(pattern: &str, place: Place) -> Result<Self, BadMask> {
        let bad = |why: String| BadMask { pattern: pattern.into(), why };
        let compiled = compile(pattern).map_err(bad)?;
        if compiled.is_match("") {
            return Err(bad("it matches nothing at all, and would do so everywhere".into()));
        }
        Ok(Self { pattern: Arc::new(compiled), place })
    }

    pub(super) fn apply(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last = 0;
        for found in self.pattern.find_iter(&bytes) {
            out.extend_from_slice(bytes.get(last..found.start()).unwrap_or_default());
            match &self.place {
                Place::Text(text) => out.extend_from_slice(text),
                Place::Hash(key) => {
                    let secret = bytes.get(found.range()).unwrap_or_default();
                    out.extend_from_slice(hash(key, secret).as_bytes());
                }
            }
            last = found.end();
        }
        if last == 0 {
            return bytes;
        }
        out.extend_from_slice(bytes.get(last..).unwrap_or_default());
        out
    }
}

fn hash(key: &hmac::Key, secret: &[u8]) -> String {
    let tag = hmac::sign(key, secret);
    tag.as_ref().iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect()
}
