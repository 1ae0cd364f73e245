//! Messages over a connection, and an agent that is killed while they come.
//!
//! The promise: what the agent has written into its spool is delivered once. Syslog has no acknowledgements, so a sender
//! knows nothing of the rest: it lay in the kernel's buffers or in the agent's memory and is gone. What had been written is
//! read off the spool itself, after each kill; that, and nothing else, is in the book, and whatever else arrives was never
//! written.

use std::net::SocketAddr;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use super::trial::Trial;

const ROUNDS: u32 = 8;
const MESSAGES: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(2);

pub(super) async fn syslog(trial: &mut Trial) -> anyhow::Result<()> {
    // Free now; whoever takes it before the agent does fails the run.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let table =
        format!("[[syslog]]\nname = \"net\"\nstream = \"soak\"\nlisten = [\"tcp://{address}\"]\n");
    trial.begin("*.log", &table).await?;
    let (mut sent, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let away = round % 3 == 2;
        if away {
            trial.rig.stop_core().await?;
        }
        trial.rig.start_agent()?;
        let connection = connect(trial, address).await?;
        let draft = trial.draft(round, MESSAGES);
        let bytes: Vec<u8> = draft.iter().flat_map(|(line, _)| line).copied().collect();
        let sending = tokio::spawn(send(connection, bytes));
        // From the first message of the first round to the last of the last.
        let enough = MESSAGES * u64::from(round) / u64::from(ROUNDS - 1);
        let enough = enough.max(1);
        let is_spooled = |spooled: u64| spooled >= enough;
        trial
            .until("so much is spooled", |ledger| {
                ledger.spools.first().is_some_and(|spool| is_spooled(spool.spooled))
            })
            .await?;
        trial.rig.kill_agent().await?;
        // The connection broke, or all was sent before.
        drop(sending.await);
        let survivors = survivors(trial, round)?;
        trial.complain(survivors >= enough, "what was counted as spooled is not in the spool");
        sent += MESSAGES;
        kept += survivors;
        let pages = draft.into_iter().take(usize::try_from(survivors)?).map(|(_, page)| page);
        trial.admit(round, pages);
        if away {
            trial.rig.start_core()?;
            trial.rig.core_ready().await?;
        }
    }
    trial.complain(kept < sent, "no kill fell into the middle of what was sent");
    trial.rig.start_agent()?;
    trial.settle().await?;
    Ok(())
}

async fn connect(trial: &mut Trial, address: SocketAddr) -> anyhow::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        trial.rig.check()?;
        match TcpStream::connect(address).await {
            Ok(connection) => return Ok(connection),
            Err(_) if Instant::now() < deadline => sleep(GLANCE).await,
            Err(error) => return Err(error).context("the agent does not listen"),
        }
    }
}

async fn send(mut connection: TcpStream, bytes: Vec<u8>) -> std::io::Result<()> {
    for part in bytes.chunks(4096) {
        connection.write_all(part).await?;
        // Slow enough that kills fall between.
        sleep(GLANCE).await;
    }
    connection.shutdown().await
}

/// How many messages of a writer the spool holds: they came in order over one connection, so the newest number tells. What
/// was shipped and removed before came before.
fn survivors(trial: &Trial, writer: u32) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Message {
        writer: u32,
        seq: u64,
    }
    let mut newest = 0;
    for entry in std::fs::read_dir(trial.rig.ground.state.join("spool/net"))? {
        let text = std::fs::read(entry?.path())?;
        // What stands behind the last line feed is no message.
        let whole = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let lines = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            let message: Message = serde_json::from_slice(line).context("a torn line")?;
            if message.writer == writer {
                newest = newest.max(message.seq);
            }
        }
    }
    Ok(newest)
}
