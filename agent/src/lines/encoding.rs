//! Encodings that are turned into UTF-8 at the agent: UTF-16, ISO-8859-1, and those of the WHATWG's list.
//!
//! Promise: a line ends where its encoding says so, on a whole unit; what is no valid text becomes U+FFFD and is counted,
//! never an error. UTF-8 itself passes byte for byte, also where it is not valid: the core decides about that. Positions are
//! those of the source bytes. In every encoding of the list that is taken here the byte of a newline is a newline wherever it
//! stands; one in which it is not, or in which a line can be read only after those before it (ISO-2022-JP), is refused by name.

use encoding_rs as whatwg;

/// How the bytes of a file spell text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Utf8,
    Utf16Le,
    Utf16Be,
    /// Each byte is the character of its number. (In the WHATWG's list the name means Windows-1252.)
    Latin1,
    /// One of the list in which a newline is the byte 0x0A and no other character holds that byte.
    Listed(&'static whatwg::Encoding),
}

/// Why an encoding cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadEncoding {
    #[error("{0:?} is no encoding that is known")]
    Unknown(String),
    #[error("{0:?} can be read only from the beginning of a file on, not line by line")]
    Stateful(String),
    #[error("{0:?} does not say which byte of a character comes first")]
    Order(String),
}

impl BadEncoding {
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "name it as the WHATWG does, e.g. windows-1252, shift_jis, euc-kr",
            Self::Stateful(_) => "convert the file, or have it written in UTF-8",
            Self::Order(_) => "choose utf-16le or utf-16be",
        }
    }
}

impl Encoding {
    /// By its name or any other label of the WHATWG's list, in any case.
    pub fn named(label: &str) -> Result<Self, BadEncoding> {
        let lower = label.to_ascii_lowercase();
        match lower.as_str() {
            "utf-16" => return Err(BadEncoding::Order(label.into())),
            "iso-8859-1" | "latin1" => return Ok(Self::Latin1),
            // The list knows these only to refuse them.
            "hz-gb-2312" | "iso-2022-kr" | "iso-2022-cn" | "iso-2022-cn-ext" => {
                return Err(BadEncoding::Stateful(label.into()));
            }
            _ => {}
        }
        let found = whatwg::Encoding::for_label_no_replacement(lower.as_bytes());
        match found.ok_or_else(|| BadEncoding::Unknown(label.into()))? {
            found if found == whatwg::UTF_8 => Ok(Self::Utf8),
            found if found == whatwg::UTF_16LE => Ok(Self::Utf16Le),
            found if found == whatwg::UTF_16BE => Ok(Self::Utf16Be),
            found if found == whatwg::ISO_2022_JP => Err(BadEncoding::Stateful(label.into())),
            found => Ok(Self::Listed(found)),
        }
    }

    /// Bytes of one unit; lines begin on a multiple of it.
    pub fn unit(self) -> usize {
        match self {
            Self::Utf16Le | Self::Utf16Be => 2,
            Self::Utf8 | Self::Latin1 | Self::Listed(_) => 1,
        }
    }

    /// Where the line that begins at `start` ends, with and without its newline.
    pub(super) fn line_end(self, bytes: &[u8], start: usize) -> Option<(usize, usize)> {
        let rest = bytes.get(start..)?;
        let newline = match self {
            Self::Utf8 | Self::Latin1 | Self::Listed(_) => memchr::memchr(b'\n', rest)?,
            Self::Utf16Le => unit_at(rest, [b'\n', 0])?,
            Self::Utf16Be => unit_at(rest, [0, b'\n'])?,
        };
        Some((start + newline + self.unit(), start + newline))
    }

    /// The line as UTF-8, at the start of a file without its byte order mark, and how many characters stand for bytes that are no text.
    pub(super) fn decode(self, line: &[u8], at_start: bool) -> (Vec<u8>, u64) {
        let (text, bad) = match self {
            Self::Utf8 => return (line.to_vec(), 0),
            Self::Latin1 => (line.iter().map(|&byte| char::from(byte)).collect(), false),
            Self::Utf16Le => whatwg::UTF_16LE.decode_without_bom_handling(line),
            Self::Utf16Be => whatwg::UTF_16BE.decode_without_bom_handling(line),
            Self::Listed(listed) => listed.decode_without_bom_handling(line),
        };
        let replaced = if bad { text.matches('\u{fffd}').count() as u64 } else { 0 };
        let text = text.strip_prefix('\u{feff}').filter(|_| at_start).unwrap_or(&text);
        (text.as_bytes().to_vec(), replaced)
    }
}

fn unit_at(bytes: &[u8], wanted: [u8; 2]) -> Option<usize> {
    bytes.chunks_exact(2).position(|pair| pair == wanted).map(|unit| unit * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All encodings of the list that are taken.
    fn listed() -> Vec<&'static whatwg::Encoding> {
        let names = "ibm866 iso-8859-2 iso-8859-3 iso-8859-4 iso-8859-5 iso-8859-6 iso-8859-7 iso-8859-8 iso-8859-8-i iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-15 iso-8859-16 koi8-r koi8-u macintosh windows-874 windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256 windows-1257 windows-1258 x-mac-cyrillic gbk gb18030 big5 euc-jp shift_jis euc-kr";
        let named = names.split(' ').map(|name| match Encoding::named(name) {
            Ok(Encoding::Listed(listed)) => listed,
            other => panic!("{name}: {other:?}"),
        });
        named.collect()
    }

    #[test]
    fn a_newline_is_its_byte_and_that_byte_is_nothing_else_in_every_listed_encoding() {
        for encoding in listed() {
            for code in (0..=0xffff).filter_map(char::from_u32) {
                let text = code.to_string();
                let (bytes, _, unmappable) = encoding.encode(&text);
                if !unmappable && code != '\n' {
                    assert!(!bytes.contains(&b'\n'), "{}: {code:?}", encoding.name());
                }
            }
            // Also behind every byte that may begin a character which then does not go on.
            for lead in 0..=255 {
                let bytes = [lead, b'\n', b'x', b'\n'];
                let (text, _) = encoding.decode_without_bom_handling(&bytes);
                let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(text.matches('\n').count(), newlines, "{}: {lead:#x}", encoding.name());
            }
        }
    }

    #[test]
    fn names_are_those_of_the_list_and_what_cannot_be_read_by_lines_is_refused() {
        let name = |label| match Encoding::named(label) {
            Ok(Encoding::Listed(listed)) => listed.name().to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(name("UTF-8"), "Utf8");
        assert_eq!(name("utf-16be"), "Utf16Be");
        assert_eq!(name("latin1"), "Latin1");
        assert_eq!(name("cp1251"), "windows-1251");
        assert_eq!(name("sjis"), "Shift_JIS");
        assert_eq!(name("ks_c_5601-1987"), "EUC-KR");
        assert_eq!(
            Encoding::named("iso-2022-jp"),
            Err(BadEncoding::Stateful("iso-2022-jp".into()))
        );
        assert_eq!(
            Encoding::named("iso-2022-kr"),
            Err(BadEncoding::Stateful("iso-2022-kr".into()))
        );
        assert_eq!(Encoding::named("UTF-16"), Err(BadEncoding::Order("UTF-16".into())));
        assert_eq!(Encoding::named("ebcdic"), Err(BadEncoding::Unknown("ebcdic".into())));
    }
}
