//! One destination is locked until its stream's quota is used up; the stream beside it must not notice.
//!
//! In: a seed, a rate, what a full stream shall do. Out: a [`Report`] with the longest time for which nothing arrived beside.
//! Promise: the lock is a real one, held by another writer of the SQLite file. The stream's agents hold when the quota is full,
//! or it goes on without the pipeline; when the lock is given back everything is delivered without anybody's hand, but for
//! what the stream gave up: that must be the gap that is counted, to the byte.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::report::{Outage, Report};
use super::{FELT, GLANCE, HEALED, until};
use crate::admin::{self, Status};
use crate::cli::say;
use crate::database;
use crate::generate::Generator;
use crate::generate::record::id_of;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;
use crate::scenario::Verdict as _;
use crate::scenario::home::Home;
use crate::scenario::judge;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// What the stream does when its quota is used up.
    #[arg(long, value_enum, default_value_t = OnFull::StopStream)]
    on_full: OnFull,
    #[command(flatten)]
    outage: super::Args,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum OnFull {
    StopStream,
    Detach,
}

/// How long the destination stays away once the quota is used up.
const LASTING: Duration = Duration::from_secs(5);
/// Nothing may keep the stream beside waiting for longer than this; it delivers about once a second at most.
const UNDISTURBED: Duration = Duration::from_secs(5);

/// So many times the rate goes into the stream whose quota, the smallest there is, has to be used up.
const FLOOD: u32 = 5;
const DOWN: &str = "down";
const BESIDE: &str = "beside";
const LOG: &str = "segment_size = \"1MiB\"";
const SMALL: &str = "partitions = 1\nquota = \"64MiB\"\nretain = \"1s\"\non_full = ";
const LARGE: &str = "partitions = 1\nquota = \"1GiB\"\nretain = \"1s\"";
const SHIP: &str = "[ship]\ncodec = \"none\"\n";

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    let home = Home::make(&args.outage.home)?;
    let mut rig = Rig::new(Ground::at(home.path(), programs)?);
    let mut report = Report::new("destination_down", args.outage.seed);
    let outcome = play(args, &mut rig, &mut report).await;
    report.conclude(1);
    if outcome.is_err() || !report.ok() {
        say(&rig.last_words());
    }
    home.leave(outcome.is_ok() && report.ok());
    outcome.map(|()| report)
}

async fn play(args: &Args, rig: &mut Rig, report: &mut Report) -> anyhow::Result<()> {
    let ground = &rig.ground;
    let super::Args { seed, rate, .. } = args.outage;
    let pipe = |name: &str, stream: String| {
        let mut pipe = ground.pipe();
        (pipe.name, pipe.from, pipe.stream) = (name.into(), name.into(), stream);
        pipe.database = ground.dir.join(format!("{name}.sqlite"));
        pipe
    };
    let on_full = args.on_full;
    let (down, beside) =
        (pipe(DOWN, format!("{SMALL}\"{}\"", on_full.name())), pipe(BESIDE, LARGE.into()));
    let folders = [ground.logs.join(DOWN), ground.logs.join(BESIDE)];
    for folder in &folders {
        std::fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let [down_logs, beside_logs] = &folders;
    ground.write_core(LOG, &[down.clone(), beside.clone()])?;
    let sources = [(DOWN, down_logs.as_path()), (BESIDE, beside_logs.as_path())];
    ground.write_agent_of(ground.gateway, SHIP, &sources)?;
    ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;
    // Nothing is rotated away from an agent that holds: that it may be missed then is another promise.
    let writers = [
        Generator::start_without_rotations(down_logs, seed, rate.saturating_mul(FLOOD)),
        Generator::start_without_rotations(beside_logs, seed + 1, rate),
    ];
    let both = |status: &Status| [DOWN, BESIDE].iter().all(|name| settled(status, name) > 0);
    anyhow::ensure!(until(rig, HEALED, both).await?, "nothing is delivered before the outage");

    let (outage, gone) = take_away(rig, &down.database, on_full, report).await?;
    report.outages.push(outage);
    let mut written = Vec::new();
    for writer in writers {
        writer.check()?;
        written.push(writer.finish().await?);
    }
    if !rig.all_shipped(&folders, HEALED).await? || !until(rig, HEALED, Status::is_drained).await? {
        report.why.push("not everything arrived".into());
    }
    report.why.extend(rig.stop().await);
    for (pipe, book) in [&down, &beside].into_iter().zip(&written) {
        let found = judge::judge(&rig.ground, &pipe.name, &pipe.database, book).await?;
        let counters = database::read_counters(&pipe.database).await?;
        let gap = counters.gap;
        if (counters.delivered, counters.quarantined) != (found.delivered, found.quarantined) {
            let (rows, aside) = (found.delivered, found.quarantined);
            report.why.push(format!("{counters:?}, but {rows} rows and {aside} aside"));
        }
        if on_full == OnFull::Detach && pipe.name == DOWN {
            // What was put aside before the lock lies in the quarantine, but also in the gap.
            let aside = rig.ground.quarantined(&pipe.name).await?;
            let aside = aside.iter().filter(|aside| gone.contains(&aside.offset));
            let pages = aside.filter_map(|aside| book.page(id_of(&aside.record)?));
            let aside_bytes: u64 = pages.map(|page| u64::from(page.bytes)).sum();
            report.add_behind_gap(&pipe.name, book.len(), &found, gap - aside_bytes.min(gap));
            continue;
        }
        report.add(&pipe.name, book.len(), &found);
        if gap != 0 {
            report.why.push(format!("{}: a gap of {gap}", pipe.name));
        }
    }
    Ok(())
}

impl OnFull {
    fn name(self) -> &'static str {
        match self {
            Self::StopStream => "stop_stream",
            Self::Detach => "detach",
        }
    }

    /// Whether the core says that the outage has come to what the configuration asks for.
    fn is_felt(self, status: &Status) -> bool {
        match self {
            Self::StopStream => status.streams.iter().any(|stream| stream.state != "ok"),
            Self::Detach => status.why.iter().any(|why| why.contains("was left behind")),
        }
    }
}

