//! Foreign text made harmless before it is shown: in tables, JSON, logs and errors.
//!
//! In: text that somebody else wrote: file names, records, host names, errors of servers. Out: the same text in which no
//! character steers a terminal, begins a line of its own or changes the order in which its neighbours are drawn. Promise:
//! whatever both programs write to stdout, stderr and their logs has been through here. Not here: cutting long text.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Whether a character does something to what is around it: controls, marks of direction, invisible ones.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// For a cell or a line: every harmful character as `\u{…}`, `\n`, `\t`.
pub fn escape(text: &str) -> String {
    replace(text, is_harmful, |c, out| out.extend(c.escape_default())).into_owned()
}

/// For a text of several lines: as [`escape`], but line feeds and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    let harmful = |c| is_harmful(c) && c != '\n' && c != '\t';
    replace(text, harmful, |c, out| out.extend(c.escape_default()))
}

/// For a JSON text: harmful characters as `\uXXXX`, which every reader of JSON gives back. They can stand in strings only;
/// line feeds and tabs between values stay.
pub fn json(text: &str) -> Cow<'_, str> {
    let harmful = |c| is_harmful(c) && c != '\n' && c != '\t';
    let escaped = |c: char, out: &mut String| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "\\u{unit:04x}");
        }
    };
    replace(text, harmful, escaped)
}

fn replace(
    text: &str,
    is_harmful: impl Fn(char) -> bool,
    escaped: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if !text.chars().any(&is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_harmful(c) {
            true => escaped(c, &mut out),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A stream whose texts are harmless. Each write must hold whole characters, as those of `write!` and of loggers do.
#[derive(Debug)]
pub struct Harmless<W> {
    inner: W,
    keeps: Keeps,
}

#[derive(Debug, Clone, Copy)]
enum Keeps {
    Lines,
    Event { colour: bool },
}

impl<W: Write> Harmless<W> {
    /// For output: line feeds and tabs stay.
    pub fn lines(inner: W) -> Self {
        Self { inner, keeps: Keeps::Lines }
    }

    /// For a logger that writes each event in one piece, with a line feed at its end: no value can begin another line.
    /// `colour`: the logger's own escape sequences stay; it has to mask those in values itself.
    pub fn event(inner: W, colour: bool) -> Self {
        Self { inner, keeps: Keeps::Event { colour } }
    }
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        match self.keeps {
            Keeps::Lines => self.inner.write_all(lines(&text).as_bytes())?,
            Keeps::Event { colour } => {
                let (line, end) = match text.strip_suffix('\n') {
                    Some(line) => (line, "\n"),
                    None => (&*text, ""),
                };
                let harmful = |c| is_harmful(c) && !(colour && c == '\u{1b}');
                let line = replace(line, harmful, |c, out| out.extend(c.escape_default()));
                self.inner.write_all(format!("{line}{end}").as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\u{1b}[2Jb\nc\td\u{202e}e\u{9b}31m\u{feff}";

    #[test]
    fn what_steers_a_terminal_is_made_visible_and_the_rest_stays() {
        assert_eq!(escape(EVIL), "a\\u{1b}[2Jb\\nc\\td\\u{202e}e\\u{9b}31m\\u{feff}");
        assert_eq!(lines(EVIL), "a\\u{1b}[2Jb\nc\td\\u{202e}e\\u{9b}31m\\u{feff}");
        assert_eq!(escape("가람 é 👩"), "가람 é 👩");
    }

    #[test]
    fn json_reads_back_the_same() {
        let text = json("\"a\u{202e}b\u{9b}c\u{e0041}\"").into_owned();
        assert_eq!(text, "\"a\\u202eb\\u009bc\\udb40\\udc41\"");
    }

    #[test]
    fn an_event_is_one_line() {
        let event = |text: &str, colour| {
            let mut out = Vec::new();
            Harmless::event(&mut out, colour).write_all(text.as_bytes()).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(event("INFO x\nERROR forged\n", false), "INFO x\\nERROR forged\n");
        assert_eq!(event("\u{1b}[1mx\u{1b}[0m\u{7}\n", true), "\u{1b}[1mx\u{1b}[0m\\u{7}\n");
        assert_eq!(event("\u{1b}[1mx\n", false), "\\u{1b}[1mx\n");
    }
}
