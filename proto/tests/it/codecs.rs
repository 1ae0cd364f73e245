//! Codecs: identity there and back, plain where compressing does not pay, and nothing a bomb could reach.

use garam_proto::{Codec, Compressor, DecodeError, DecodeLimits, decompress};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::arbitrary;
use crate::largest::largest_allocation;

const ALL: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

fn pack(codec: Codec, level: i32, raw: &[u8]) -> (Codec, Vec<u8>) {
    let mut payload = Vec::new();
    let used = Compressor::new(codec, level).unwrap().compress(raw, &mut payload).unwrap();
    (used, payload)
}

fn unpack(codec: Codec, payload: &[u8], raw_len: usize) -> Result<Vec<u8>, DecodeError> {
    decompress(codec, payload, raw_len as u32, &DecodeLimits::default())
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn text() -> Vec<u8> {
    (0..5000)
        .flat_map(|i| format!("{i} user={} path=/a/{}\n", i * 7919, i % 13).into_bytes())
        .collect()
}

proptest! {
    #[test]
    fn any_bytes_come_back(
        codec in arbitrary::codec(),
        level in -5i32..6,
        seed in vec(any::<u8>(), 0..300),
        repeats in 1usize..40,
    ) {
        let raw = seed.repeat(repeats);
        let (used, payload) = pack(codec, level, &raw);
        prop_assert!(payload.len() <= raw.len());
        prop_assert_eq!(unpack(used, &payload, raw.len()).unwrap(), raw);
    }

    #[test]
    fn any_payload_is_decoded_to_its_declared_length_or_refused(
        codec in arbitrary::codec(),
        payload in vec(any::<u8>(), 0..300),
        raw_len in 0usize..400,
    ) {
        if let Ok(raw) = unpack(codec, &payload, raw_len) {
            prop_assert_eq!(raw.len(), raw_len);
        }
    }
}

#[test]
fn a_compressor_is_reused_and_appends() {
    for codec in ALL {
        let mut compressor = Compressor::new(codec, 1).unwrap();
        let mut out = b"kept".to_vec();
        for raw in [text(), noise(1000), vec![b'a'; 500]] {
            out.truncate(4);
            let used = compressor.compress(&raw, &mut out).unwrap();
            assert_eq!(&out[..4], b"kept");
            assert_eq!(unpack(used, &out[4..], raw.len()).unwrap(), raw);
        }
    }
}

#[test]
fn text_shrinks_and_noise_is_sent_plain() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let (used, payload) = pack(codec, 1, &text());
        assert_eq!(used, codec);
        assert!(payload.len() < text().len() * 3 / 4);
        let (used, payload) = pack(codec, 1, &noise(100_000));
        assert_eq!(used, Codec::None);
        assert_eq!(payload, noise(100_000));
    }
}

#[test]
fn the_most_regular_data_is_never_refused_by_the_ratio_cap() {
    for codec in ALL {
        for len in [1, 64 * 1024, 1 << 20, 8 << 20] {
            let raw = vec![b'\n'; len];
            let (used, payload) = pack(codec, 1, &raw);
            assert_eq!(unpack(used, &payload, len).unwrap(), raw, "{codec:?} {len}");
        }
    }
}

#[test]
fn the_highest_levels_keep_to_the_window_that_receivers_allow() {
    let raw = noise(64 * 1024).repeat(144);
    for level in [19, 22, i32::MAX] {
        let (used, payload) = pack(Codec::Zstd, level, &raw);
        assert_eq!(used, Codec::Zstd);
        assert_eq!(unpack(used, &payload, raw.len()).unwrap(), raw, "level {level}");
    }
}

