//! Why a record is put aside, in words for the operator: which column, what was expected, what was found.
//!
//! In: foreign text. Out: a detail of at most a few hundred bytes, in which no control character survives: it is printed
//! to terminals and logs. Not here: deciding; that is done where the value is parsed.

use std::fmt::Write as _;

use garam_proto::shown::is_harmful;
use garam_stage::QuarantineReason;

/// The most characters of a found value that are shown.
const SHOWN: usize = 64;

/// One reason why one record has no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) reason: QuarantineReason,
    pub(crate) detail: String,
}

impl Reject {
    pub(crate) fn new(reason: QuarantineReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Foreign text made harmless: control characters and direction marks escaped, the tail cut with its length named.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN) + 16);
    for c in text.chars().take(SHOWN) {
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        // Writing to a String cannot fail.
        write!(out, "… ({} bytes)", text.len()).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn control_characters_are_escaped_and_long_text_is_cut() {
        assert_eq!(shown("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(shown("x\u{202e}y"), "x\\u{202e}y");
        let long = "é".repeat(100);
        assert_eq!(shown(&long), format!("{}… (200 bytes)", "é".repeat(64)));
        assert_eq!(shown(&"é".repeat(64)), "é".repeat(64));
    }
}
