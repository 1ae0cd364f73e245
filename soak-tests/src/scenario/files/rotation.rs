//! Files that are renamed, kept open by their writers, unlinked.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use tokio::time::sleep;

use super::trial::Trial;

/// How long after a rotation a writer still writes to the old file: longer than what other tailers wait.
const LATE: Duration = Duration::from_secs(8);

pub(super) async fn renamed_while_down(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log*", "").await?;
    for round in 1..=3 {
        trial.append("a.log", 0, 100)?;
        trial.rig.start_agent()?;
        trial.settle().await?;
        trial.rig.stop_agent().await?;
        trial.append("a.log", 0, 50)?;
        trial.rename("a.log", &format!("a.log.{round}"))?;
        trial.append("a.log", 0, 50)?;
    }
    trial.rig.start_agent()?;
    trial.settle().await?;
    Ok(())
}

pub(super) async fn late_writer(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.append("a.log", 0, 100)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    let mut late = fs::File::options().append(true).open(trial.log("a.log"))?;
    trial.rename("a.log", "rotated")?;
    trial.append("a.log", 1, 50)?;
    trial.settle().await?;
    sleep(LATE).await;
    let bytes = trial.lines(0, 50);
    late.write_all(&bytes)?;
    trial.settle().await?;
    Ok(())
}

pub(super) async fn rotated_under_stall(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log*", "").await?;
    trial.append("a.log", 0, 100)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    trial.rig.stop_core().await?;
    for round in 1..=4 {
        trial.append("a.log", 0, 500)?;
        let rotated = format!("a.log.{round}");
        trial.rename("a.log", &rotated)?;
        trial.append("a.log", 0, 100)?;
        trial.until("the successor is met", |ledger| ledger.files.len() == round + 1).await?;
        if round % 2 == 0 {
            fs::remove_file(trial.log(&rotated))?;
        }
    }
    trial.rig.start_core()?;
    trial.rig.core_ready().await?;
    trial.settle().await?;
    Ok(())
}
