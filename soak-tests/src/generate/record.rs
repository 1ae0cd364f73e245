//! One numbered record as a JSON line, good or broken on purpose, and how to recognise it again.
//!
//! ```text
//! {"writer":2,"seq":71,"weight":-5,"digest":"91b3…","payload":"…"}
//! ```
//!
//! Promise: writer and number stand first, also in a broken record, so that a quarantined record can be told by its bytes;
//! the digest covers every other member, so that a changed value is seen.

use xxhash_rust::xxh3::xxh3_64;

use crate::book::{Id, Page};

/// The columns of the contract that these records follow.
pub(crate) const COLUMNS: [(&str, &str); 5] = [
    ("writer", "int not null"),
    ("seq", "bigint not null"),
    ("weight", "int not null"),
    ("digest", "text not null"),
    ("payload", "text not null"),
];

/// The members of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Members<'a> {
    pub(crate) id: Id,
    pub(crate) weight: i32,
    pub(crate) payload: &'a str,
}

/// How a record breaks the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The closing brace is missing.
    Syntax,
    /// Text where a number belongs.
    Type,
    /// A number beyond its column.
    Range,
    /// A column that must be there is not.
    Missing,
    /// Bytes that are no UTF-8.
    Utf8,
}

impl Flaw {
    pub(crate) const ALL: [Self; 5] =
        [Self::Syntax, Self::Type, Self::Range, Self::Missing, Self::Utf8];
}

impl Members<'_> {
    pub(crate) fn digest(&self) -> u64 {
        let Id { writer, seq } = self.id;
        xxh3_64(format!("{writer}/{seq}/{}/{}", self.weight, self.payload).as_bytes())
    }

    /// The line, newline included, and what the book says of it.
    pub(crate) fn line(&self, flaw: Option<Flaw>) -> (Vec<u8>, Page) {
        let Id { writer, seq } = self.id;
        let digest = self.digest();
        let weight = match flaw {
            Some(Flaw::Type) => "\"heavy\"".to_owned(),
            Some(Flaw::Range) => {
                (i64::from(i32::MAX) + 1 + i64::from(self.weight.unsigned_abs())).to_string()
            }
            _ => self.weight.to_string(),
        };
        let shown = match flaw {
            Some(Flaw::Missing) => String::new(),
            _ => format!("\"digest\":\"{digest:016x}\","),
        };
        let payload = serde_json::Value::from(self.payload);
        let text = format!(
            "{{\"writer\":{writer},\"seq\":{seq},\"weight\":{weight},{shown}\"payload\":{payload}}}"
        );
        let mut bytes = text.into_bytes();
        match flaw {
            Some(Flaw::Syntax) => bytes.truncate(bytes.len() - 1),
            Some(Flaw::Utf8) => {
                let inside = bytes.len() - 2;
                bytes.splice(inside..inside, [0xff, 0xfe]);
            }
            _ => {}
        }
        let digest = match flaw {
            None => digest,
            Some(_) => text_digest(&String::from_utf8_lossy(&bytes)),
        };
        bytes.push(b'\n');
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        (bytes, Page { digest, flawed: flaw.is_some(), bytes: length })
    }
}

/// Of a broken record, as a program shows it: bytes that are no UTF-8 replaced.
pub(crate) fn text_digest(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// The id at the beginning of a line.
pub(crate) fn id_of(line: &str) -> Option<Id> {
    let (writer, rest) = number(line.strip_prefix("{\"writer\":")?)?;
    let (seq, _) = number(rest.strip_prefix(",\"seq\":")?)?;
    Some(Id { writer: u32::try_from(writer).ok()?, seq })
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: Members<'_> =
        Members { id: Id { writer: 2, seq: 71 }, weight: -5, payload: "가\"\n" };

    #[test]
    fn a_good_record_is_json_and_its_digest_covers_every_member() {
        let (line, page) = MEMBERS.line(None);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["payload"], "가\"\n");
        assert_eq!(value["digest"], format!("{:016x}", page.digest));
        assert_ne!(Members { weight: 5, ..MEMBERS }.digest(), page.digest);
        assert_ne!(Members { payload: "x", ..MEMBERS }.digest(), page.digest);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn a_broken_record_keeps_its_id_and_differs_from_a_good_one() {
        let (good, _) = MEMBERS.line(None);
        for flaw in Flaw::ALL {
            let (line, page) = MEMBERS.line(Some(flaw));
            assert_ne!(line, good);
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches('\n');
            assert_eq!(id_of(text), Some(MEMBERS.id), "{flaw:?}");
            let bytes = u32::try_from(line.len()).unwrap();
            assert_eq!(page, Page { digest: text_digest(text), flawed: true, bytes });
        }
    }
}
