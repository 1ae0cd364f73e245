//! Kills, torn state, a core that is away, a configuration that changes.

use std::fs;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use super::trial::Trial;

/// At how many places the checkpoint is torn.
const TEARS: usize = 12;

pub(super) async fn core_away(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.rig.stop_core().await?;
    trial.rig.start_agent()?;
    for round in 0..4 {
        trial.append("a.log", 0, 2_000)?;
        let size = fs::metadata(trial.log("a.log"))?.len();
        trial.until("all is seen", |ledger| ledger.totals.unread_bytes == size).await?;
        match round % 2 {
            0 => trial.rig.kill_agent().await?,
            _ => trial.rig.stop_agent().await?,
        }
        trial.rig.start_agent()?;
    }
    trial.rig.start_core()?;
    trial.rig.core_ready().await?;
    trial.settle().await?;
    Ok(())
}

pub(super) async fn torn_checkpoint(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.append("a.log", 0, 500)?;
    trial.append("b.log", 1, 500)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    trial.rig.stop_agent().await?;
    let state = trial.rig.ground.state.clone();
    for number in 0..TEARS {
        let whole = fs::read(state.join("checkpoint"))?;
        let at = whole.len() * number / TEARS;
        let mut torn = whole.clone();
        match number % 2 {
            0 => torn.truncate(at),
            _ => torn[at..].fill(0),
        }
        fs::write(state.join("checkpoint"), &torn)?;
        if number % 3 == 0 {
            fs::write(state.join("checkpoint.prev"), &torn)?;
        }
        let bytes = trial.lines(0, 5);
        trial.append_bytes("a.log", &bytes)?;
        trial.rig.start_agent()?;
        let read = trial.settle().await?.totals.bytes_read;
        trial.complain(read == bytes.len() as u64, "more was read than what is new");
        trial.rig.stop_agent().await?;
    }
    trial.rig.start_agent()
}

pub(super) async fn reloaded(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.append("a.log", 0, 5_000)?;
    trial.rig.start_agent()?;
    // Before its program has begun, any process ends on SIGHUP.
    trial.until("the agent answers", |_ledger| true).await?;
    trial.rig.stop_core().await?;
    for ship in [
        "window = \"1MiB\"\nblock_size = \"64KiB\"",
        "block_size = \"1MiB\"\ncodec = \"lz4\"",
        "hold_unlinked = \"1MiB\"\nrate = \"50MiB\"",
    ] {
        trial.append("a.log", 0, 2_000)?;
        trial.configure("*.log", "", ship)?;
        trial.rig.agent()?.hang_up()?;
        let size = fs::metadata(trial.log("a.log"))?.len();
        trial.until("the end is seen", |l| l.files.iter().any(|f| f.size() == size)).await?;
    }
    trial.rig.start_core()?;
    trial.rig.core_ready().await?;
    trial.append("a.log", 0, 2_000)?;
    trial.settle().await?;
    Ok(())
}

pub(super) async fn old(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "ignore_older = \"1h\"").await?;
    trial.append("a.log", 0, 100)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    for round in 0..3 {
        let file = fs::File::options().append(true).open(trial.log("a.log"))?;
        file.set_modified(SystemTime::now() - Duration::from_secs(7_200))?;
        trial.rig.stop_agent().await?;
        trial.rig.start_agent()?;
        let read = trial.settle().await?.totals.bytes_read;
        trial.complain(read == 0, "a known file was read again");
        let line = trial.lines(0, 1);
        trial.append_bytes("a.log", &line)?;
        trial.until("the line is read", |l| l.totals.bytes_read > 0).await?;
        let read = trial.settle().await?.totals.bytes_read;
        trial.complain(read == line.len() as u64, &format!("round {round} read {read} bytes"));
    }
    Ok(())
}

pub(super) async fn two_agents(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.append("a.log", 0, 100)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    let ground = &trial.rig.ground;
    let mut second = Command::new(&ground.programs.agent);
    second.args(["run", "--config"]).arg(&ground.agent_config);
    let output = second.output().await?;
    let said = String::from_utf8_lossy(&output.stderr).contains("in use by another agent");
    trial.complain(output.status.code() == Some(6) && said, "a second agent was not refused");
    trial.append("a.log", 0, 100)?;
    trial.settle().await?;
    Ok(())
}
