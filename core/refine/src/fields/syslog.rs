//! Syslog: RFC 5424, RFC 3164, and both without the priority, as rsyslog writes them into files.
//!
//! ```text
//! <165>1 2003-10-11T22:14:15.003Z host app 8710 ID47 [ex@1 a="b"] text      priority facility severity timestamp hostname
//! <34>Oct 11 22:14:15 host su[230]: text                                    app_name proc_id msg_id structured_data message
//! 2026-11-23T23:24:04.123456+09:00 host app: text
//! ```
//!
//! `-` is null in RFC 5424. A tag is what stands before `:` or `[`, of at most 48 characters without blanks; a line without one
//! is all message. `structured_data` stays as it came.

use std::borrow::Cow;

use super::syntax;
use crate::reject::Reject;

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// `Oct 11 22:14:15`
const BSD_LEN: usize = 15;
const LONGEST_TAG: usize = 48;

pub(super) fn split<'a>(
    text: &'a str,
    mut put: impl FnMut(&str, Option<Cow<'a, str>>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let mut put = |name: &str, text: &'a str| put(name, Some(Cow::Borrowed(text)));
    let rest = match text.strip_prefix('<') {
        Some(inside) => {
            let (priority, rest) = inside
                .split_once('>')
                .filter(|(digits, _)| (1..=3).contains(&digits.len()))
                .ok_or_else(|| syntax("the priority does not end"))?;
            let number = priority.parse::<usize>().ok().filter(|number| *number < 192);
            let number = number.ok_or_else(|| syntax("the priority is not 0 to 191"))?;
            put("priority", priority)?;
            put("facility", FACILITIES.get(number / 8).copied().unwrap_or_default())?;
            put("severity", SEVERITIES.get(number % 8).copied().unwrap_or_default())?;
            if let Some(rest) = rest.strip_prefix("1 ") {
                return rfc5424(rest, put);
            }
            rest
        }
        None => text,
    };
    let (timestamp, rest) = timestamp(rest)?;
    put("timestamp", timestamp)?;
    let (hostname, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if hostname.is_empty() {
        return Err(syntax("there is no hostname"));
    }
    put("hostname", hostname)?;
    tagged(rest, put)
}

/// What stands behind the version.
fn rfc5424<'a>(
    text: &'a str,
    mut put: impl FnMut(&str, &'a str) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let mut rest = text;
    for name in ["timestamp", "hostname", "app_name", "proc_id", "msg_id"] {
        let (word, behind) = rest
            .split_once(' ')
            .ok_or_else(|| syntax(format!("there is nothing behind {name}")))?;
        if word != "-" {
            put(name, word)?;
        }
        rest = behind;
    }
    let (data, behind) = structured_data(rest)?;
    if data != "-" {
        put("structured_data", data)?;
    }
    match behind.strip_prefix(' ') {
        Some(message) => put("message", message.strip_prefix('\u{feff}').unwrap_or(message)),
        None if behind.is_empty() => Ok(()),
        None => Err(syntax("there is no blank behind the structured data")),
    }
}

/// `-` or `[id name="value"]...`, in whose values `\"`, `\\` and `\]` are escapes.
fn structured_data(text: &str) -> Result<(&str, &str), Reject> {
    if text.starts_with('-') {
        return Ok(text.split_at(1));
    }
    let (mut quoted, mut escaped, mut open) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if open => quoted = !quoted,
            _ if quoted => {}
            b'[' if !open => open = true,
            b']' if open => open = false,
            _ if open => {}
            _ if at > 0 => return Ok(text.split_at(at)),
            _ => return Err(syntax("there is no structured data")),
        }
    }
    if open || text.is_empty() {
        return Err(syntax("the structured data does not end"));
    }
    Ok((text, ""))
}

fn timestamp(text: &str) -> Result<(&str, &str), Reject> {
    let bsd = text
        .split_at_checked(BSD_LEN)
        .filter(|(time, _)| time.starts_with(|c: char| c.is_ascii_alphabetic()));
    let (time, rest) = match bsd {
        Some(found) => found,
        None => text.split_at(text.find(' ').unwrap_or(text.len())),
    };
    let is_time = time.contains(':');
    let rest = rest.strip_prefix(' ').filter(|_| is_time);
    rest.map(|rest| (time, rest)).ok_or_else(|| syntax("there is no timestamp"))
}

/// `su[230]: text`, `kernel: text`, or all text.
fn tagged<'a>(
    text: &'a str,
    mut put: impl FnMut(&str, &'a str) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let end = text.find([':', '[', ' ']).unwrap_or(text.len());
    let (tag, behind) = text.split_at(end);
    let pid = behind.strip_prefix('[').and_then(|inside| inside.split_once("]:"));
    let found = match pid {
        Some((pid, message)) if !pid.contains(' ') => Some((Some(pid), message)),
        _ => behind.strip_prefix(':').map(|message| (None, message)),
    };
    match found.filter(|_| (1..=LONGEST_TAG).contains(&tag.len())) {
        Some((pid, message)) => {
            put("app_name", tag)?;
            if let Some(pid) = pid {
                put("proc_id", pid)?;
            }
            put("message", message.strip_prefix(' ').unwrap_or(message))
        }
        None => put("message", text),
    }
}
