//! `bench idle`: what an agent costs that has nothing to do.
//!
//! For each number of files a new core (gateway and log alone) and a new agent with its defaults; files of five lines, a
//! hundred in a folder, all acknowledged before anything counts. Until 35 seconds later they are looked at more often; then
//! memory (`VmRSS`), processor time (`/proc/PID/stat`, in steps of 10 ms) and descriptors are taken over `--seconds`. The agent is not asked
//! for its state until all that is done: the core's metrics say when everything has arrived. Then it is asked once, and its
//! memory is read again. Both programs may have no more than `--descriptors`; the agent has the environment that its systemd
//! unit gives it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{round, with_rig};
use crate::admin;
use crate::agent;
use crate::cli::say;
use crate::ground::Programs;
use crate::rig::Rig;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many files lie there; several numbers are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2_000, 20_000],
          value_parser = clap::value_parser!(u64).range(1..=200_000))]
    files: Vec<u64>,
    /// For how long each idle agent is measured.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How many descriptors each process may have.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(200..=1_000_000))]
    descriptors: u64,
}

/// What was measured: a row for each number of files.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Figures(Vec<Row>);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    files: u64,
    resident_mib: f64,
    peak_mib: f64,
    /// After it was asked for its state once.
    asked_mib: f64,
    cpu_percent: f64,
    descriptors: u64,
    intake_s: f64,
    intake_cpu_s: f64,
}

/// As in `packaging/systemd/garam-agent.service`.
const ENVIRONMENT: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")];
const LINES: u64 = 5;
const IN_A_FOLDER: u64 = 100;
/// Until files count as idle.
const CALM: Duration = Duration::from_secs(35);
const GLANCE: Duration = Duration::from_millis(50);
/// How long the intake may take.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) async fn run(args: Args, programs: Programs) -> anyhow::Result<Figures> {
    let limit = Rlimit { current: Some(args.descriptors), maximum: Some(args.descriptors) };
    setrlimit(Resource::Nofile, limit).context("cannot limit descriptors")?;
    let mut rows = Vec::new();
    for &files in &args.files {
        let row = with_rig(programs.clone(), async |rig| {
            rig.agent_environment = ENVIRONMENT.map(|(name, value)| (name, value.into())).into();
            measure(&args, files, rig).await
        });
        rows.push(row.await?);
    }
    Ok(Figures(rows))
}

async fn measure(args: &Args, files: u64, rig: &mut Rig) -> anyhow::Result<Row> {
    rig.ground.write_log_only_core()?;
    rig.ground.write_agent_of_folders(rig.ground.gateway)?;
    rig.ground.make_certificates().await?;
    write_files(&rig.ground.logs, files)?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;
    let began = Instant::now();
    until_arrived(rig, files * LINES).await?;
    let intake_s = began.elapsed().as_secs_f64();
    let intake_cpu_s = rig.agent()?.usage()?.cpu_s;
    say(&format!("{files} files are taken in; resting, then measuring {} s", args.seconds));
    sleep(CALM).await;
    let before = rig.agent()?.usage()?;
    sleep(Duration::from_secs(args.seconds)).await;
    let after = rig.agent()?.usage()?;
    let descriptors = rig.agent()?.descriptors()?;
    let known = agent::acknowledged(&rig.ground.state).await?.len() as u64;
    anyhow::ensure!(known == files, "the agent knows {known} files of {files}");
    sleep(Duration::from_secs(2)).await;
    let asked = rig.agent()?.usage()?;
    Ok(Row {
        files,
        resident_mib: round(after.resident_mib),
        peak_mib: round(after.peak_mib),
        asked_mib: round(asked.resident_mib),
        cpu_percent: round((after.cpu_s - before.cpu_s) / args.seconds as f64 * 100.0),
        descriptors,
        intake_s: round(intake_s),
        intake_cpu_s: round(intake_cpu_s),
    })
}

fn write_files(logs: &Path, files: u64) -> anyhow::Result<()> {
    for number in 0..files {
        let folder = logs.join((number / IN_A_FOLDER).to_string());
        if number % IN_A_FOLDER == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        let lines: String = (0..LINES).map(|line| format!("file {number} line {line}\n")).collect();
        std::fs::write(folder.join(format!("{number}.log")), lines)?;
    }
    Ok(())
}

/// Waits until the core holds so many records.
async fn until_arrived(rig: &mut Rig, records: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        rig.check()?;
        let arrived = admin::appended_records(rig.ground.admin).await.unwrap_or(0);
        if arrived >= records {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{arrived} of {records} records arrived");
        sleep(GLANCE).await;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|row| {
            writeln!(
                f,
                "{} files idle: {:.1} MiB (peak {:.1}; {:.1} once asked), {:.2} % of a core, {} descriptors; taken in within {:.1} s, {:.2} CPU-s",
                row.files,
                row.resident_mib,
                row.peak_mib,
                row.asked_mib,
                row.cpu_percent,
                row.descriptors,
                row.intake_s,
                row.intake_cpu_s
            )
        })
    }
}
