//! One entry as one line of JSON, as `journalctl -o json` prints it.
//!
//! In: an entry's fields. Out: an object with the cursor first. Promise: a field that comes twice becomes an array; a value
//! that is no UTF-8 becomes an array of its bytes, so that nothing of it is lost; a line holds no line feed and no NUL.

use super::export::Entry;
use crate::source::spool::Batch;

/// By how much a byte may grow: `\u0001`.
pub(super) const GROWTH: usize = 6;

const CURSOR: &str = "__CURSOR";
const BEGIN: &[u8] = b"{\"__CURSOR\":\"";

pub(super) fn cursor(entry: &Entry) -> Option<&str> {
    let (_, value) = entry.fields.iter().find(|(name, _)| name == CURSOR.as_bytes())?;
    // Nothing else is a cursor, and this cannot break a line of JSON or a command line.
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"=;".contains(byte);
    std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|b| sound(&b)))
}

/// The cursor of a line that [`add`] wrote.
pub fn cursor_of(line: &[u8]) -> Option<Vec<u8>> {
    let rest = line.strip_prefix(BEGIN)?;
    let end = memchr::memchr(b'"', rest)?;
    rest.get(..end).map(<[u8]>::to_vec)
}

/// Adds an entry that has a cursor to a batch.
pub(super) fn add(entry: &Entry, batch: &mut Batch) {
    let out = &mut batch.bytes;
    out.extend_from_slice(BEGIN);
    out.extend_from_slice(cursor(entry).unwrap_or_default().as_bytes());
    out.push(b'"');
    for (at, (name, value)) in entry.fields.iter().enumerate() {
        let is = |field: &&(Vec<u8>, Vec<u8>)| field.0 == *name;
        let before = entry.fields.get(..at).unwrap_or_default();
        if name == CURSOR.as_bytes() || before.iter().any(|field| is(&field)) {
            continue;
        }
        out.push(b',');
        text(&String::from_utf8_lossy(name), out);
        out.push(b':');
        let after = entry.fields.get(at + 1..).unwrap_or_default();
        let more: Vec<&Vec<u8>> = after.iter().filter(is).map(|field| &field.1).collect();
        if more.is_empty() {
            one(value, out);
            continue;
        }
        out.push(b'[');
        one(value, out);
        for value in more {
            out.push(b',');
            one(value, out);
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    batch.messages += 1;
}

fn one(value: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(value) {
        Ok(value) => text(value, out),
        // Writing numbers into memory cannot fail.
        Err(_) => serde_json::to_writer(out, value).unwrap_or_default(),
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    serde_json::to_writer(out, text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::super::export::Export;
    use super::*;

    #[test]
    fn an_entry_is_one_line_of_json_with_its_cursor_first() {
        let bytes = b"PRIORITY=6\n__CURSOR=s=1;i=a\nMESSAGE\n\x03\0\0\0\0\0\0\0a\n\0\nTAG=1\nTAG=2\nRAW=\xff\x01\n\n";
        let mut batch = Batch::default();
        Export::new(100).feed(bytes, &mut |entry| add(&entry, &mut batch)).unwrap();
        let expect = "{\"__CURSOR\":\"s=1;i=a\",\"PRIORITY\":\"6\",\"MESSAGE\":\"a\\n\\u0000\",\"TAG\":[\"1\",\"2\"],\"RAW\":[255,1]}\n";
        assert_eq!(String::from_utf8_lossy(&batch.bytes), expect);
        assert_eq!(batch.messages, 1);
        assert_eq!(cursor_of(&batch.bytes), Some(b"s=1;i=a".to_vec()));
    }

    #[test]
    fn what_is_no_cursor_is_none() {
        for value in ["", "a\"b", "--x y"] {
            let mut found = Some(String::new());
            let bytes = format!("__CURSOR={value}\nA=1\n\n");
            Export::new(100)
                .feed(bytes.as_bytes(), &mut |entry| found = cursor(&entry).map(str::to_owned))
                .unwrap();
            assert_eq!(found, None, "{value}");
        }
    }
}