/// Locks the destination until its stream is full, or goes on without it, and a while longer; watches the one beside.
/// Gives which offsets were gone from the log when the destination came back.
async fn take_away(
    rig: &mut Rig,
    database: &Path,
    on_full: OnFull,
    report: &mut Report,
) -> anyhow::Result<(Outage, Range<u64>)> {
    let lock = database::lock(database).await?;
    let began = Instant::now();
    let (mut felt, mut moved, mut longest) = (None, began, Duration::ZERO);
    let (mut arrived, mut stood) = (0, None);
    while felt.is_none_or(|at: Instant| at.elapsed() < LASTING) {
        rig.check()?;
        anyhow::ensure!(felt.is_some() || began.elapsed() < FELT, "the quota is never used up");
        let status = admin::status(&rig.ground.socket()).await?;
        let now = settled(&status, BESIDE);
        if now > arrived {
            (arrived, moved) = (now, Instant::now());
        }
        longest = longest.max(moved.elapsed());
        let states = status.streams.iter().map(|stream| (stream.name.as_str(), &stream.state));
        for (name, state) in states.filter(|(_, state)| *state != "ok") {
            anyhow::ensure!(name == DOWN, "the stream {name} is not well: {state}");
        }
        if on_full.is_felt(&status) {
            felt.get_or_insert_with(Instant::now);
        }
        let of_locked = settled(&status, DOWN);
        let first = *stood.get_or_insert(of_locked);
        anyhow::ensure!(of_locked == first, "something was delivered into a locked database");
        sleep(GLANCE).await;
    }
    report.longest_pause_s = Some(longest.as_secs_f64());
    if longest > UNDISTURBED {
        report.why.push(format!("nothing arrived beside for {longest:?}"));
    }
    let stands_at = database::read_cursors(database).await?;
    let stands_at = stands_at.first().map_or(0, |(_, next)| next.unsigned_abs());
    let log = admin::status(&rig.ground.socket()).await?.streams;
    let start = log.iter().find(|stream| stream.name == DOWN).map_or(0, |stream| stream.start);
    let freed = Instant::now();
    lock.release().await?;
    let healed = until(rig, HEALED, |status| {
        status.why.is_empty() && settled(status, DOWN) > stood.unwrap_or_default()
    });
    let healed_s = healed.await?.then(|| freed.elapsed().as_secs_f64());
    let felt_s = felt.map(|felt| felt.duration_since(began).as_secs_f64());
    let name = match on_full {
        OnFull::StopStream => "destination locked until the quota",
        OnFull::Detach => "destination locked until the stream goes on without it",
    };
    Ok((Outage { name, felt_s, healed_s }, stands_at..start))
}

fn settled(status: &Status, pipeline: &str) -> u64 {
    let found = status.pipelines.iter().find(|found| found.name == pipeline);
    found.map_or(0, |found| found.counters().settled())
}
