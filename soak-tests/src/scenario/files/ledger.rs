//! What the agent says of each file, read over its socket: how many bytes there are and what became of them.
//!
//! In: the agent's state folder. Out: a [`Ledger`]. The harness shares no code with the product: this is its own reading.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

const PATIENCE: Duration = Duration::from_secs(5);

/// All files of a running agent.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Ledger {
    pub(super) connected: bool,
    pub(super) totals: Totals,
    pub(super) files: Vec<File>,
    pub(super) spools: Vec<Spool>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Totals {
    pub(super) bytes_read: u64,
    pub(super) unread_bytes: u64,
}

/// What waits on the agent's disk, and what was counted.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Spool {
    pub(super) spooled: u64,
}

impl File {
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// One generation.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct File {
    #[expect(dead_code, reason = "shown when it does not balance")]
    path: String,
    size: u64,
    read: u64,
    skipped: u64,
    gap: u64,
    unread: u64,
    lag_bytes: u64,
}

impl Ledger {
    pub(super) async fn ask(state: &Path) -> anyhow::Result<Self> {
        let mut text = Vec::new();
        let answer = async {
            let mut stream = UnixStream::connect(state.join("status.sock")).await?;
            stream.read_to_end(&mut text).await
        };
        tokio::time::timeout(PATIENCE, answer).await.context("the agent's socket is silent")??;
        serde_json::from_slice(&text).context("the agent says something else")
    }

    /// Whether so many bytes are unread and everything that was read is acknowledged.
    pub(super) fn rests(&self, unread: u64) -> bool {
        self.connected
            && self.totals.unread_bytes == unread
            && self.files.iter().all(|file| file.lag_bytes == file.unread)
    }

    /// The files whose bytes do not add up.
    pub(super) fn unbalanced(&self) -> Vec<String> {
        let off = |file: &&File| file.read + file.skipped + file.gap + file.unread != file.size;
        self.files.iter().filter(off).map(|file| format!("unbalanced: {file:?}")).collect()
    }

    /// Bytes that nobody will ever read.
    pub(super) fn gap(&self) -> u64 {
        self.files.iter().map(|file| file.gap).sum()
    }
}
