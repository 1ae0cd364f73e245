//! The journal's export format: entries of fields, text or binary.
//!
//! ```text
//! NAME=text LF                                  a field whose value is text
//! NAME LF  length (8 bytes, little endian)  value  LF    any other
//! LF                                            the end of the entry
//! ```
//!
//! In: bytes as they come. Out: entries. Promise: an entry keeps at most so many bytes and fields, and a value at most
//! `max_field` bytes; what is beyond is passed over without being kept, and the entry says so. What is no export is an error.

/// Bytes of names and values that an entry keeps.
pub(super) const MOST_BYTES: usize = 1024 * 1024;
pub(super) const MOST_FIELDS: usize = 1024;
/// The journal itself allows 64.
const LONGEST_NAME: usize = 256;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Corrupt {
    #[error(
        "journalctl prints no export format: a field's name has more than {LONGEST_NAME} bytes"
    )]
    Name,
    #[error("journalctl prints no export format: byte {found} behind a value")]
    NoEnd { found: u8 },
    #[error("journalctl printed an entry without a cursor")]
    NoCursor,
}

/// One entry, its fields in the order they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Something was left out.
    pub(super) cut: bool,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Export {
    max_field: usize,
    state: State,
    name: Vec<u8>,
    value: Vec<u8>,
    entry: Entry,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Name,
    Text,
    /// So many bytes of the length were read.
    Length {
        read: u32,
        value: u64,
    },
    Data {
        left: u64,
    },
    End,
}

impl Export {
    pub(super) fn new(max_field: usize) -> Self {
        let (name, value, entry) = (Vec::new(), Vec::new(), Entry::default());
        Self { max_field, state: State::Name, name, value, entry }
    }

    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        done: &mut impl FnMut(Entry),
    ) -> Result<(), Corrupt> {
        while let Some((&first, after)) = bytes.split_first() {
            match self.state {
                State::Name => {
                    bytes = after;
                    match first {
                        b'\n' if self.name.is_empty() => self.finish(done),
                        b'\n' => self.state = State::Length { read: 0, value: 0 },
                        b'=' => self.state = State::Text,
                        _ if self.name.len() == LONGEST_NAME => return Err(Corrupt::Name),
                        _ => self.name.push(first),
                    }
                }
                State::Text => match memchr::memchr(b'\n', bytes) {
                    Some(at) => {
                        self.keep(bytes.get(..at).unwrap_or_default());
                        bytes = bytes.get(at + 1..).unwrap_or_default();
                        self.end_field();
                    }
                    None => {
                        self.keep(bytes);
                        return Ok(());
                    }
                },
                State::Length { read, value } => {
                    bytes = after;
                    let value = value | u64::from(first) << (8 * read);
                    self.state = match read {
                        7 if value == 0 => State::End,
                        7 => State::Data { left: value },
                        _ => State::Length { read: read + 1, value },
                    };
                }
                State::Data { left } => {
                    let many = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at(many);
                    self.keep(part);
                    bytes = rest;
                    self.state = match left - part.len() as u64 {
                        0 => State::End,
                        left => State::Data { left },
                    };
                }
                State::End if first == b'\n' => {
                    bytes = after;
                    self.end_field();
                }
                State::End => return Err(Corrupt::NoEnd { found: first }),
            }
        }
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) {
        let used = self.entry.bytes + self.name.len() + self.value.len();
        let room = self.max_field.saturating_sub(self.value.len());
        let room = room.min(MOST_BYTES.saturating_sub(used)).min(part.len());
        self.entry.cut |= room < part.len();
        self.value.extend_from_slice(part.get(..room).unwrap_or_default());
    }

    fn end_field(&mut self) {
        self.state = State::Name;
        let (name, value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
        let bytes = self.entry.bytes + name.len() + value.len();
        if self.entry.fields.len() == MOST_FIELDS || bytes > MOST_BYTES {
            self.entry.cut = true;
            return;
        }
        self.entry.bytes = bytes;
        self.entry.fields.push((name, value));
    }

    fn finish(&mut self, done: &mut impl FnMut(Entry)) {
        let entry = std::mem::take(&mut self.entry);
        // Between two entries there may be more than one empty line.
        if !entry.fields.is_empty() {
            done(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], max_field: usize, piece: usize) -> Result<Vec<Entry>, Corrupt> {
        let mut export = Export::new(max_field);
        let mut entries = Vec::new();
        for part in bytes.chunks(piece) {
            export.feed(part, &mut |entry| entries.push(entry))?;
        }
        Ok(entries)
    }

    fn texts(entry: &Entry) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        entry.fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect()
    }

    #[test]
    fn text_and_binary_fields_are_read_in_pieces_of_any_size() {
        let bytes = b"__CURSOR=c1\nMESSAGE\n\x05\0\0\0\0\0\0\0a\n=\0b\nEMPTY=\nNONE\n\0\0\0\0\0\0\0\0\n\n\n__CURSOR=c2\n\n";
        for piece in 1..40 {
            let entries = parse(bytes, 100, piece).unwrap();
            assert_eq!(texts(&entries[0]), ["__CURSOR=c1", "MESSAGE=a\n=\0b", "EMPTY=", "NONE="]);
            assert_eq!(texts(&entries[1]), ["__CURSOR=c2"]);
            assert_eq!(entries.len(), 2);
        }
    }

    #[test]
    fn what_is_too_large_is_passed_over_and_said() {
        let mut bytes = b"A=123456789\nB\n".to_vec();
        bytes.extend_from_slice(&3_000_000u64.to_le_bytes());
        bytes.extend_from_slice(&vec![b'x'; 3_000_000]);
        bytes.extend_from_slice(b"\nC=ok\n\nD=1\n\n");
        let entries = parse(&bytes, 5, 4096).unwrap();
        assert_eq!(texts(&entries[0]), ["A=12345", "B=xxxxx", "C=ok"]);
        assert!(entries[0].cut && !entries[1].cut);
        let many: Vec<u8> =
            (0..3000).flat_map(|n| format!("F{n}={}\n", "y".repeat(2000)).into_bytes()).collect();
        let entries = parse(&[&many[..], b"\n"].concat(), 10_000, 4096).unwrap();
        assert!(
            entries[0].cut
                && entries[0].bytes <= MOST_BYTES
                && entries[0].fields.len() <= MOST_FIELDS
        );
    }

    #[test]
    fn what_is_no_export_is_an_error() {
        assert_eq!(parse(&[b'x'; 300], 10, 7), Err(Corrupt::Name));
        assert_eq!(parse(b"A\n\x01\0\0\0\0\0\0\0xy\n", 10, 7), Err(Corrupt::NoEnd { found: b'y' }));
        assert_eq!(parse(b"A\n\xff\xff\xff\xff\xff\xff\xff\xffxxxx", 10, 7), Ok(vec![]));
    }
}
