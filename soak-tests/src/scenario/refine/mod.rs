//! Mixed formats onto one contract while the core is killed each second; what is bad is put aside with the right reason, and
//! delivered once the contract is mended.
//!
//! In: three files in three formats, one record in a hundred wrong in one of eleven ways. Out: every record by its number, in
//! the table or the quarantine. Then the contract is mended, everything is requeued while the core is killed again, and the
//! tables must be complete but for what no contract could take. Promise: nothing twice, nothing lost, the right reasons.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Verdict;
use super::home::{Place, play_at};
use crate::ground::{Ground, Programs};
use crate::rig::Rig;
use records::{Source, Wrong, number};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long records are written, and the core is killed each second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    seconds: u64,
    /// Decides when the core is killed.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second of each format.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(20..=1_000_000))]
    rate: u64,
    #[command(flatten)]
    home: Place,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    seconds: u64,
    generated: u64,
    /// Before the contract was mended.
    delivered: u64,
    quarantined: u64,
    /// After the requeue.
    delivered_after: u64,
    waiting_after: u64,
    kills: u64,
    ok: bool,
    why: Vec<String>,
}

/// How long everything may take to arrive.
const HEALING: Duration = Duration::from_secs(120);
/// How often the writers write.
const PACE: Duration = Duration::from_millis(50);
/// How often the core is killed while it requeues.
const REQUEUE_KILLS: u64 = 4;
const MOST: &str = "100000000";

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let mut rng = fastrand::Rng::with_seed(args.seed);
    configure(&rig.ground, false)?;
    let folders = Source::ALL.map(|source| (source, rig.ground.logs.join(source.name())));
    for (_, folder) in &folders {
        std::fs::create_dir_all(folder)?;
    }
    let sources = folders.each_ref().map(|(source, folder)| (source.name(), folder.as_path()));
    rig.ground.write_agent_of(rig.ground.gateway, "", &sources)?;
    rig.ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;

    let each = write_and_kill(args, rig, &mut rng).await?;
    let generated = each * Source::ALL.len() as u64;
    let mut why = Vec::new();
    if !rig.all_settled(generated, HEALING).await? {
        why.push(format!("{generated} records are not settled after {HEALING:?}"));
    }
    let before = Found::look(&rig.ground, each, false, &mut why).await?;

    rig.stop_core().await?;
    configure(&rig.ground, true)?;
    rig.restart_core()?;
    rig.core_ready().await?;
    for source in Source::ALL {
        rig.ground.garam(&["dlq", "requeue", source.name(), "--all", "--yes"]).await?;
    }
    for _ in 0..REQUEUE_KILLS {
        sleep(Duration::from_millis(rng.u64(50..1_000))).await;
        rig.kill_core().await?;
        rig.restart_core()?;
    }
    // What is requeued comes in, and is settled, a second time.
    let again = generated + before.quarantined;
    if !rig.all_settled(again, HEALING).await? {
        why.push(format!("{again} records are not settled after {HEALING:?}"));
    }
    let after = Found::look(&rig.ground, each, true, &mut why).await?;
    why.extend(rig.stop().await);
    Ok(Report {
        scenario: "refine",
        seed: args.seed,
        seconds: args.seconds,
        generated,
        delivered: before.delivered,
        quarantined: before.quarantined,
        delivered_after: after.delivered,
        waiting_after: after.quarantined,
        kills: rig.restarts() - 1,
        ok: why.is_empty(),
        why,
    })
}

fn configure(ground: &Ground, mended: bool) -> anyhow::Result<()> {
    let mut text = ground.core_head();
    for source in Source::ALL {
        let (name, contract) = (source.name(), source.contract(mended));
        let database = ground.dir.join(format!("{name}.sqlite"));
        text += &format!(
            "[stream.{name}]\npartitions = 2\n\n{contract}[pipeline.{name}]\nfrom = \"{name}\"\n\n\
             [pipeline.{name}.to.sqlite]\npath = {database:?}\ntable = \"rows\"\nmode = \"append\"\n\n"
        );
    }
    std::fs::write(&ground.core_config, text).context("cannot write the core's configuration")
}

