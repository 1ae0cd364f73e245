//! Payload compression: none, lz4 (block format) and zstd (one frame), each decoded under caps.
//!
//! In: a block's raw bytes. Out: payload bytes and the codec that was really used. Promise: [`decompress`] never writes
//! more than the declared raw length, which is itself capped, and takes exactly one zstd frame whose window is at most
//! 8 MiB: a second frame or a byte behind it makes the payload corrupt.
//! A block that would not shrink, or would exceed the ratio cap on the other side, is sent plain: honest data is never
//! refused for being too regular.
//! Not here: when to compress or on which thread (agent), the header that declares the sizes ([`crate::block`]).

use bincode::{Decode, Encode};

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Codec {
    None,
    /// LZ4 block format, without a size prefix: the header has the raw length.
    Lz4,
    /// One zstd frame (RFC 8878), window at most 8 MiB.
    Zstd,
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::str::FromStr for Codec {
    type Err = UnknownCodec;
    fn from_str(text: &str) -> Result<Self, UnknownCodec> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            other => Err(UnknownCodec(other.into())),
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown codec {0:?}: use zstd, lz4 or none")]
pub struct UnknownCodec(String);

/// The largest back-reference window a zstd frame may ask for: 2^23 = 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The highest zstd level whose window stays within [`ZSTD_WINDOW_LOG_MAX`].
const ZSTD_LEVEL_MAX: i32 = 19;
/// The first bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// What a decoder allows.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Largest raw length in bytes.
    pub max_raw: u32,
    /// Largest raw length per payload byte; 64 KiB are allowed beside it, so that small regular blocks pass.
    pub max_ratio: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_raw: 64 * 1024 * 1024, max_ratio: 1024 }
    }
}

impl DecodeLimits {
    /// Whether these declared sizes may be decoded at all. A payload is never longer than what it holds: a sender
    /// falls back to [`Codec::None`], so that whoever accepts `raw_len` has also accepted `payload_len`.
    pub fn check(&self, codec: Codec, raw_len: u32, payload_len: u32) -> Result<(), DecodeError> {
        if raw_len > self.max_raw {
            return Err(DecodeError::TooLarge { raw_len, limit: self.max_raw });
        }
        let grows = payload_len > raw_len;
        if grows || (codec == Codec::None && payload_len != raw_len) {
            return Err(DecodeError::Sizes { codec: codec.name(), raw_len, payload_len });
        }
        let allowed = u64::from(payload_len) * u64::from(self.max_ratio) + 64 * 1024;
        if codec != Codec::None && u64::from(raw_len) > allowed {
            return Err(DecodeError::Ratio { raw_len, payload_len, limit: self.max_ratio });
        }
        Ok(())
    }
}

