//! Files that are rotated and compressed: read before, unread, while the agent runs and while it does not.

use std::fs;

use anyhow::Context as _;
use tokio::process::Command;

use super::trial::Trial;

pub(super) async fn compressed(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log*", "").await?;
    trial.append("a.log", 0, 500)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    // Read, and compressed while the agent runs.
    for round in 1..=4 {
        rotate(trial, &format!("a.log.{round}"), 300)?;
        compress(trial, &format!("a.log.{round}"), round).await?;
        trial.settle().await?;
    }
    // Compressed unread, and the descriptor that held the lines is lost with the agent.
    trial.rig.stop_core().await?;
    trial.append("a.log", 0, 2_000)?;
    let size = fs::metadata(trial.log("a.log"))?.len();
    trial.until("all is seen", |ledger| ledger.files.iter().any(|f| f.size() == size)).await?;
    rotate(trial, "a.log-20261127", 400)?;
    compress(trial, "a.log-20261127", 0).await?;
    trial.rig.kill_agent().await?;
    trial.rig.start_core()?;
    trial.rig.core_ready().await?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    // The same while the agent is down.
    for round in 5..=8 {
        trial.append("a.log", 0, 1_000)?;
        trial.settle().await?;
        trial.rig.stop_agent().await?;
        trial.append("a.log", 0, 700)?;
        rotate(trial, &format!("a.log.{round}"), 300)?;
        compress(trial, &format!("a.log.{round}"), round).await?;
        trial.rig.start_agent()?;
        trial.settle().await?;
    }
    // Restarts know all of them.
    trial.rig.kill_agent().await?;
    trial.rig.start_agent()?;
    trial.append("a.log", 0, 100)?;
    trial.settle().await?;
    Ok(())
}

/// Moves the file away and begins it anew.
fn rotate(trial: &mut Trial, to: &str, count: u64) -> anyhow::Result<()> {
    trial.rename("a.log", to)?;
    trial.append("a.log", 0, count)
}

/// With gzip's own program, or as zstd's does it.
async fn compress(trial: &Trial, name: &str, round: u32) -> anyhow::Result<()> {
    let path = trial.log(name);
    if round.is_multiple_of(2) {
        let status = Command::new("gzip").arg(&path).status().await.context("cannot run gzip")?;
        anyhow::ensure!(status.success(), "gzip failed: {status}");
        return Ok(());
    }
    let copy = fs::File::create(trial.log(&format!("{name}.zst")))?;
    zstd::stream::copy_encode(fs::File::open(&path)?, &copy, 3)?;
    copy.set_modified(fs::metadata(&path)?.modified()?)?;
    fs::remove_file(&path).context("cannot remove the original")
}
