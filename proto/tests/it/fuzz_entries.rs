//! The fuzz targets' entry functions, run on stable over their seeds and a pseudo-random corpus grown from them.
//!
//! The seeds in `fuzz/corpus` are made by this file: `UPDATE_EXPECT=1 cargo test -p garam-proto seeds` writes them.

use std::path::PathBuf;

use garam_proto::block::RecordsBuilder;
use garam_proto::frame::PREFIX_LEN;
use garam_proto::{Codec, Compressor};

use crate::samples;

#[path = "../../../fuzz/src/wire.rs"]
#[expect(unreachable_pub, reason = "the same file is a module of the fuzz crate")]
mod entries;

type Target = (&'static str, fn(&[u8]), Vec<(String, Vec<u8>)>);

fn targets() -> Vec<Target> {
    vec![
        ("frame", entries::frame, frames()),
        ("message", entries::message, messages()),
        ("records", entries::records, payloads()),
        ("decompress", entries::decompress, compressed()),
    ]
}

fn frames() -> Vec<(String, Vec<u8>)> {
    let all = samples::all();
    let session = all.iter().flat_map(|(m, payload)| samples::frame_bytes(m, payload)).collect();
    vec![("session".into(), session)]
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let seed = |(index, (message, _)): (usize, (garam_proto::Message, _))| {
        let bytes = message.encode(0).unwrap();
        let name = format!("{index:02}-{}", message.name().to_lowercase());
        (name, [&bytes[8..9], &bytes[PREFIX_LEN..]].concat())
    };
    samples::all().into_iter().enumerate().map(seed).collect()
}

fn payloads() -> Vec<(String, Vec<u8>)> {
    let seed = |kind: u8, flags: u8, count: u32, raw: &[u8]| {
        [&[kind, flags][..], &count.to_le_bytes(), raw].concat()
    };
    let mut builder = RecordsBuilder::new(1000);
    builder.push(1000, b"one");
    builder.push(1003, b"");
    builder.push(1008, b"three");
    let (packed, count) = builder.finish();
    vec![
        ("lines".into(), seed(0, 0, 3, b"a\n\nb\n")),
        ("lines-cut".into(), seed(0, 3, 2, b"goes on\nfrom the block before")),
        ("records".into(), seed(1, 0, count, &packed)),
    ]
}

fn compressed() -> Vec<(String, Vec<u8>)> {
    let raw = b"a line that repeats itself\n".repeat(20);
    let seed = |(number, codec): (u8, Codec)| {
        let mut payload = Vec::new();
        Compressor::new(codec, 1).unwrap().compress(&raw, &mut payload).unwrap();
        let seed = [&[number][..], &(raw.len() as u32).to_le_bytes(), &payload].concat();
        (codec.name().to_owned(), seed)
    };
    [(0, Codec::None), (1, Codec::Lz4), (2, Codec::Zstd)].map(seed).into()
}

#[test]
fn seeds_on_disk_are_those_of_this_version() {
    for (target, _, seeds) in targets() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        for (name, bytes) in seeds {
            let path = folder.join(&name);
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            let found = std::fs::read(&path).unwrap_or_default();
            // What a compressor makes of the same bytes may change with its version; its old output stays a good seed.
            let current = found == bytes || (target == "decompress" && !found.is_empty());
            assert!(current, "{target}/{name} is out of date: run with UPDATE_EXPECT=1");
        }
    }
}

#[test]
fn every_entry_survives_its_seeds_and_thousands_of_mutations() {
    for (target, entry, seeds) in targets() {
        let mut random = Random(0x6172_6167 + target.len() as u64);
        for (_, seed) in &seeds {
            entry(seed);
            for _ in 0..(4000 / seeds.len()) {
                entry(&random.mutate(seed));
            }
        }
        for _ in 0..1000 {
            let len = random.below(200);
            let noise: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            entry(&noise);
        }
    }
}

/// xorshift64*: the same corpus on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }

    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 => bytes.extend_from_slice(&seed[self.below(seed.len())..]),
                3 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xfd, 0xff][self.below(6)],
                4 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        bytes
    }
}
