//! Access logs of Apache and nginx.
//!
//! ```text
//! 192.0.2.1 - alice [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.1" 200 2326 "http://from/" "Mozilla/5.0" more
//! remote_addr ident remote_user time_local request status body_bytes_sent http_referer http_user_agent extra
//! ```
//!
//! `request` is also taken apart into `method`, `path` and `protocol` where it has these three. `-` is null. In quotes `\"` and
//! `\\` are undone; `\xHH` stays as the server wrote it, since its bytes need not be text. `extra` is what a site appends.

use std::borrow::Cow;

use super::syntax;
use crate::reject::Reject;

pub(super) fn split<'a>(
    text: &'a str,
    is_combined: bool,
    mut put: impl FnMut(&str, Option<Cow<'a, str>>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let mut rest = text;
    for name in ["remote_addr", "ident", "remote_user"] {
        put(name, said(Cow::Borrowed(word(&mut rest, name)?)))?;
    }
    let bracketed = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'));
    let (time, behind) = bracketed.ok_or_else(|| syntax("there is no [time_local]"))?;
    put("time_local", Some(Cow::Borrowed(time)))?;
    rest = behind.trim_start_matches(' ');
    request(quoted(&mut rest, "request")?, &mut put)?;
    for name in ["status", "body_bytes_sent"] {
        put(name, said(Cow::Borrowed(word(&mut rest, name)?)))?;
    }
    if is_combined {
        for name in ["http_referer", "http_user_agent"] {
            put(name, said(quoted(&mut rest, name)?))?;
        }
    }
    if !rest.is_empty() {
        put("extra", Some(Cow::Borrowed(rest)))?;
    }
    Ok(())
}

/// `GET /path HTTP/1.1`; what strangers send need not look like that.
fn request<'a>(
    request: Cow<'a, str>,
    put: &mut impl FnMut(&str, Option<Cow<'a, str>>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let parts = request
        .split_once(' ')
        .and_then(|(method, rest)| Some((method, rest.rsplit_once(' ')?)))
        .filter(|(_, (_, protocol))| protocol.starts_with("HTTP/"));
    if let Some((method, (path, protocol))) = parts {
        for (name, part) in [("method", method), ("path", path), ("protocol", protocol)] {
            put(name, Some(Cow::Owned(part.to_owned())))?;
        }
    }
    put("request", said(request))
}

fn said(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    (text != "-").then_some(text)
}

/// The next word, and the blank behind it.
fn word<'a>(rest: &mut &'a str, name: &str) -> Result<&'a str, Reject> {
    let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    if word.is_empty() {
        return Err(syntax(format!("there is no {name}")));
    }
    *rest = behind;
    Ok(word)
}

/// The next text in quotes, and the blank behind it.
fn quoted<'a>(rest: &mut &'a str, name: &str) -> Result<Cow<'a, str>, Reject> {
    let inside =
        rest.strip_prefix('"').ok_or_else(|| syntax(format!("there is no quoted {name}")))?;
    let mut escaped = false;
    let close = inside.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    let close = close.ok_or_else(|| syntax(format!("the quoted {name} does not end")))?;
    let (text, behind) = inside.split_at(close);
    let behind = behind.get(1..).unwrap_or_default();
    *rest = behind.strip_prefix(' ').unwrap_or(behind);
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let undone =
            if c == '\\' { chars.next_if(|next| matches!(next, '"' | '\\')) } else { None };
        out.push(undone.unwrap_or(c));
    }
    Ok(Cow::Owned(out))
}
