//! Decompression of a gzip or zstd file, forward from its beginning.
//!
//! In: an open file. Out: its plain bytes in order, over all members and frames. Promise: memory is the format's window
//! (32 KiB for gzip, at most 128 MiB for zstd, which is what `zstd -d` takes without being told) and one buffer, whatever
//! the ratio; the formats' checksums are verified. Not here: positions ([`super::packed`]), who reads ([`super`]).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

/// The largest window of a zstd frame, as a power of two.
const LARGEST_WINDOW: u32 = 27;
const BUFFER: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
}

impl Format {
    /// What content begins so; `None` for anything that is not compressed.
    pub(super) fn of(begin: &[u8]) -> Option<Self> {
        match begin {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

pub(super) struct Unpacker {
    decoder: Decoder,
    /// Met after bytes that were good: told the next time, since a decoder says it only once.
    failed: Option<io::Error>,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<BufReader<Raw>>>),
    Zstd(Box<ZstdDecoder<'static, BufReader<Raw>>>),
}

impl Unpacker {
    pub(super) fn new(format: Format, file: &File) -> io::Result<Self> {
        let raw = BufReader::with_capacity(BUFFER, Raw { file: file.try_clone()?, offset: 0 });
        let decoder = match format {
            Format::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(raw))),
            Format::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(raw)?;
                decoder.window_log_max(LARGEST_WINDOW)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { decoder, failed: None })
    }

    /// Fills the buffer as far as the content reaches.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let read = match &mut self.decoder {
                Decoder::Gzip(decoder) => decoder.read(rest),
                Decoder::Zstd(decoder) => decoder.read(rest),
            };
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled > 0 => {
                    self.failed = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A file read forward without moving the offset that its descriptor shares with others.
struct Raw {
    file: File,
    offset: u64,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
