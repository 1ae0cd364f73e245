//! The one place that calls bincode: small headers only, little-endian varints, always under a limit.
//!
//! Payload bytes never pass through here; a header that claims more than [`HEADER_LIMIT`] bytes is refused before
//! anything is allocated for it.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};

/// The most bytes one encoded header may take, on the wire and in the log. A resume token (≤ 64 KiB) and a batch of
/// opens fit; see [`crate::message::MAX_OPENS`].
pub(crate) const HEADER_LIMIT: usize = 256 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<HEADER_LIMIT>> =
    bincode::config::standard().with_limit::<HEADER_LIMIT>();

/// A header that does not decode to the type its frame or entry announces.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    pub what: &'static str,
    pub why: String,
}

/// Encodes a header. Fails only when it is larger than [`HEADER_LIMIT`].
pub fn encode<T: bincode::Encode>(what: &'static str, value: &T) -> Result<Vec<u8>, Malformed> {
    bincode::encode_to_vec(value, CONFIG)
        .map_err(|e| Malformed { what, why: e.to_string() })
        .and_then(|bytes| {
            if bytes.len() > HEADER_LIMIT {
                return Err(Malformed { what, why: format!("{} bytes is too large", bytes.len()) });
            }
            Ok(bytes)
        })
}

/// Decodes a header that must fill `bytes` exactly: trailing bytes are an error, so that no field is ever skipped
/// by a reader that does not know it.
pub fn decode<T: bincode::Decode<()>>(what: &'static str, bytes: &[u8]) -> Result<T, Malformed> {
    let (value, used) = bincode::decode_from_slice(bytes, CONFIG)
        .map_err(|e| Malformed { what, why: e.to_string() })?;
    if used != bytes.len() {
        return Err(Malformed { what, why: format!("{} bytes left over", bytes.len() - used) });
    }
    Ok(value)
}