/// Gives how many records of each format were written.
async fn write_and_kill(
    args: &Args,
    rig: &mut Rig,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<u64> {
    let mut files = Vec::new();
    for source in Source::ALL {
        let path = rig.ground.logs.join(source.name()).join("app.log");
        files.push((source, std::fs::File::create(path)?));
    }
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let pace = args.rate * PACE.as_millis() as u64 / 1_000;
    let next_kill =
        |rng: &mut fastrand::Rng| Instant::now() + Duration::from_millis(rng.u64(500..1_500));
    let (mut written, mut kill) = (0, next_kill(rng));
    while Instant::now() < end {
        for (source, file) in &mut files {
            let lines = (written..written + pace).map(|number| source.line(number) + "\n");
            file.write_all(lines.collect::<String>().as_bytes())?;
        }
        written += pace;
        if Instant::now() >= kill {
            rig.kill_core().await?;
            rig.restart_core()?;
            kill = next_kill(rng);
        }
        sleep(PACE).await;
    }
    Ok(written)
}

/// Where the records are.
struct Found {
    delivered: u64,
    quarantined: u64,
}

impl Found {
    async fn look(
        ground: &Ground,
        each: u64,
        mended: bool,
        why: &mut Vec<String>,
    ) -> anyhow::Result<Self> {
        let mut found = Self { delivered: 0, quarantined: 0 };
        for source in Source::ALL {
            let name = source.name();
            let rows = delivered(ground, name).await?;
            let mut aside: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for record in ground.quarantined(name).await? {
                let number = number(&record.record).context("a record without its mark")?;
                aside.entry(number).or_default().push(record.reason);
            }
            found.delivered += rows.len() as u64;
            found.quarantined += aside.len() as u64;
            let unique: BTreeSet<u64> = rows.iter().copied().collect();
            complain(why, unique.len() == rows.len(), || format!("{name}: a row is there twice"));
            for number in 0..each {
                let wrong = Wrong::of(source, number);
                let is_aside = wrong.is_some_and(|wrong| !mended || !wrong.is_mendable());
                let reasons = aside.remove(&number).unwrap_or_default();
                let wanted: &[&str] = match wrong {
                    Some(wrong) if is_aside => &[wrong.reason()],
                    _ => &[],
                };
                complain(why, reasons == wanted, || {
                    format!("{name} {number}: put aside as {reasons:?}, not {wanted:?}")
                });
                complain(why, unique.contains(&number) != is_aside, || {
                    format!("{name} {number}: {wrong:?} delivered: {}", unique.contains(&number))
                });
            }
            complain(why, aside.is_empty(), || format!("{name}: strangers are put aside"));
            complain(why, unique.last().is_none_or(|last| *last < each), || {
                format!("{name}: strangers are delivered")
            });
        }
        Ok(found)
    }
}

/// A few examples tell enough.
fn complain(why: &mut Vec<String>, met: bool, complaint: impl FnOnce() -> String) {
    if !met && why.len() < 20 {
        why.push(complaint());
    }
}

async fn delivered(ground: &Ground, pipeline: &str) -> anyhow::Result<Vec<u64>> {
    let sql = "select id from rows";
    let verb = ["query", "--pipeline", pipeline, sql, "--limit", MOST, "-o", "json"];
    let rows: Vec<BTreeMap<String, u64>> = serde_json::from_slice(&ground.garam(&verb).await?)?;
    Ok(rows.into_iter().flat_map(BTreeMap::into_values).collect())
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  seed {}  {} s", self.scenario, self.seed, self.seconds)?;
        writeln!(f, "generated   {}  kills {}", self.generated, self.kills)?;
        writeln!(f, "before      {} delivered, {} put aside", self.delivered, self.quarantined)?;
        writeln!(f, "after       {} delivered, {} wait", self.delivered_after, self.waiting_after)?;
        for complaint in &self.why {
            writeln!(f, "  {complaint}")?;
        }
        writeln!(f, "{}", if self.ok { "good" } else { "BAD" })
    }
}
