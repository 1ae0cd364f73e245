//! Every place that reads bytes of strangers, as a function of bytes.
//!
//! In: any bytes. Out: whether they were accepted. Promise: no target panics, loops for ever or takes memory that the bytes do
//! not justify; what a target accepts it also writes again the same, where it can write. Nothing here touches a socket or the disk.
//! Run by `tests/it` (the corpus, then mutations that are the same each time; stable Rust, part of every `cargo test`) and by
//! `fuzz/run` (guided by coverage, for as long as somebody wants). An input that broke something stays in `corpus/TARGET`.
#![forbid(unsafe_code)]

pub mod mutate;
mod storage;
#[expect(unreachable_pub, reason = "the same file is a module of a test of garam-proto")]
mod wire;

use std::path::Path;

use bytes::{Bytes, BytesMut};
use garam_proto::enrol::{Answer, Question};
use garam_proto::{BlockHeader, DecodeLimits, Frame, FrameReader, decompress, enrol};
use rustls_pki_types::CertificateDer;

/// A reader of foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also of its folder in `corpus`.
    pub name: &'static str,
    pub run: fn(&[u8]) -> bool,
    /// How many mutations every `cargo test` tries: about a second's worth.
    pub rounds: u32,
}

const fn target(name: &'static str, rounds: u32, run: fn(&[u8]) -> bool) -> Target {
    Target { name, run, rounds }
}

/// All of them.
pub const TARGETS: [Target; 14] = [
    target("frame", 100_000, |data| held(wire::frame, data)),
    target("message", 200_000, |data| held(wire::message, data)),
    target("records", 100_000, |data| held(wire::records, data)),
    target("decompress", 10_000, |data| held(wire::decompress, data)),
    target("enrolment", 400_000, enrolment),
    target("block", 400_000, block),
    target("csr", 100_000, csr),
    target("certificate", 200_000, certificate),
    target("core_config", 10_000, core_config),
    target("agent_config", 10_000, agent_config),
    target("segment", 6_000, storage::segment),
    target("checkpoint", 100_000, storage::checkpoint),
    target("syslog", 200_000, syslog),
    target("journal", 200_000, journal),
];

/// The entries of the wire format judge by themselves what is to hold; that their seeds are valid is a test of `garam-proto`.
fn held(entry: fn(&[u8]), data: &[u8]) -> bool {
    entry(data);
    true
}

/// What a host and a core say on the enrolment port.
fn enrolment(data: &[u8]) -> bool {
    let mut buffer = BytesMut::from(data);
    let read = FrameReader::new(enrol::LIMITS).next(&mut buffer).ok().flatten();
    let asked = read.iter().chain(&frame(data)).filter(|f| Question::decode(f).is_ok()).count();
    let answered = read.iter().chain(&frame(data)).filter(|f| Answer::decode(f).is_ok()).count();
    asked + answered > 0
}

fn frame(data: &[u8]) -> Option<Frame> {
    let (&kind, header) = data.split_first()?;
    Some(Frame { kind, header: Bytes::copy_from_slice(header), payload: Bytes::new() })
}

/// A block's header, its length first, and its payload, as the gateway checks and the refiner reads them.
fn block(data: &[u8]) -> bool {
    let Some((&length, rest)) = data.split_first() else { return false };
    let Some((header, payload)) = rest.split_at_checked(usize::from(length)) else { return false };
    let Ok(header) = garam_proto::decode::<BlockHeader>("BlockHeader", header) else {
        return false;
    };
    let limits = DecodeLimits { max_raw: 1024 * 1024, max_ratio: 1024 };
    if header.check(&limits).is_err() {
        return false;
    }
    // Checksums are left aside, or no mutation would come further.
    let Ok(raw) = decompress(header.codec, payload, header.raw_len, &limits) else { return false };
    assert_eq!(raw.len(), header.raw_len as usize);
    garam_proto::records(&header, &Bytes::from(raw)).is_ok()
}

fn csr(data: &[u8]) -> bool {
    garam_core::pki::RequestedKey::of(data).is_ok()
}

/// A certificate that TLS has verified comes from our own authority; these readers look at those of servers and files too.
fn certificate(data: &[u8]) -> bool {
    let leaf = CertificateDer::from(data);
    let agent = garam_core::pki::peer_identity(&leaf).is_ok();
    let person = garam_core::pki::admin_identity(&leaf).is_ok();
    assert!(!(agent && person), "one certificate opens both doors");
    let _valid = garam_core::pki::validity(&leaf).is_some();
    agent || person
}

fn core_config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let checked =
        garam_core::config::parse("fuzz", text).and_then(garam_core::config::Config::check);
    // What is wrong is said in words.
    checked.map_err(|error| error.to_string()).is_ok()
}

fn agent_config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    // It would read a file that the bytes name.
    if text.contains("hash_key_file") {
        return false;
    }
    garam_agent::config::Config::parse(Path::new("fuzz"), text).map_err(|e| e.to_string()).is_ok()
}

/// A stream of syslog messages, the longest of 64 bytes.
fn syslog(data: &[u8]) -> bool {
    let lines = |piece| garam_agent::source::syslog::lines_of(data.chunks(piece), 64);
    let whole = lines(data.len().max(1));
    assert_eq!(whole, lines(5), "pieces change what is read");
    assert!(!whole.0.contains(&0), "a line with a NUL");
    whole.1 == 0 && !whole.0.is_empty()
}

/// The output of `journalctl`, whose fields anybody may write.
fn journal(data: &[u8]) -> bool {
    let lines = |piece| garam_agent::source::journal::lines_of(data.chunks(piece), 256);
    let whole = lines(data.len().max(1));
    // An error comes at the byte that is wrong: how much came before it depends on the pieces.
    let Some(whole) = whole else { return false };
    assert_eq!(Some(&whole), lines(3).as_ref(), "pieces change what is read");
    assert!(!whole.contains(&0), "a line with a NUL");
    !whole.is_empty()
}
