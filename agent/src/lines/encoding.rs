//! Encodings that are turned into UTF-8 at the agent.
//!
//! Promise: a line ends where its encoding says so, on a whole unit; what is no valid text becomes U+FFFD, never an error.
//! UTF-8 itself passes byte for byte, also where it is not valid: the core decides about that.

use serde::Deserialize;

/// How the bytes of a file spell text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "utf-16le")]
    Utf16Le,
    #[serde(rename = "utf-16be")]
    Utf16Be,
    #[serde(rename = "iso-8859-1")]
    Latin1,
}

impl Encoding {
    /// Bytes of one unit; lines begin on a multiple of it.
    pub fn unit(self) -> usize {
        match self {
            Self::Utf16Le | Self::Utf16Be => 2,
            Self::Utf8 | Self::Latin1 => 1,
        }
    }

    /// Where the line that begins at `start` ends, with and without its newline.
    pub(super) fn line_end(self, bytes: &[u8], start: usize) -> Option<(usize, usize)> {
        let rest = bytes.get(start..)?;
        let newline = match self {
            Self::Utf8 | Self::Latin1 => memchr::memchr(b'\n', rest)?,
            Self::Utf16Le => unit_at(rest, [b'\n', 0])?,
            Self::Utf16Be => unit_at(rest, [0, b'\n'])?,
        };
        Some((start + newline + self.unit(), start + newline))
    }

    /// The line as UTF-8; at the start of a file without its byte order mark.
    pub(super) fn decode(self, line: &[u8], at_start: bool) -> Vec<u8> {
        let units = |read: fn([u8; 2]) -> u16| {
            let units = line.chunks_exact(2).map(|pair| read([pair[0], pair[1]]));
            let text = char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}'));
            text.collect::<String>()
        };
        let text = match self {
            Self::Utf8 => return line.to_vec(),
            Self::Latin1 => line.iter().map(|&byte| char::from(byte)).collect(),
            Self::Utf16Le => units(u16::from_le_bytes),
            Self::Utf16Be => units(u16::from_be_bytes),
        };
        let text = text.strip_prefix('\u{feff}').filter(|_| at_start).unwrap_or(&text);
        text.as_bytes().to_vec()
    }
}

fn unit_at(bytes: &[u8], wanted: [u8; 2]) -> Option<usize> {
    bytes.chunks_exact(2).position(|pair| pair == wanted).map(|unit| unit * 2)
}
