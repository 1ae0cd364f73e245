//! The status as metrics: the text format of Prometheus, from `status -o metrics` and, when configured, over HTTP.
//!
//! In: a [`Status`]. Out: text, or answers to `GET /metrics` and `GET /healthz`. Promise: names are stable, no label holds a
//! path; the parts of `garam_agent_ledger_bytes` other than `size` and `acked` add up to `size` for each source. HTTP as far
//! as a scraper needs it: one request per connection, small and in time, or it is closed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::engine::Event;
use crate::source::spool::SpoolStatus;
use crate::status::{self, FileStatus, Status};

const PATIENCE: Duration = Duration::from_secs(5);
/// No request that is understood here is longer.
const LARGEST: usize = 8 * 1024;

/// All metrics of an agent.
pub fn text(status: &Status) -> String {
    let mut out = Text::default();
    let totals = &status.totals;
    out.one("up_seconds", "gauge", status.uptime_s);
    out.one("connected", "gauge", u64::from(status.connected));
    out.one("reconnects_total", "counter", totals.reconnects);
    out.one("read_records_total", "counter", totals.records_read);
    out.one("acked_records_total", "counter", totals.records_acked);
    out.one("read_bytes_total", "counter", totals.bytes_read);
    out.one("acked_bytes_total", "counter", totals.bytes_acked);
    out.by("gap_bytes_total", "counter", "reason", &totals.gap_by);
    out.by("skipped_bytes_total", "counter", "reason", &totals.skipped_by);
    spools(&mut out, &status.spools);
    out.one("replaced_characters_total", "counter", totals.characters_replaced);
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for file in &status.files {
        *states.entry(file.state.clone()).or_default() += 1;
    }
    out.by("files", "gauge", "state", &states);
    out.one("unread_bytes", "gauge", totals.unread_bytes);
    out.one("lag_bytes", "gauge", status.files.iter().map(|file| file.lag_bytes).sum());
    let oldest = status.files.iter().map(|file| file.lag_s).max().unwrap_or(0);
    out.one("oldest_unacked_seconds", "gauge", oldest);
    out.head("ledger_bytes", "gauge");
    for ((source, stream, part), bytes) in ledger(&status.files) {
        let labels = format!("source=\"{source}\",stream=\"{stream}\",part=\"{part}\"");
        out.sample("ledger_bytes", &labels, bytes);
    }
    out.0
}

/// What listeners took in and what became of it, by source.
fn spools(out: &mut Text, spools: &[SpoolStatus]) {
    type Value = fn(&SpoolStatus) -> u64;
    let parts: [(&str, &str, Value); 10] = [
        ("spool_received_total", "counter", |spool| spool.received),
        ("spool_spooled_total", "counter", |spool| spool.spooled),
        ("spool_shipped_total", "counter", |spool| spool.shipped),
        ("spool_cut_total", "counter", |spool| spool.cut),
        ("spool_refused_connections_total", "counter", |spool| spool.refused_connections),
        ("spool_journal_gaps_total", "counter", |spool| spool.journal_gaps),
        ("spool_connections", "gauge", |spool| spool.connections),
        ("spool_bytes", "gauge", |spool| spool.bytes),
        ("spool_limit_bytes", "gauge", |spool| spool.limit),
        ("spool_full", "gauge", |spool| u64::from(spool.full)),
    ];
    if spools.is_empty() {
        return;
    }
    for (name, kind, value) in parts {
        out.head(name, kind);
        for spool in spools {
            out.sample(name, &format!("source=\"{}\"", spool.source), value(spool));
        }
    }
    out.head("spool_dropped_total", "counter");
    for spool in spools {
        for (reason, number) in &spool.dropped_by {
            let labels = format!("source=\"{}\",reason=\"{reason}\"", spool.source);
            out.sample("spool_dropped_total", &labels, *number);
        }
    }
}

/// What became of the bytes of all files, by source, stream and part.
fn ledger(files: &[FileStatus]) -> BTreeMap<(&str, &str, String), u64> {
    let mut sums = BTreeMap::new();
    for file in files {
        let whole = [
            ("size", file.size),
            ("read", file.read),
            ("acked", file.acked),
            ("unread", file.unread),
        ];
        let whole = whole.into_iter().map(|(part, bytes)| (part.to_owned(), bytes));
        let skipped = file.skipped_by.iter().map(|(why, bytes)| (format!("skipped_{why}"), *bytes));
        let gap = file.gap_by.iter().map(|(why, bytes)| (format!("gap_{why}"), *bytes));
        for (part, bytes) in whole.chain(skipped).chain(gap) {
            *sums.entry((file.source.as_str(), file.stream.as_str(), part)).or_default() += bytes;
        }
    }
    sums
}

/// Names of sources and streams hold nothing that must be escaped.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str) {
        self.line(format_args!("# TYPE garam_agent_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        self.line(format_args!("garam_agent_{name}{{{labels}}} {value}"));
    }

    fn one(&mut self, name: &str, kind: &str, value: u64) {
        self.head(name, kind);
        self.line(format_args!("garam_agent_{name} {value}"));
    }

    fn by(&mut self, name: &str, kind: &str, label: &str, values: &BTreeMap<String, u64>) {
        self.head(name, kind);
        for (key, value) in values {
            self.sample(name, &format!("{label}=\"{key}\""), *value);
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        writeln!(self.0, "{line}").ok();
    }
}

/// Answers scrapers, for ever, one after the other.
pub async fn serve(listener: TcpListener, events: mpsc::Sender<Event>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: it passes.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer(stream, &events)).await {
            tracing::debug!(%error, "metrics were not read");
        }
    }
}

async fn answer(mut stream: TcpStream, events: &mpsc::Sender<Event>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > LARGEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let first = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (code, body) = match first {
        b"GET /metrics HTTP/1.1" | b"GET /metrics HTTP/1.0" => match status::ask(events).await {
            Some(status) => ("200 OK", text(&status)),
            None => ("503 Service Unavailable", "the agent is ending\n".into()),
        },
        b"GET /healthz HTTP/1.1" | b"GET /healthz HTTP/1.0" => ("200 OK", "ok\n".into()),
        _ => ("404 Not Found", "GET /metrics or GET /healthz\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
