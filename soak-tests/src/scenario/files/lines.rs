//! Lines without end, lines beyond the limit, a hole that is filled later.

use std::os::unix::fs::FileExt as _;

use super::trial::Trial;

pub(super) async fn partial_line(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.rig.start_agent()?;
    for _ in 0..3 {
        trial.append("a.log", 0, 20)?;
        trial.settle().await?;
        let line = trial.lines(0, 1);
        let (begun, rest) = line.split_at(line.len() / 2);
        trial.append_bytes("a.log", begun)?;
        let unread = begun.len() as u64;
        trial.until("the piece is seen and held", |ledger| ledger.rests(unread)).await?;
        trial.rig.kill_agent().await?;
        trial.append_bytes("a.log", rest)?;
        trial.rig.start_agent()?;
        trial.settle().await?;
    }
    Ok(())
}

pub(super) async fn tiny(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.append("before.log", 0, 1)?;
    trial.rig.start_agent()?;
    trial.settle().await?;
    for writer in 1..=5 {
        trial.append(&format!("{writer}.log"), writer, 1)?;
        trial
            .until("it is met", |ledger| ledger.files.len() as u64 == u64::from(writer) + 1)
            .await?;
        trial.settle().await?;
    }
    Ok(())
}

pub(super) async fn long_line(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.append("a.log", 0, 10)?;
    let mut long = vec![b'l'; 3 << 20];
    long.push(b'\n');
    trial.append_bytes("a.log", &long)?;
    trial.append("a.log", 0, 10)?;
    // A piece of `max_record`, 1 MiB; from there on pieces of a block, 256 KiB; and the end of the line.
    trial.refused = Some(10);
    trial.rig.start_agent()?;
    trial.settle().await?;
    Ok(())
}

pub(super) async fn hole(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    trial.rig.start_agent()?;
    for _ in 0..3 {
        trial.append("a.log", 0, 50)?;
        trial.settle().await?;
        // What a network file system shows of bytes that are on their way: the new length, and NUL.
        let late = trial.lines(0, 40);
        let file = std::fs::File::options().write(true).open(trial.log("a.log"))?;
        let end = file.metadata()?.len();
        file.set_len(end + late.len() as u64)?;
        let unread = late.len() as u64;
        trial.until("the hole is seen and held", |ledger| ledger.rests(unread)).await?;
        file.write_all_at(&late, end)?;
        trial.settle().await?;
    }
    Ok(())
}
