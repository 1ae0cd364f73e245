//! What a running agent says about itself: the numbers, the socket that serves them, the table a person reads.
//!
//! In: a [`Status`] from the engine. Out: one JSON line per connection to `{state_dir}/status.sock`, or a table with
//! control characters escaped. Promise: the keys are stable; numbers are exact integers. Totals count from the start of
//! the process; per generation `read + skipped + gap + unread = size`, to the byte, also for the last ones that ended.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use garam_proto::shown::escape;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::engine::Event;
use crate::error::AgentError;
use crate::source::spool::SpoolStatus;

const PATIENCE: Duration = Duration::from_secs(5);
/// The largest status that is read: 100 000 files fit.
const LARGEST: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub agent: Option<String>,
    pub host: String,
    pub version: String,
    pub connected: bool,
    pub core: Option<String>,
    pub session: Option<String>,
    pub uptime_s: u64,
    pub totals: Totals,
    pub files: Vec<FileStatus>,
    /// The last generations that ended, oldest first: their final accounts.
    #[serde(default)]
    pub finished: Vec<FileStatus>,
    /// What syslog and journal tables keep on the disk until the core has it.
    #[serde(default)]
    pub spools: Vec<SpoolStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub records_read: u64,
    pub bytes_read: u64,
    pub records_acked: u64,
    /// The same by source.
    #[serde(default)]
    pub records_acked_by: BTreeMap<String, u64>,
    pub bytes_acked: u64,
    pub gap_bytes: u64,
    pub unread_bytes: u64,
    pub reconnects: u64,
    /// Characters that stand for bytes which are no text in their file's encoding.
    #[serde(default)]
    pub characters_replaced: u64,
    /// Acknowledged gaps, and bytes left out on purpose, by reason.
    #[serde(default)]
    pub gap_by: BTreeMap<String, u64>,
    #[serde(default)]
    pub skipped_by: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    pub path: String,
    pub source: String,
    pub stream: String,
    pub generation: String,
    pub state: String,
    /// Where reading of this generation began.
    pub start: u64,
    /// Where the content ends, as far as it was seen.
    pub size: u64,
    pub read: u64,
    pub acked: u64,
    pub gap: u64,
    pub unread: u64,
    /// Bytes that are deliberately not delivered.
    #[serde(default)]
    pub skipped: u64,
    /// The same by reason: `before_start` (what lies before `start`), `nul` (holes).
    #[serde(default)]
    pub skipped_by: BTreeMap<String, u64>,
    /// `gap` by reason.
    #[serde(default)]
    pub gap_by: BTreeMap<String, u64>,
    /// Bytes seen and not acknowledged yet, and for how long there have been such.
    #[serde(default)]
    pub lag_bytes: u64,
    #[serde(default)]
    pub lag_s: u64,
    pub records_acked: u64,
}

/// Where the socket lies.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// Binds the socket; one left behind by an agent that was killed is replaced. The caller holds the folder's lock.
pub fn bind(state_dir: &Path) -> std::io::Result<UnixListener> {
    let path = socket_path(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Answers one JSON line per connection, for ever.
pub async fn serve(listener: UnixListener, events: mpsc::Sender<Event>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: it passes.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let answer = tokio::time::timeout(PATIENCE, async {
            let Some(status) = ask(&events).await else { return Ok(()) };
            let mut line = serde_json::to_vec(&status).unwrap_or_default();
            line.push(b'\n');
            stream.write_all(&line).await
        });
        match answer.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "status was not read"),
            Err(_) => tracing::debug!("status was not read in time"),
        }
    }
}

/// Asks the engine.
pub async fn ask(events: &mpsc::Sender<Event>) -> Option<Status> {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Status(reply)).await.ok()?;
    answer.await.ok()
}

/// Reads the status of the agent that runs on a state folder.
pub fn fetch(state_dir: &Path) -> Result<Status, AgentError> {
    let path = socket_path(state_dir);
    let not_running = |source| AgentError::NotRunning { path: path.clone(), source };
    let stream = UnixStream::connect(&path).map_err(not_running)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(not_running)?;
    let mut text = Vec::new();
    stream.take(LARGEST).read_to_end(&mut text).map_err(not_running)?;
    serde_json::from_slice(&text).map_err(|error| not_running(error.into()))
}

/// Prints a status for a person.
pub fn table(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let unknown = || "-".to_owned();
    let core = match (&status.core, status.connected) {
        (Some(core), true) => format!("connected to {core}"),
        _ => "not connected".into(),
    };
    writeln!(out, "agent    {}", status.agent.clone().unwrap_or_else(unknown))?;
    writeln!(
        out,
        "host     {}   version {}   up {} s",
        escape(&status.host),
        escape(&status.version),
        status.uptime_s
    )?;
    writeln!(out, "core     {}   reconnects {}", escape(&core), status.totals.reconnects)?;
    let totals = &status.totals;
    writeln!(
        out,
        "records  {} read   {} acknowledged\nbytes    {} read   {} acknowledged   {} gap   {} unread\n",
        totals.records_read,
        totals.records_acked,
        totals.bytes_read,
        totals.bytes_acked,
        totals.gap_bytes,
        totals.unread_bytes
    )?;
    writeln!(
        out,
        "{:<10} {:>14} {:>14} {:>10} {:>6} {:>10} {:<12} {:<12} FILE",
        "STATE", "SIZE", "ACKED", "UNREAD", "LAG s", "GAP", "SOURCE", "STREAM"
    )?;
    for file in &status.files {
        writeln!(
            out,
            "{:<10} {:>14} {:>14} {:>10} {:>6} {:>10} {:<12} {:<12} {}",
            file.state,
            file.size,
            file.acked,
            file.unread,
            file.lag_s,
            file.gap,
            escape(&file.source),
            escape(&file.stream),
            escape(&file.path)
        )?;
    }
    spools(status, out)
}

fn spools(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    if status.spools.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<10} {:>12} {:>12} {:>12} {:>10} {:>6} {:>6} {:>12} {:>12} {:<12} SPOOL",
        "STATE",
        "RECEIVED",
        "SPOOLED",
        "SHIPPED",
        "DROPPED",
        "CUT",
        "CONN",
        "BYTES",
        "LIMIT",
        "STREAM"
    )?;
    for spool in &status.spools {
        writeln!(
            out,
            "{:<10} {:>12} {:>12} {:>12} {:>10} {:>6} {:>6} {:>12} {:>12} {:<12} {}",
            if spool.full { "full" } else { "open" },
            spool.received,
            spool.spooled,
            spool.shipped,
            spool.dropped_by.values().sum::<u64>(),
            spool.cut,
            spool.connections,
            spool.bytes,
            spool.limit,
            escape(&spool.stream),
            escape(&spool.source)
        )?;
    }
    Ok(())
}
