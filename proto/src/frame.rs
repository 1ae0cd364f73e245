//! Frames: how messages lie on the wire.
//!
//! ```text
//!  0          4            8      9         10         12          16
//! ┌──────────┬────────────┬──────┬─────────┬──────────┬───────────┬────────────┬─────────────┐
//! │header_len│payload_len │ kind │ layout=1│ zero     │ crc32c    │ header     │ payload     │
//! │ u32 LE   │ u32 LE     │ u8   │ u8      │ u16      │ u32 LE    │ header_len │ payload_len │
//! └──────────┴────────────┴──────┴─────────┴──────────┴───────────┴────────────┴─────────────┘
//! ```
//!
//! `crc32c` covers the first 12 bytes and the header. A payload has its own checksum inside the header that describes
//! it (a block's survives fragmentation and goes into the log as it is). Lengths are checked against the limits before
//! a byte of them is awaited, so `GET / HTTP/1.1` and 0xFFFFFFFF end the connection at byte 16.
//! Not here: what a header means ([`crate::message`]), reading from a socket.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes before the header of every frame.
pub const PREFIX_LEN: usize = 16;
const LAYOUT: u8 = 1;

/// The largest frame a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    pub max_header: u32,
    pub max_payload: u32,
}

impl FrameLimits {
    /// Before the peer has said a valid `Hello`.
    pub const GREETING: Self = Self { max_header: 4 * 1024, max_payload: 0 };
    /// In a running session, unless `Welcome` says less.
    pub const SESSION: Self = Self {
        max_header: crate::bin::HEADER_LIMIT as u32,
        max_payload: crate::message::MAX_PART as u32,
    };
}

/// One frame as received: slices of the read buffer, nothing copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub header: Bytes,
    pub payload: Bytes,
}

/// Bytes that are not a frame. The connection cannot be read further.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error(
        "frame header of {len} bytes is above the limit of {limit}: is the peer speaking Garam's protocol?"
    )]
    HeaderTooLarge { len: u32, limit: u32 },
    #[error("frame payload of {len} bytes is above the limit of {limit}")]
    PayloadTooLarge { len: u32, limit: u32 },
    #[error(
        "frame layout {found} is unknown, expected {LAYOUT}: is the peer speaking Garam's protocol?"
    )]
    Layout { found: u8 },
    #[error("frame checksum differs: frame says {expected:08x}, bytes give {found:08x}")]
    Checksum { expected: u32, found: u32 },
}

/// Encodes everything of a frame but its payload, which is written behind it without being copied.
pub fn encode_head(kind: u8, header: &[u8], payload_len: u32) -> Vec<u8> {
    let header_len = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(PREFIX_LEN + header.len());
    out.extend_from_slice(&header_len.to_le_bytes());
    out.extend_from_slice(&payload_len.to_le_bytes());
    out.extend_from_slice(&[kind, LAYOUT, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), header);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(header);
    out
}

/// Cuts frames off the front of a growing buffer.
#[derive(Debug)]
pub struct FrameReader {
    limits: FrameLimits,
}

impl FrameReader {
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits }
    }

    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Takes the next whole frame, or `None` when more bytes are needed. After an error the connection is over.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(prefix) = buffer.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let (mut fields, prefix) = (&prefix[..], *prefix);
        let header_len = fields.get_u32_le();
        let payload_len = fields.get_u32_le();
        let kind = fields.get_u8();
        let layout = fields.get_u8();
        let zero = fields.get_u16_le();
        let expected = fields.get_u32_le();
        let FrameLimits { max_header, max_payload } = self.limits;
        if header_len > max_header {
            return Err(FrameError::HeaderTooLarge { len: header_len, limit: max_header });
        }
        if payload_len > max_payload {
            return Err(FrameError::PayloadTooLarge { len: payload_len, limit: max_payload });
        }
        if layout != LAYOUT || zero != 0 {
            return Err(FrameError::Layout { found: layout });
        }
        let whole = PREFIX_LEN + header_len as usize + payload_len as usize;
        if buffer.len() < whole {
            return Ok(None);
        }
        let mut frame = buffer.split_to(whole).freeze();
        frame.advance(PREFIX_LEN);
        let header = frame.split_to(header_len as usize);
        let covered = prefix.first_chunk::<12>().map_or(0, |p| crc32c::crc32c(p));
        let found = crc32c::crc32c_append(covered, &header);
        if found != expected {
            return Err(FrameError::Checksum { expected, found });
        }
        Ok(Some(Frame { kind, header, payload: frame }))
    }
}
