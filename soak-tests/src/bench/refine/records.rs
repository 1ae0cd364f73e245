//! The records of `bench refine`: 8 columns, about 200 bytes as JSON, and the table that they are joined with.
//!
//! In: a seed. Out: blocks as the log holds them (lines, zstd at level 1), the same bytes uncompressed, the contract, the SQL in
//! the words of both sides, and 10 000 users. Values repeat as they do in life; one record in fifty has a text with escapes,
//! one amount in twenty is null, one user in fifty is unknown.

use std::io::Write as _;

use bytes::Bytes;
use fastrand::Rng;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, Compressor, Generation, OriginId, SessionId,
};

/// With the checks that a contract makes: not null, a range, a set.
pub(super) const CONTRACT: &str = r#"{"format": "json", "time": "at", "columns": {
    "id": "bigint not null",
    "at": "timestamp not null",
    "user_id": {"type": "bigint not null", "min": "0"},
    "method": {"type": "text not null", "one_of": ["GET", "POST", "PUT", "DELETE", "HEAD"]},
    "path": "text not null",
    "status": {"type": "int not null", "min": "100", "max": "599"},
    "amount": "decimal(12,2)",
    "agent": "text"}}"#;

pub(super) const COLUMNS: usize = 8;

/// As a pipeline says it.
pub(super) const SQL: &str = "select id, at, i.user_id as user_id, country, plan, method, path, status, amount, \
    case when status >= 500 then 'error' else 'ok' end as outcome, agent \
    from input i left join users u on i.user_id = u.user_id where status <> 404";

/// The same for DataFusion, which builds its table of the side that stands first.
pub(super) const PLAIN_SQL: &str = "select id, at, i.user_id as user_id, country, plan, method, path, status, amount, \
    case when status >= 500 then 'error' else 'ok' end as outcome, agent \
    from users u right join input i on i.user_id = u.user_id where status <> 404";

pub(super) const USERS: i64 = 10_000;
/// When the gateway took all of them in.
const INGEST_US: i64 = 1_795_000_000_000_000;

const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "GET", "POST", "PUT", "DELETE"];
const STATUSES: [u16; 16] =
    [200, 200, 200, 200, 200, 200, 200, 200, 201, 204, 301, 304, 400, 404, 500, 503];
const PATHS: [&str; 6] = [
    "/api/v1/orders/",
    "/api/v1/users/",
    "/static/app.js?v=",
    "/images/logo.png?v=",
    "/search?q=",
    "/checkout/",
];
/// A minor version follows.
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/",
    "Mozilla/5.0 (Windows NT 10.0) Chrome/126.0 Safari/",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5) Safari/",
    "curl/8.",
    "kube-probe/1.",
];
const COUNTRIES: [&str; 6] = ["Korea", "Germany", "Brazil", "Kenya", "Canada", "Japan"];
const PLANS: [&str; 3] = ["free", "team", "enterprise"];

/// A block as it lies in the log, and what it holds.
#[derive(Debug, Clone)]
pub(super) struct Shipped {
    pub(super) header: BlockHeader,
    pub(super) payload: Bytes,
    pub(super) raw: Bytes,
}

/// So many blocks of so many records each.
pub(super) fn ship(blocks: usize, records: u32, rng: &mut Rng) -> anyhow::Result<Vec<Shipped>> {
    let mut compressor = Compressor::new(Codec::Zstd, 1)?;
    let (mut shipped, mut from, mut number) = (Vec::with_capacity(blocks), 0_u128, 0_u64);
    for _ in 0..blocks {
        let mut raw = Vec::new();
        for _ in 0..records {
            write_record(&mut raw, number, rng)?;
            number += 1;
        }
        let mut payload = Vec::new();
        let codec = compressor.compress(&raw, &mut payload)?;
        let header = BlockHeader {
            origin: OriginId { agent: AgentId([1; 16]), generation: Generation([2; 16]) },
            session: SessionId(1),
            from,
            to: from + raw.len() as u128,
            records,
            kind: BlockKind::Lines,
            flags: 0,
            codec,
            raw_len: u32::try_from(raw.len())?,
            payload_len: u32::try_from(payload.len())?,
            payload_crc: crc32c::crc32c(&payload),
            ingest_time_us: INGEST_US,
            tail_hash: 0,
            resume: None,
        };
        from = header.to;
        shipped.push(Shipped { header, payload: payload.into(), raw: raw.into() });
    }
    Ok(shipped)
}

fn write_record(out: &mut Vec<u8>, number: u64, rng: &mut Rng) -> std::io::Result<()> {
    let second = number / 50;
    write!(
        out,
        "{{\"id\":{},\"at\":\"2026-11-{:02}T{:02}:{:02}:{:02}.{:06}Z\",\"user_id\":{},\"method\":\"{}\",\"path\":\"{}{}",
        7_000_000_000 + number,
        second / 86_400 % 28 + 1,
        second / 3_600 % 24,
        second / 60 % 60,
        second % 60,
        rng.u32(..1_000_000),
        rng.i64(0..USERS + USERS / 50),
        METHODS[rng.usize(..METHODS.len())],
        PATHS[rng.usize(..PATHS.len())],
        rng.u32(1..1_000_000),
    )?;
    if rng.u32(..50) == 0 {
        write!(out, "&q=\\\"caf\\u00e9\\\"")?;
    }
    write!(out, "\",\"status\":{},\"amount\":", STATUSES[rng.usize(..STATUSES.len())])?;
    match rng.u32(..20) {
        0 => write!(out, "null")?,
        _ => write!(out, "{}.{:02}", rng.u32(..10_000), rng.u32(..100))?,
    }
    let agent = AGENTS[rng.usize(..AGENTS.len())];
    writeln!(out, ",\"agent\":\"{agent}{}\"}}", rng.u32(..30))
}

/// Country and plan of a user.
pub(super) fn user(id: i64) -> (&'static str, &'static str) {
    let id = id.unsigned_abs() as usize;
    (COUNTRIES[id % COUNTRIES.len()], PLANS[id / 7 % PLANS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_of_200_bytes_and_follow_from_the_seed() {
        let make = |seed| ship(3, 1_000, &mut Rng::with_seed(seed)).unwrap();
        let (blocks, same, other) = (make(7), make(7), make(8));
        assert!(blocks[0].raw == same[0].raw && blocks[0].raw != other[0].raw);
        let bytes: usize = blocks.iter().map(|block| block.raw.len()).sum();
        assert!((180..=210).contains(&(bytes / 3_000)), "{} bytes", bytes / 3_000);
        for line in blocks[0].raw.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert_eq!(record.as_object().unwrap().len(), COLUMNS);
        }
    }
}
