//! Definitions that change under load, by SIGHUP and by `kill -9` in the middle of it.
//!
//! In: two streams of numbered records. The contract of one alternates between two bounds, so that a record is delivered or put
//! aside by the plan of its batch; the size of its batches alternates too; a second pipeline on it comes and goes; a third writes it
//! into a stream of several partitions, by a key whose values alternate, so that a batch which a kill cut short must be finished
//! by its own plan: another would place its records anew. At times the file is broken. The other stream has a pipeline that never
//! changes. Out: every record by its number, delivered or put aside, once, in each pipeline. Promise: nothing lost, nothing twice, and
//! while the core lives nobody takes over the cursor of the pipeline that does not change.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Verdict;
use super::home::{Place, play_at};
use super::ids::{Record, delivered, line};
use crate::admin;
use crate::database::read_epochs;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long records are written and definitions changed.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    seconds: u64,
    /// Decides what changes, and when the core is killed.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second of each stream.
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
    /// Of each stream.
    generated: u64,
    /// In force while the core went on.
    applied: u64,
    /// Cut by a kill.
    cut: u64,
    /// Of a file that is no configuration.
    refused: u64,
    /// Batches that a kill cut short and that the plan of before finished: few kills meet one. The engine's model test meets it each time.
    finished_by_old_plan: u64,
    /// By the pipeline whose contract alternates.
    delivered: u64,
    quarantined: u64,
    ok: bool,
    why: Vec<String>,
}

/// How long everything may take to arrive, and a reload to be over.
const HEALING: Duration = Duration::from_secs(120);
/// How often the writers write.
const PACE: Duration = Duration::from_millis(50);

const STREAMS: [&str; 2] = ["changing", "still"];
/// Each with the stream it reads.
const PIPELINES: [(&str, &str); 4] =
    [("changing", "changing"), ("guest", "changing"), ("still", "still"), ("spread", "spread")];
/// The pipeline into the stream `spread`.
const REKEYED: &str = "rekeyed";
/// What the core says when it has the plan of before finish a batch.
const FINISHING: &str = "is finished by its own plan";

/// A definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Definition {
    /// The largest `n` that the contract takes, of 0 to 9.
    most: u64,
    max_rows: u64,
    guest: bool,
    /// The column that re-keyed records are placed by.
    key: &'static str,
}

const LAST: Definition = Definition { most: 9, max_rows: 8_000, guest: true, key: "id" };

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let mut rng = fastrand::Rng::with_seed(args.seed);
    configure(&rig.ground, LAST)?;
    let folders = STREAMS.map(|stream| (stream, rig.ground.logs.join(stream)));
    for (_, folder) in &folders {
        std::fs::create_dir_all(folder)?;
    }
    let sources = folders.each_ref().map(|(stream, folder)| (*stream, folder.as_path()));
    rig.ground.write_agent_of(rig.ground.gateway, "", &sources)?;
    rig.ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;

    let mut report = Report {
        scenario: "plan_change",
        seed: args.seed,
        seconds: args.seconds,
        generated: 0,
        applied: 0,
        cut: 0,
        refused: 0,
        finished_by_old_plan: 0,
        delivered: 0,
        quarantined: 0,
        ok: false,
        why: Vec::new(),
    };
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let paths = folders.map(|(_, folder)| folder.join("app.log"));
    let (stop, stopping) = watch::channel(false);
    let writing = tokio::spawn(write(paths, args.rate, stopping));
    let mut now = LAST;
    while Instant::now() < end {
        now = change(rig, now, &mut rng, &mut report).await?;
        sleep(Duration::from_millis(rng.u64(50..800))).await;
    }
    stop.send_replace(true);
    report.generated = writing.await??;
    configure(&rig.ground, LAST)?;
    rig.core_ready().await?;
    reloaded(rig, &mut report).await?;
    if !all_settled(rig, report.generated).await? {
        report.why.push(format!("not everything is settled after {HEALING:?}"));
    }
    report.finished_by_old_plan = finished(rig)?;
    for (pipeline, _) in PIPELINES {
        judge(&rig.ground, pipeline, &mut report).await?;
    }
    if report.applied == 0 || report.cut == 0 {
        report.why.push("too short: no change was applied, or none was cut".into());
    }
    report.why.extend(rig.stop().await);
    report.ok = report.why.is_empty();
    Ok(report)
}

