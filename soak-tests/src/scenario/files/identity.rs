//! Which file is it: reused inodes, equal heads, rewritten content, several names.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::trial::Trial;

/// How many files are made at a time in search of one in the old inode, and for how long.
const PROBES: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(100);

pub(super) async fn inode_reused(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    let head = format!("#{}\n", "h".repeat(3_000));
    for (number, lines) in (0u32..).zip([300, 50, 300, 50]) {
        let name = format!("{number}.log");
        let path = trial.log(&name);
        // Both files of the last two pairs begin with the same head, which the core refuses: it is counted.
        let equal = number >= 2;
        let begin = |trial: &mut Trial| {
            if equal {
                trial.refused = Some(trial.refused.unwrap_or(0) + 1);
                trial.append_bytes(&name, head.as_bytes())?;
            }
            anyhow::Ok(())
        };
        begin(trial)?;
        trial.append(&name, number, 200)?;
        let old = fs::metadata(&path)?.ino();
        trial.rig.start_agent()?;
        trial.settle().await?;
        trial.rig.stop_agent().await?;
        fs::remove_file(&path)?;
        let new = file_in_inode(old, &trial.rig.ground.logs).await?;
        fs::rename(new, &path)?;
        begin(trial)?;
        trial.append(&name, number, lines)?;
        anyhow::ensure!(fs::metadata(&path)?.ino() == old, "the inode was not given again");
        trial.rig.start_agent()?;
        trial.settle().await?;
        trial.rig.stop_agent().await?;
    }
    trial.rig.start_agent()
}

/// Makes files, beside the old one and outside the globs, until one gets the inode; others may have it for a while.
async fn file_in_inode(wanted: u64, folder: &Path) -> anyhow::Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let probes: Vec<PathBuf> =
            (0..PROBES).map(|number| folder.join(format!("probe-{number}"))).collect();
        for path in &probes {
            fs::write(path, "")?;
            if fs::metadata(path)?.ino() == wanted {
                return Ok(path.clone());
            }
        }
        for path in probes {
            fs::remove_file(path)?;
        }
        sleep(GLANCE).await;
    }
    anyhow::bail!("this file system does not give the inode again: name another with --dir")
}

pub(super) async fn truncated_while_down(trial: &mut Trial) -> anyhow::Result<()> {
    trial.begin("*.log", "").await?;
    for (writer, lines) in (0u32..).zip([300, 50]) {
        let name = format!("{writer}.log");
        trial.append(&name, writer, 200)?;
        trial.rig.start_agent()?;
        trial.settle().await?;
        trial.rig.stop_agent().await?;
        fs::File::create(trial.log(&name))?;
        trial.append(&name, writer, lines)?;
        trial.rig.start_agent()?;
        trial.settle().await?;
        trial.rig.kill_agent().await?;
    }
    trial.rig.start_agent()
}

pub(super) async fn links(trial: &mut Trial) -> anyhow::Result<()> {
    let all = trial.log("**");
    let second = format!("[[file]]\nname = \"b\"\ninclude = [{all:?}]\nstream = \"soak\"");
    trial.begin("*.log", &second).await?;
    trial.append("a.log", 0, 100)?;
    fs::hard_link(trial.log("a.log"), trial.log("hard.log"))?;
    for (name, target) in [
        ("soft.log", trial.log("a.log")),
        ("device.log", "/dev/zero".into()),
        ("dangling.log", "/nowhere/at/all".into()),
    ] {
        std::os::unix::fs::symlink(target, trial.log(name))?;
    }
    fs::create_dir(trial.log("folder.log"))?;
    let _socket = UnixListener::bind(trial.log("socket.log"))?;
    let fifo = tokio::process::Command::new("mkfifo").arg(trial.log("fifo.log")).status().await?;
    anyhow::ensure!(fifo.success(), "cannot make a FIFO");
    trial.rig.start_agent()?;
    trial.settle().await?;
    trial.append("hard.log", 0, 100)?;
    trial.append("soft.log", 0, 100)?;
    let files = trial.settle().await?.files.len();
    trial.complain(files == 1, "one file has several readers");
    fs::remove_file(trial.log("a.log"))?;
    trial.append("hard.log", 0, 100)?;
    trial.settle().await?;
    Ok(())
}