#[test]
fn a_bomb_is_refused_before_memory_is_taken() {
    let bombs = [
        (Codec::Zstd, zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap()),
        (Codec::Lz4, lz4_flex::block::compress(&vec![0; 64 << 20])),
    ];
    for (codec, payload) in bombs {
        let honest = |limits: &DecodeLimits| decompress(codec, &payload, 64 << 20, limits);
        if codec == Codec::Zstd {
            let (result, largest) = largest_allocation(|| honest(&DecodeLimits::default()));
            assert!(matches!(result, Err(DecodeError::Ratio { .. })), "{codec:?}: {result:?}");
            assert!(largest < 1024);
        }
        let small = DecodeLimits { max_raw: 1 << 20, max_ratio: u32::MAX };
        let (result, largest) = largest_allocation(|| honest(&small));
        assert!(matches!(result, Err(DecodeError::TooLarge { .. })), "{codec:?}");
        assert!(largest < 1024);
        // Declared small, so that it passes the door: the output never grows beyond what was declared.
        let declared = payload.len().max(4096) as u32;
        let spoofed = || decompress(codec, &payload, declared, &DecodeLimits::default());
        let (result, largest) = largest_allocation(spoofed);
        assert!(matches!(result, Err(DecodeError::Corrupt { .. })), "{codec:?}: {result:?}");
        assert!(largest <= declared as usize, "{codec:?} allocated {largest}");
    }
}

#[test]
fn a_declared_length_that_is_not_the_content_is_refused() {
    let raw = text();
    for codec in ALL {
        let (used, payload) = pack(codec, 1, &raw);
        for wrong in [raw.len() - 1, raw.len() + 1, payload.len(), 0, raw.len() * 2] {
            if wrong != raw.len() {
                unpack(used, &payload, wrong).expect_err(&format!("{codec:?} as {wrong}"));
            }
        }
    }
}

#[test]
fn a_payload_is_one_frame_and_nothing_else() {
    let raw = text();
    let (_, frame) = pack(Codec::Zstd, 1, &raw);
    let (_, half) = pack(Codec::Zstd, 1, &raw[..1000]);
    let (_, rest) = pack(Codec::Zstd, 1, &raw[1000..]);
    let empty = zstd::bulk::compress(&[], 1).unwrap();
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
    let bad: [(&str, Vec<u8>); 6] = [
        ("two frames", [&half[..], &rest].concat()),
        ("an empty frame behind", [&frame[..], &empty].concat()),
        ("garbage behind", [&frame[..], b"x"].concat()),
        ("zeros behind", [&frame[..], &[0; 8]].concat()),
        ("a skippable frame before", [&skippable[..], &frame].concat()),
        ("a skippable frame behind", [&frame[..], &skippable].concat()),
    ];
    for (what, payload) in bad {
        let result = unpack(Codec::Zstd, &payload, raw.len());
        assert!(matches!(result, Err(DecodeError::Corrupt { .. })), "{what}: {result:?}");
    }
    assert_eq!(unpack(Codec::Zstd, &frame, raw.len()).unwrap(), raw);

    let (_, block) = pack(Codec::Lz4, 0, &raw);
    for tail in [&b"x"[..], &[0; 8], &block] {
        unpack(Codec::Lz4, &[&block[..], tail].concat(), raw.len()).unwrap_err();
    }
}

#[test]
fn a_window_above_8_mib_is_refused() {
    use std::io::Write;
    let raw = text();
    let frame = |window_log| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&raw).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(unpack(Codec::Zstd, &frame(23), raw.len()).unwrap(), raw);
    let error = unpack(Codec::Zstd, &frame(24), raw.len()).unwrap_err();
    expect_test::expect!["zstd payload does not decode: its window is larger than 8 MiB"]
        .assert_eq(&error.to_string());
    // A single-segment frame: the window is the content.
    let raw = noise(64 * 1024).repeat(144);
    let frame = zstd::bulk::compress(&raw, 22).unwrap();
    assert!(unpack(Codec::Zstd, &frame, raw.len()).unwrap_err().to_string().contains("window"));
}

#[test]
fn a_payload_cut_or_flipped_anywhere_never_panics() {
    let raw = &text()[..2000];
    for codec in [Codec::Lz4, Codec::Zstd] {
        let (_, payload) = pack(codec, 1, raw);
        for cut in 0..payload.len() {
            let error = unpack(codec, &payload[..cut], raw.len()).expect_err("cut");
            assert!(!matches!(error, DecodeError::TooLarge { .. }), "{codec:?} cut at {cut}");
        }
        for bit in 0..payload.len() * 8 {
            let mut payload = payload.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            // The payload's own checksum finds these; decoding them must only stay within its bounds.
            if let Ok(decoded) = unpack(codec, &payload, raw.len()) {
                assert_eq!(decoded.len(), raw.len());
            }
        }
    }
}
