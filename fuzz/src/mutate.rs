//! Changes an input a little, the same for the same seed: without coverage to guide it, small steps away from valid inputs.

use fastrand::Rng;

/// Numbers at which code that counts goes wrong.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x1_0000, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];
/// Texts that mean something to somebody.
const WORDS: [&[u8]; 12] = [
    b"\n",
    b"\r\n",
    b"\0",
    b"\x1b[2J",
    b"../",
    b"%2e%2e/",
    b"\xe2\x80\xae",
    b"\xff\xfe",
    b"99999999 ",
    b"[[",
    b"\"\"\"",
    b"{\"\":",
];
const LONGEST: usize = 64 * 1024;

/// One to eight changes to `input`; `other` is what it may be spliced with.
pub fn mutate(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..rng.u32(1..=8) {
        change(rng, &mut out, other);
    }
    out.truncate(LONGEST);
    out
}

fn change(rng: &mut Rng, out: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(0..=out.len());
    match rng.u32(0..9) {
        0 => flip(rng, out),
        1 => put(out, at, &[rng.u8(..)]),
        2 => {
            let bytes = rng.choice(EDGES).unwrap_or_default().to_le_bytes();
            put(out, at, &bytes[..1 << rng.u32(0..4)]);
        }
        3 => {
            let bytes = rng.choice(EDGES).unwrap_or_default().to_be_bytes();
            put(out, at, &bytes[8 - (1 << rng.u32(0..4))..]);
        }
        4 => insert(out, at, rng.choice(WORDS).unwrap_or_default()),
        5 => {
            let end = (at + rng.usize(1..=32)).min(out.len());
            out.drain(at.min(end)..end);
        }
        6 => {
            let end = (at + rng.usize(1..=64)).min(out.len());
            let part = out[at.min(end)..end].to_vec();
            let to = rng.usize(0..=out.len());
            insert(out, to, &part);
        }
        7 => out.truncate(at),
        _ => {
            let from = rng.usize(0..=other.len());
            let end = (from + rng.usize(1..=128)).min(other.len());
            insert(out, at, &other[from..end]);
        }
    }
}

fn flip(rng: &mut Rng, out: &mut [u8]) {
    if !out.is_empty() {
        let at = rng.usize(0..out.len());
        out[at] ^= 1 << rng.u32(0..8);
    }
}

/// Writes over what is there.
fn put(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = (at + bytes.len()).min(out.len());
    out.splice(at..end, bytes.iter().copied());
}

fn insert(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    out.splice(at..at, bytes.iter().copied());
}
