//! An access log like those of the published comparisons: lines of 167 bytes on average, seeded.
//!
//! The values repeat as they do in life (few paths, few agents, many addresses), so that a codec finds what it would find in
//! a real log: zstd at level 1 makes 1/6.2 of it in blocks of 256 KiB, as of the log of those comparisons.

use std::io::{self, Write};

use fastrand::Rng;

const PATHS: [&str; 12] = [
    "/",
    "/index.html",
    "/api/v1/orders",
    "/api/v1/orders/",
    "/api/v1/users/",
    "/static/app.js",
    "/static/style.css",
    "/images/logo.png",
    "/search?q=",
    "/cart",
    "/checkout",
    "/health",
];
/// A minor version follows.
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/126.0 Safari/",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Safari/",
    "curl/8.",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Version/17.5 Safari/605.1.",
    "kube-probe/1.",
];
const REFERRERS: [&str; 4] =
    ["-", "https://shop.example/", "https://www.example.org/search", "https://shop.example/cart"];
const STATUSES: [u16; 8] = [200, 200, 200, 200, 200, 304, 404, 500];

/// Writes whole lines until at least `bytes` bytes are written. Gives how many.
pub(super) fn write(out: &mut impl Write, bytes: u64, rng: &mut Rng) -> io::Result<u64> {
    let mut written = 0;
    let mut second = 0_u32;
    let mut line = Vec::with_capacity(256);
    while written < bytes {
        line.clear();
        second += u32::from(rng.u32(..200) == 0);
        write_line(&mut line, second, rng)?;
        out.write_all(&line)?;
        written += line.len() as u64;
    }
    out.flush()?;
    Ok(written)
}

fn write_line(line: &mut Vec<u8>, second: u32, rng: &mut Rng) -> io::Result<()> {
    let path = PATHS[rng.usize(..PATHS.len())];
    write!(
        line,
        "{}.{}.{}.{} - - [24/Nov/2026:{:02}:{:02}:{:02} +0000] \"GET {path}",
        rng.u8(1..=223),
        rng.u8(..),
        rng.u8(..),
        rng.u8(..),
        second / 3_600 % 24,
        second / 60 % 60,
        second % 60,
    )?;
    if path.ends_with('/') && path.len() > 1 || path.ends_with('=') {
        write!(line, "{}", rng.u32(1..1_000_000))?;
    }
    writeln!(
        line,
        " HTTP/1.1\" {} {} \"{}\" \"{}{}\" {:.3}",
        STATUSES[rng.usize(..STATUSES.len())],
        rng.u32(100..60_000),
        REFERRERS[rng.usize(..REFERRERS.len())],
        AGENTS[rng.usize(..AGENTS.len())],
        rng.u32(..30),
        rng.f64() * 2.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_those_of_the_comparisons_and_follow_from_the_seed() {
        let make = |seed| {
            let mut out = Vec::new();
            write(&mut out, 1_000_000, &mut Rng::with_seed(seed)).unwrap();
            out
        };
        let text = make(7);
        assert!(text == make(7) && text != make(8));
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        let mean = text.len() / lines;
        assert!((160..=174).contains(&mean), "lines are {mean} bytes on average");
    }
}