/// Why a payload was not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("declared raw length {raw_len} is above the limit of {limit} bytes")]
    TooLarge { raw_len: u32, limit: u32 },
    #[error("{payload_len} bytes claim to hold {raw_len}: above the ratio limit of {limit}")]
    Ratio { raw_len: u32, payload_len: u32, limit: u32 },
    #[error(
        "{codec} payload of {payload_len} bytes cannot hold {raw_len}: no sender makes such a block"
    )]
    Sizes { codec: &'static str, raw_len: u32, payload_len: u32 },
    #[error("{codec} payload does not decode: {why}")]
    Corrupt { codec: &'static str, why: String },
    #[error("{codec} payload decodes to {found} bytes, declared were {declared}")]
    Length { codec: &'static str, declared: u32, found: usize },
}

/// Compresses blocks with one reused context. Not `Sync`: one per worker.
pub struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// `level` counts for zstd only: 1 (fast) to 19, higher ones count as 19; negative levels are faster still.
    pub fn new(codec: Codec, level: i32) -> std::io::Result<Self> {
        let zstd = match codec {
            Codec::Zstd => Some(zstd::bulk::Compressor::new(level.min(ZSTD_LEVEL_MAX))?),
            Codec::None | Codec::Lz4 => None,
        };
        Ok(Self { codec, zstd })
    }

    /// Appends the payload for `raw` to `out` and says which codec it is in: [`Codec::None`] when compressing does
    /// not pay or would break the receiver's ratio cap.
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> std::io::Result<Codec> {
        let start = out.len();
        match (self.codec, &mut self.zstd) {
            (Codec::Zstd, Some(zstd)) => {
                out.resize(start + zstd::zstd_safe::compress_bound(raw.len()), 0);
                let room = out.get_mut(start..).unwrap_or_default();
                let n = zstd.compress_to_buffer(raw, room)?;
                out.truncate(start + n);
            }
            (Codec::Lz4, _) => {
                out.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                let room = out.get_mut(start..).unwrap_or_default();
                let n = lz4_flex::block::compress_into(raw, room).map_err(std::io::Error::other)?;
                out.truncate(start + n);
            }
            _ => {
                out.extend_from_slice(raw);
                return Ok(Codec::None);
            }
        }
        let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        let fits = DecodeLimits::default().check(self.codec, raw_len, len).is_ok();
        if !fits || len >= raw_len {
            out.truncate(start);
            out.extend_from_slice(raw);
            return Ok(Codec::None);
        }
        Ok(self.codec)
    }
}

/// Decodes a payload to exactly `raw_len` bytes or fails. Foreign bytes: never panics, never allocates more than
/// `raw_len`, which `limits` must allow first.
pub fn decompress(
    codec: Codec,
    payload: &[u8],
    raw_len: u32,
    limits: &DecodeLimits,
) -> Result<Vec<u8>, DecodeError> {
    let payload_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    limits.check(codec, raw_len, payload_len)?;
    let corrupt = |why: String| DecodeError::Corrupt { codec: codec.name(), why };
    let mut out = vec![0u8; if codec == Codec::None { 0 } else { raw_len as usize }];
    let found = match codec {
        Codec::None => {
            out = payload.to_vec();
            payload.len()
        }
        Codec::Lz4 => lz4_flex::block::decompress_into(payload, &mut out)
            .map_err(|e| corrupt(e.to_string()))?,
        Codec::Zstd => {
            check_zstd_frame(payload).map_err(|why| corrupt(why.into()))?;
            zstd::bulk::Decompressor::new()
                .and_then(|mut decoder| decoder.decompress_to_buffer(payload, out.as_mut_slice()))
                .map_err(|e| corrupt(e.to_string()))?
        }
    };
    if found != raw_len as usize {
        return Err(DecodeError::Length { codec: codec.name(), declared: raw_len, found });
    }
    Ok(out)
}

/// Whether the payload is exactly one zstd frame with an allowed window. The library enforces a window only when it
/// streams, and would decode several frames in a row as one.
fn check_zstd_frame(payload: &[u8]) -> Result<(), &'static str> {
    let window = zstd_window(payload).ok_or("it does not begin with a zstd frame")?;
    if window > 1 << ZSTD_WINDOW_LOG_MAX {
        return Err("its window is larger than 8 MiB");
    }
    match zstd::zstd_safe::find_frame_compressed_size(payload) {
        Ok(len) if len == payload.len() => Ok(()),
        Ok(_) => Err("bytes follow the frame"),
        Err(_) => Err("the frame is cut or damaged"),
    }
}

/// The window that a frame header asks for, in bytes (RFC 8878, section 3.1.1.1).
///
/// ```text
/// magic 4 | descriptor 1 | window 0..1 | dictionary id 0..4 | content size 0..8
/// ```
///
/// A single-segment frame has no window field: its window is its content.
fn zstd_window(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(&ZSTD_MAGIC)?;
    let (&descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let &window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + (base / 8) * u64::from(window & 7));
    }
    let dictionary_id = match descriptor & 3 {
        3 => 4,
        short => usize::from(short),
    };
    let size = rest.get(dictionary_id..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*size.first()?),
        1 => u64::from(u16::from_le_bytes(*size.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*size.first_chunk()?)),
        _ => u64::from_le_bytes(*size.first_chunk()?),
    })
}
