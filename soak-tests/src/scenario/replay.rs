//! A table that lost rows is made whole by a replay, while the core is killed in the middle of it.
//!
//! In: numbered records, delivered; then a third of the rows is removed. Out: every record once. Promise: a replay is carried out once,
//! however often it is asked for by its id and whenever the core is killed: as many records come in again as the log holds, no more.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Verdict;
use super::home::{Place, play_at};
use super::ids::{delivered, line};
use crate::admin;
use crate::database::lose_rows;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Records that are delivered and replayed.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    records: u64,
    /// Decides when the core is killed.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How often.
    #[arg(long, default_value_t = 5)]
    kills: u64,
    #[command(flatten)]
    home: Place,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    generated: u64,
    removed: u64,
    kills: u64,
    /// Over both deliveries.
    records_in: u64,
    rows: u64,
    ok: bool,
    why: Vec<String>,
}

const HEALING: Duration = Duration::from_secs(120);
/// Of the stream, the pipeline and the table's file.
const NAME: &str = "replayed";
const REQUEST: &str = "00000000-0000-4000-8000-000000000001";

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let mut rng = fastrand::Rng::with_seed(args.seed);
    configure(&rig.ground)?;
    let lines: String = (0..args.records).map(line).collect();
    std::fs::write(rig.ground.logs.join("app.log"), lines)?;
    let folder = rig.ground.logs.clone();
    rig.ground.write_agent_of(rig.ground.gateway, "", &[(NAME, &folder)])?;
    rig.ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;

    let mut why = Vec::new();
    settles(rig, args.records, &mut why).await?;
    let removed = lose_rows(&rig.ground.dir.join("replayed.sqlite")).await?;
    for _ in 0..args.kills {
        ask(&rig.ground).await?;
        sleep(Duration::from_millis(rng.u64(0..1_500))).await;
        rig.kill_core().await?;
        rig.restart_core()?;
        rig.core_ready().await?;
    }
    ask(&rig.ground).await?;
    let records_in = settles(rig, 2 * args.records, &mut why).await?;
    let rows = delivered(&rig.ground, NAME).await?;
    let unique: BTreeSet<u64> = rows.iter().copied().collect();
    let mut complain = |met: bool, complaint: String| {
        if !met {
            why.push(complaint);
        }
    };
    complain(removed > 0, "no row was removed".into());
    complain(unique.len() == rows.len(), "a row is there twice".into());
    complain(
        unique.iter().copied().eq(0..args.records),
        format!("{} of {} records are there", unique.len(), args.records),
    );
    complain(
        records_in == 2 * args.records,
        format!(
            "{records_in} records came in, not twice {}: it was not carried out once",
            args.records
        ),
    );
    why.extend(rig.stop().await);
    Ok(Report {
        scenario: "replay",
        seed: args.seed,
        generated: args.records,
        removed,
        kills: rig.restarts(),
        records_in,
        rows: rows.len() as u64,
        ok: why.is_empty(),
        why,
    })
}

fn configure(ground: &Ground) -> anyhow::Result<()> {
    let database = ground.dir.join("replayed.sqlite");
    let text = format!(
        "{}[stream.{NAME}]\n[stream.{NAME}.contract]\nformat = \"json\"\nunknown = \"drop\"\n\
         [stream.{NAME}.contract.columns]\nid = \"bigint not null\"\n\n\
         [pipeline.{NAME}]\nfrom = \"{NAME}\"\nmax_rows = 500\n[pipeline.{NAME}.to.sqlite]\npath = {database:?}\n\
         table = \"rows\"\nmode = \"append\"\n",
        ground.core_head()
    );
    std::fs::write(&ground.core_config, text).context("cannot write the core's configuration")
}

/// From the log's start, by one id.
async fn ask(ground: &Ground) -> anyhow::Result<()> {
    let verb = ["replay", NAME, "--from", "0", "--yes", "--request", REQUEST];
    ground.garam(&verb).await.map(drop)
}

/// Waits until so many records came in and are accounted for. Gives how many did.
async fn settles(rig: &mut Rig, records: u64, why: &mut Vec<String>) -> anyhow::Result<u64> {
    let deadline = Instant::now() + HEALING;
    let mut seen = 0;
    while Instant::now() < deadline {
        rig.check()?;
        if let Ok(status) = admin::status(&rig.ground.socket()).await {
            let counters = status.counters();
            seen = counters.records_in;
            if counters.settled() >= records && status.is_drained() {
                return Ok(seen);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    why.push(format!("{seen} of {records} records are settled after {HEALING:?}"));
    Ok(seen)
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  seed {}", self.scenario, self.seed)?;
        let rows = [
            ("generated", self.generated),
            ("removed", self.removed),
            ("kills", self.kills),
            ("records in", self.records_in),
            ("rows", self.rows),
        ];
        super::findings::table(f, &rows, &self.why)?;
        writeln!(f, "{}", if self.ok { "good" } else { "BAD" })
    }
}