/// One change: of the definition, applied or cut by a kill; or of the file into nonsense and back.
async fn change(
    rig: &mut Rig,
    now: Definition,
    rng: &mut fastrand::Rng,
    report: &mut Report,
) -> anyhow::Result<Definition> {
    rig.core_ready().await?;
    if rng.u8(0..6) == 0 {
        refused(rig, report).await?;
        configure(&rig.ground, now)?;
        // The core is not healthy until it has a file that it takes.
        reloaded(rig, report).await?;
        return Ok(now);
    }
    let other_key = if now.key == "id" { "n" } else { "id" };
    let now = Definition { key: if rng.bool() { other_key } else { now.key }, ..now };
    let next = match rng.u8(0..4) {
        0 => Definition { most: if now.most == 9 { 6 } else { 9 }, ..now },
        1 => Definition { max_rows: if now.max_rows == 50 { 8_000 } else { 50 }, ..now },
        2 => Definition { guest: !now.guest, ..now },
        _ => Definition { most: if now.most == 9 { 6 } else { 9 }, guest: !now.guest, ..now },
    };
    configure(&rig.ground, next)?;
    if rng.bool() {
        rig.core()?.hang_up()?;
        sleep(Duration::from_millis(rng.u64(0..150))).await;
        rig.kill_core().await?;
        rig.restart_core()?;
        report.cut += 1;
    } else {
        reloaded(rig, report).await?;
        report.applied += 1;
    }
    Ok(next)
}

/// A file that is no configuration is told, and takes nobody's cursor over.
async fn refused(rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    std::fs::write(&rig.ground.core_config, "nonsense = true\n")?;
    let before = epochs(&rig.ground, "changing").await?;
    match hang_up(rig).await? {
        Some(_) => report.refused += 1,
        None => report.why.push("a file that is no configuration was taken".into()),
    }
    if epochs(&rig.ground, "changing").await? != before {
        report.why.push("a refused file had a cursor taken over".into());
    }
    Ok(())
}

/// Has the core read its file, which it is to take, and looks that nobody took over what does not change.
async fn reloaded(rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    let before = epochs(&rig.ground, "still").await?;
    if let Some(error) = hang_up(rig).await? {
        report.why.push(format!("a definition was refused: {error}"));
    }
    let after = epochs(&rig.ground, "still").await?;
    if after != before {
        let text = format!("a reload had the cursor of still taken over: {before:?}, {after:?}");
        report.why.push(text);
    }
    Ok(())
}

