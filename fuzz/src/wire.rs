//! The wire format: what a target does with foreign bytes is decode them, and when that succeeds hold the result to its promises.
//!
//! In: any bytes. Out: nothing; a broken promise is a panic. Promise: deterministic, no I/O, memory bounded by the input and
//! the limits below. The test `fuzz_entries` of `garam-proto` compiles this same file, so that the room is checked without all
//! others being built, and makes the seeds.
//! Not here: libFuzzer (`fuzz_targets/`), well-formed input (`proto/tests/it/round_trips.rs`).

use bytes::{Bytes, BytesMut};
use garam_proto::block::{CONTINUES, UNTERMINATED};
use garam_proto::frame::{FrameLimits, FrameReader, encode_head};
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Compressor, DecodeLimits, Frame, Generation, Message,
    OriginId, SessionId, decompress as decode_payload,
};

const LIMITS: FrameLimits = FrameLimits { max_header: 64 * 1024, max_payload: 64 * 1024 };

/// Reads frames until the bytes end or stop being frames; however they arrive, the frames are the same, and each
/// encodes to the bytes it was read from.
pub fn frame(data: &[u8]) {
    let (whole, used) = read_frames(data, data.len().max(1));
    let (in_pieces, _) = read_frames(data, 7);
    assert_eq!(whole, in_pieces, "frames depend on how their bytes arrive");
    let mut again = Vec::new();
    for frame in &whole {
        let payload_len = u32::try_from(frame.payload.len()).expect("below the frame limit");
        again.extend_from_slice(&encode_head(frame.kind, &frame.header, payload_len));
        again.extend_from_slice(&frame.payload);
    }
    assert_eq!(data.get(..used), Some(&again[..]), "a frame encodes to other bytes");
}

/// First byte: kind. Rest: header. What decodes must encode, and decode to the same message.
pub fn message(data: &[u8]) {
    let Some((&kind, header)) = data.split_first() else { return };
    let frame = Frame { kind, header: Bytes::copy_from_slice(header), payload: Bytes::new() };
    let Ok(message) = Message::decode(&frame) else { return };
    if let Message::Push(push) = &message {
        // Only that it neither panics nor allocates: foreign headers may be as wrong as they like.
        if push.block.check(&DecodeLimits::default()).is_ok() {
            assert!(push.block.to > push.block.from);
        }
    }
    // Lists may be longer than a sender would make them; those are refused when encoding.
    let Ok(head) = message.encode(0) else { return };
    let mut buffer = BytesMut::from(&head[..]);
    let frame = FrameReader::new(FrameLimits::SESSION)
        .next(&mut buffer)
        .expect("our own frame reads")
        .expect("our own frame is whole");
    assert_eq!(Message::decode(&frame).as_ref(), Ok(&message));
}

/// First six bytes: kind, flags, claimed count. Rest: decoded payload.
pub fn records(data: &[u8]) {
    let Some((&[kind, flags, a, b, c, d], raw)) = data.split_first_chunk::<6>() else { return };
    let header = BlockHeader {
        origin: OriginId { agent: AgentId::NIL, generation: Generation::NIL },
        session: SessionId(0),
        from: 1000,
        to: 1000 + raw.len() as u128,
        records: u32::from_le_bytes([a, b, c, d]),
        kind: if kind & 1 == 0 { BlockKind::Lines } else { BlockKind::Records },
        flags: flags & (CONTINUES | UNTERMINATED),
        codec: Codec::None,
        raw_len: u32::try_from(raw.len()).expect("fuzz inputs are small"),
        payload_len: u32::try_from(raw.len()).expect("fuzz inputs are small"),
        payload_crc: 0,
        ingest_time_us: 0,
        tail_hash: 0,
        resume: None,
    };
    let raw = Bytes::copy_from_slice(raw);
    let Ok(records) = garam_proto::records(&header, &raw) else { return };
    assert_eq!(records.len(), header.records as usize, "the count is the header's");
    let mut last = header.from;
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.index as usize, index);
        assert!(record.position >= last && record.position < header.to, "position out of range");
        last = record.position;
        if header.kind == BlockKind::Lines {
            assert!(!record.bytes.contains(&b'\n'), "a line holds no newline");
        }
    }
    if header.kind == BlockKind::Lines {
        let mut joined = Vec::new();
        for record in &records {
            joined.extend_from_slice(&record.bytes);
            joined.push(b'\n');
        }
        joined.truncate(raw.len());
        assert_eq!(joined, raw, "lines joined again are the payload");
    }
}

/// First byte: codec. Next four: declared raw length. Rest: payload.
pub fn decompress(data: &[u8]) {
    let Some((&[codec, a, b, c, d], payload)) = data.split_first_chunk::<5>() else { return };
    let codec = [Codec::None, Codec::Lz4, Codec::Zstd][usize::from(codec % 3)];
    let raw_len = u32::from_le_bytes([a, b, c, d]);
    let limits = DecodeLimits { max_raw: 1024 * 1024, max_ratio: 1024 };
    let Ok(raw) = decode_payload(codec, payload, raw_len, &limits) else { return };
    assert_eq!(raw.len(), raw_len as usize, "exactly the declared length");
    let mut packed = Vec::new();
    let used = Compressor::new(codec, 1)
        .and_then(|mut compressor| compressor.compress(&raw, &mut packed))
        .expect("in-memory compression has nothing to fail on");
    assert_eq!(decode_payload(used, &packed, raw_len, &limits), Ok(raw));
}

fn read_frames(data: &[u8], piece: usize) -> (Vec<Frame>, usize) {
    let mut reader = FrameReader::new(LIMITS);
    let mut buffer = BytesMut::new();
    let (mut frames, mut used) = (Vec::new(), 0);
    for piece in data.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match reader.next(&mut buffer) {
                Ok(Some(frame)) => {
                    used += before - buffer.len();
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(_) => return (frames, used),
            }
        }
    }
    (frames, used)
}
