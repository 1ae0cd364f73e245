//! `level=info msg="it said \"hi\"" done`
//!
//! A key without `=` is `true`; `key=` without a value is null, `key=""` an empty text. Values in quotes have the escapes
//! of JSON strings.

use std::borrow::Cow;

use super::syntax;
use crate::reject::{Reject, shown};

pub(super) fn split<'a>(
    text: &'a str,
    mut put: impl FnMut(&str, Option<Cow<'a, str>>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let end = rest.find(['=', ' ', '\t', '"']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        if key.is_empty() || behind.starts_with('"') {
            return Err(syntax(format!("expected a key at {:?}", shown(rest))));
        }
        let (value, behind) = match behind.strip_prefix('=') {
            None => (Some(Cow::Borrowed("true")), behind),
            Some(quoted) if quoted.starts_with('"') => {
                let (value, behind) = unquote(quoted)?;
                (Some(value), behind)
            }
            Some(bare) => {
                let (value, behind) = bare.split_at(bare.find([' ', '\t']).unwrap_or(bare.len()));
                if value.contains('"') {
                    let why = "a value with a quote inside stands in no quotes";
                    return Err(syntax(format!("{why}: {:?}", shown(value))));
                }
                ((!value.is_empty()).then_some(Cow::Borrowed(value)), behind)
            }
        };
        if !behind.is_empty() && !behind.starts_with([' ', '\t']) {
            return Err(syntax(format!("text behind a closing quote: {:?}", shown(behind))));
        }
        put(key, value)?;
        rest = behind.trim_ascii_start();
    }
    Ok(())
}

/// The text of a quoted value, and what stands behind it.
fn unquote(quoted: &str) -> Result<(Cow<'_, str>, &str), Reject> {
    let mut escaped = false;
    let mut has_escapes = false;
    let close = quoted.bytes().enumerate().skip(1).find_map(|(at, byte)| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        has_escapes |= escaped;
        closes.then_some(at)
    });
    let close = close.ok_or_else(|| syntax("a quoted value does not end"))?;
    let (value, behind) = quoted.split_at(close + 1);
    if !has_escapes {
        return Ok((Cow::Borrowed(value.trim_matches('"')), behind));
    }
    let text: String = serde_json::from_str(value)
        .map_err(|_| syntax(format!("an escape is not known in {}", shown(value))))?;
    // Most databases take no NUL in text, so none is delivered to any.
    if text.contains('\0') {
        return Err(syntax("NUL byte"));
    }
    Ok((Cow::Owned(text), behind))
}