/// SIGHUP, and the wait until it is over: why it was refused, if it was.
async fn hang_up(rig: &mut Rig) -> anyhow::Result<Option<String>> {
    let socket = rig.ground.socket();
    let before = admin::status(&socket).await?.reload.map(|reload| reload.at_us);
    rig.core()?.hang_up()?;
    let deadline = Instant::now() + HEALING;
    while Instant::now() < deadline {
        rig.check()?;
        let reload = admin::status(&socket).await.ok().and_then(|status| status.reload);
        if let Some(reload) = reload.filter(|reload| Some(reload.at_us) != before) {
            return Ok(reload.error);
        }
        sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the core has not read its file {HEALING:?} after SIGHUP")
}

async fn epochs(ground: &Ground, pipeline: &str) -> anyhow::Result<Vec<(i64, i64)>> {
    read_epochs(&ground.dir.join(format!("{pipeline}.sqlite"))).await
}

fn configure(ground: &Ground, definition: Definition) -> anyhow::Result<()> {
    let Definition { most, max_rows, guest, key } = definition;
    let mut text = ground.core_head();
    for stream in STREAMS {
        let most = if stream == "changing" { most } else { 9 };
        text += &format!(
            "[stream.{stream}]\npartitions = 2\n[stream.{stream}.contract]\nformat = \"json\"\nunknown = \"drop\"\n\
             [stream.{stream}.contract.columns]\nid = \"bigint not null\"\nn = {{ type = \"int\", max = {most} }}\n\n"
        );
    }
    for (name, from) in PIPELINES.iter().filter(|(name, _)| guest || *name != "guest") {
        let database = ground.dir.join(format!("{name}.sqlite"));
        let max_rows = if *from == "changing" { max_rows } else { 8_000 };
        text += &format!(
            "[pipeline.{name}]\nfrom = \"{from}\"\nmax_rows = {max_rows}\n[pipeline.{name}.to.sqlite]\npath = {database:?}\n\
             table = \"rows\"\nmode = \"append\"\n\n"
        );
    }
    text += &format!(
        "[stream.spread]\npartitions = 4\n[stream.spread.contract]\nformat = \"json\"\nunknown = \"drop\"\n\
         [stream.spread.contract.columns]\nid = \"bigint not null\"\nplace = \"bigint\"\n\n\
         [pipeline.{REKEYED}]\nfrom = \"changing\"\nmax_rows = {max_rows}\nsql = \"select id, cast({key} as bigint) as place from input\"\n\
         [pipeline.{REKEYED}.to.stream]\nname = \"spread\"\nkey = [\"place\"]\n"
    );
    std::fs::write(&ground.core_config, text).context("cannot write the core's configuration")
}

/// Waits until every record is settled in every pipeline; what is put aside on its way into a stream never reaches its reader.
async fn all_settled(rig: &mut Rig, generated: u64) -> anyhow::Result<bool> {
    let deadline = Instant::now() + HEALING;
    while Instant::now() < deadline {
        rig.check()?;
        if let Ok(status) = admin::status(&rig.ground.socket()).await {
            let of = |name: &str| status.pipelines.iter().find(|pipeline| pipeline.name == name);
            let aside = of(REKEYED).map_or(0, |rekeyed| rekeyed.counters().quarantined);
            let all = generated * (PIPELINES.len() as u64 + 1);
            let counters = status.counters();
            if counters.delivered + counters.quarantined + aside >= all {
                return Ok(true);
            }
        }
        sleep(PACE).await;
    }
    Ok(false)
}

/// How often the core had the plan of before finish a batch.
fn finished(rig: &Rig) -> anyhow::Result<u64> {
    let log = std::fs::read(rig.core_log()).context("cannot read what the core said")?;
    Ok(String::from_utf8_lossy(&log).matches(FINISHING).count() as u64)
}

/// Gives how many records of each stream were written.
async fn write(
    paths: [std::path::PathBuf; 2],
    rate: u64,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let mut files = Vec::new();
    for path in &paths {
        files.push(std::fs::File::create(path)?);
    }
    let pace = (rate * PACE.as_millis() as u64 / 1_000).max(1);
    let mut written = 0;
    while !*stop.borrow() {
        let lines: String = (written..written + pace).map(line).collect();
        for file in &mut files {
            file.write_all(lines.as_bytes())?;
        }
        written += pace;
        sleep(PACE).await;
    }
    Ok(written)
}

/// Every number once, and only those put aside that a plan would not take.
async fn judge(ground: &Ground, pipeline: &str, report: &mut Report) -> anyhow::Result<()> {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let rows = delivered(ground, pipeline).await?;
    let asides = ground.quarantined(pipeline).await?;
    if pipeline == "changing" {
        (report.delivered, report.quarantined) = (rows.len() as u64, asides.len() as u64);
    }
    for id in rows {
        *seen.entry(id).or_default() += 1;
    }
    // What was put aside before it could become a record of the stream.
    let asides = match pipeline {
        "spread" => {
            complain(report, asides.is_empty(), || "a re-keyed record was put aside".into());
            ground.quarantined(REKEYED).await?
        }
        _ => asides,
    };
    for aside in asides {
        let Record { id } =
            serde_json::from_str(&aside.record).context("no record was put aside")?;
        *seen.entry(id).or_default() += 1;
        let could_be = aside.reason == "range" && id % 10 > 6 && pipeline != "still";
        complain(report, could_be, || format!("{pipeline} {id}: put aside as {}", aside.reason));
    }
    for id in 0..report.generated {
        let times = seen.remove(&id).unwrap_or_default();
        complain(report, times == 1, || format!("{pipeline} {id}: there {times} times"));
    }
    complain(report, seen.is_empty(), || format!("{pipeline}: strangers are there"));
    Ok(())
}

/// A few examples tell enough.
fn complain(report: &mut Report, met: bool, complaint: impl FnOnce() -> String) {
    if !met && report.why.len() < 20 {
        report.why.push(complaint());
    }
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  seed {}  {} s", self.scenario, self.seed, self.seconds)?;
        let rows = [
            ("generated", self.generated),
            ("applied", self.applied),
            ("cut", self.cut),
            ("refused", self.refused),
            ("finished by the plan of before", self.finished_by_old_plan),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
        ];
        super::findings::table(f, &rows, &self.why)?;
        writeln!(f, "{}", if self.ok { "good" } else { "BAD" })
    }
}
