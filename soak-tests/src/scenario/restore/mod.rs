//! A core that is lost and restored from an older backup; a destination that is restored to an older copy.
//!
//! In: a busy run. Out: every record by its id. The copy is taken after a third of the time, the loss happens after two
//! thirds, while records go on being written; files of that time are origins younger than the copy. Promise: a restored core
//! must stop its pipeline with choices where the destination is ahead, and be exact after the rewind that the message names;
//! a restored destination must be exact without anybody's hand. In `too_old`: a log that no longer holds what an older
//! destination lacks.

mod too_old;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::Verdict;
use super::findings::{self, Errors};
use super::home::{Place, play_at};
use super::judge;
use crate::database;
use crate::generate::Generator;
use crate::ground::Programs;
use crate::rig::Rig;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long records are written.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(6..=86_400))]
    seconds: u64,
    /// Decides what is written.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second over all writers.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    #[command(flatten)]
    home: Place,
}

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Lost {
    #[serde(rename = "restore_core_older")]
    CoreOlder,
    #[serde(rename = "restore_destination_older")]
    DestinationOlder,
    #[serde(rename = "restore_destination_too_old")]
    DestinationTooOld,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: Lost,
    seed: u64,
    seconds: u64,
    generated: u64,
    delivered: u64,
    quarantined: u64,
    /// Offered again after the rewind, and dropped.
    dropped: u64,
    /// Gone from the log, and lost with the destination that had them.
    given_up: u64,
    #[serde(flatten)]
    errors: Errors,
    stopped_with_choices: bool,
    ok: bool,
    why: Vec<String>,
}

/// How long everything may take to arrive at the end.
const HEALING: Duration = Duration::from_secs(120);
/// How long a pipeline that must stop may take to say so.
const SAYING: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(100);

impl Args {
    /// The copy is taken after the first, the loss happens after the second.
    fn third(&self) -> Duration {
        Duration::from_secs(self.seconds) / 3
    }
}

pub(crate) async fn run(lost: Lost, args: &Args, programs: Programs) -> anyhow::Result<Report> {
    if lost == Lost::DestinationTooOld {
        return too_old::run(args, programs).await;
    }
    play_at(&args.home, programs, async |rig| play(lost, args, rig).await).await
}

async fn play(lost: Lost, args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    rig.ground.write_core("", &[rig.ground.pipe()])?;
    rig.ground.write_agent(rig.ground.gateway, "")?;
    rig.ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;
    let began = Instant::now();
    let third = args.third();
    let generator = Generator::start(&rig.ground.logs, args.seed, args.rate, args.seconds);
    sleep_until(began + third).await;
    generator.check()?;
    take(lost, rig).await?;
    sleep_until(began + third * 2).await;
    let stopped_with_choices = lose(lost, rig).await?;
    let book = generator.finish().await?;
    let healed = rig.all_settled(book.len(), HEALING).await?;
    let mut why = rig.stop().await;
    if !healed {
        why.push("it does not heal".into());
    }
    let ground = &rig.ground;
    let counters = database::read_counters(&ground.database).await?;
    let found = judge::judge(ground, &ground.pipe().name, &ground.database, &book).await?;
    why.extend(found.examples.iter().cloned());
    let mut errors = Errors::default();
    errors.add(&found);
    let mut demand = |met: bool, complaint: String| {
        if !met {
            why.push(complaint);
        }
    };
    demand(book.len() > 0, "nothing was written".into());
    demand(errors.total() == 0, format!("{} errors by id", errors.total()));
    demand(counters.records_in == counters.settled(), format!("unbalanced: {counters:?}"));
    demand(
        (counters.delivered, counters.quarantined) == (found.delivered, found.quarantined),
        format!("{counters:?}, but {} rows and {} aside", found.delivered, found.quarantined),
    );
    demand(counters.gap == 0, format!("a gap of {}", counters.gap));
    demand(
        stopped_with_choices == (lost == Lost::CoreOlder),
        format!("stopped with choices: {stopped_with_choices}"),
    );
    Ok(Report {
        scenario: lost,
        seed: args.seed,
        seconds: args.seconds,
        generated: book.len(),
        delivered: found.delivered,
        quarantined: found.quarantined,
        dropped: counters.dropped,
        given_up: 0,
        errors,
        stopped_with_choices,
        ok: why.is_empty(),
        why,
    })
}

/// Takes the copy.
async fn take(lost: Lost, rig: &mut Rig) -> anyhow::Result<()> {
    let backup = rig.ground.dir.join("backup");
    if lost == Lost::CoreOlder {
        rig.ground.garam(&["backup", &backup.display().to_string()]).await?;
        return Ok(());
    }
    rig.stop_core().await?;
    database::copy(&rig.ground.database, &backup)?;
    rig.restart_core()
}

/// Loses what the copy is of, and restores it. Gives whether the pipeline stopped with choices.
async fn lose(lost: Lost, rig: &mut Rig) -> anyhow::Result<bool> {
    let backup = rig.ground.dir.join("backup");
    if lost == Lost::DestinationOlder {
        rig.stop_core().await?;
        database::replace(&rig.ground.database, &backup)?;
        rig.restart_core()?;
        rig.core_ready().await?;
        return Ok(false);
    }
    rig.kill_core().await?;
    std::fs::rename(&rig.ground.data_dir, rig.ground.dir.join("lost"))?;
    let backup = backup.display().to_string();
    rig.ground.garam(&["verify", &backup]).await?;
    rig.ground.garam(&["restore", &backup, "--yes"]).await?;
    rig.restart_core()?;
    if !too_old::says_its_choices(rig).await? {
        return Ok(false);
    }
    let pipe = rig.ground.pipe().name;
    rig.ground.garam(&["resume", &pipe, "--rewind", "--yes"]).await?;
    rig.core_ready().await?;
    Ok(true)
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "{:?}  seed {}  {} s  {verdict}", self.scenario, self.seed, self.seconds)?;
        let mut rows = vec![
            ("generated", self.generated),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
            ("dropped", self.dropped),
            ("given up", self.given_up),
        ];
        rows.extend(self.errors.rows());
        findings::table(f, &rows, &self.why)
    }
}
