//! What the agent knows: over its status socket while it runs, in its checkpoint when it does not.
//!
//! In: the agent's state folder. Out: per generation how far it was acknowledged, and of which file. The harness shares no
//! code with the product: this is its own reading of two stable forms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

/// An agent that does not answer within this time is taken as not there.
const PATIENCE: Duration = Duration::from_secs(2);

/// One file as the agent knows it: everything below `mark` was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frontier {
    pub(crate) path: PathBuf,
    pub(crate) mark: u128,
}

/// By generation.
pub(crate) type Frontiers = BTreeMap<String, Frontier>;

/// Asks the running agent what was acknowledged to it.
pub(crate) async fn acknowledged(state: &Path) -> anyhow::Result<Frontiers> {
    #[derive(Deserialize)]
    struct Status {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        path: PathBuf,
        generation: String,
        start: u64,
        acked: u64,
        gap: u64,
    }
    let mut text = Vec::new();
    let answer = async {
        let mut stream = UnixStream::connect(state.join("status.sock")).await?;
        stream.read_to_end(&mut text).await
    };
    tokio::time::timeout(PATIENCE, answer).await.context("the agent's socket is silent")??;
    let status: Status = serde_json::from_slice(&text).context("the agent says something else")?;
    let frontiers = status.files.into_iter().map(|file| {
        let mark = u128::from(file.start + file.acked + file.gap);
        (file.generation, Frontier { path: file.path, mark })
    });
    Ok(frontiers.collect())
}

/// The newest whole generation of the checkpoint; empty when the agent has not written one yet, none when there are files
/// and no whole one among them.
pub(crate) fn checkpoint(state: &Path) -> anyhow::Result<Option<Frontiers>> {
    let mut there = false;
    for name in ["checkpoint", "checkpoint.prev"] {
        let Ok(text) = std::fs::read_to_string(state.join(name)) else { continue };
        there = true;
        if let Some(frontiers) = parse(&text)? {
            return Ok(Some(frontiers));
        }
    }
    Ok((!there).then(BTreeMap::new))
}

/// The generation before the newest: it was complete, on disk, before the newest was begun.
pub(crate) fn settled_checkpoint(state: &Path) -> anyhow::Result<Frontiers> {
    match std::fs::read_to_string(state.join("checkpoint.prev")) {
        Ok(text) => Ok(parse(&text)?.unwrap_or_default()),
        Err(_not_written_yet) => Ok(Frontiers::new()),
    }
}

/// None when the text is not whole.
fn parse(text: &str) -> anyhow::Result<Option<Frontiers>> {
    #[derive(Deserialize)]
    struct Checkpoint {
        entries: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        generation: String,
        path: PathBuf,
        mark: String,
    }
    let body = text.split_once('\n').map(|(_, body)| body).unwrap_or_default();
    let Ok(checkpoint) = serde_json::from_str::<Checkpoint>(body) else { return Ok(None) };
    let frontiers = checkpoint.entries.into_iter().map(|entry| {
        let mark = entry.mark.parse().context("the checkpoint has other marks than before")?;
        Ok((entry.generation, Frontier { path: entry.path, mark }))
    });
    frontiers.collect::<anyhow::Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_checkpoint_falls_back_and_two_torn_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        assert_eq!(checkpoint(folder.path()).unwrap(), Some(Frontiers::new()));
        let whole = "head\n{\"entries\":[{\"generation\":\"g\",\"path\":\"/a\",\"mark\":\"7\"}]}";
        write("checkpoint.prev", whole).unwrap();
        write("checkpoint", &whole[..30]).unwrap();
        let found = checkpoint(folder.path()).unwrap().unwrap();
        assert_eq!(found["g"], Frontier { path: "/a".into(), mark: 7 });
        write("checkpoint.prev", "").unwrap();
        assert_eq!(checkpoint(folder.path()).unwrap(), None);
    }
}
