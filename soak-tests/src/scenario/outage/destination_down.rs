//! One destination is locked until its stream's quota is used up; the stream beside it must not notice.
//!
//! In: a seed, a rate. Out: a [`Report`] with the longest time for which nothing arrived beside. Promise: the lock is a real
//! one, held by another writer of the SQLite file; the stream's agents hold when the quota is full, and when the lock is
//! given back everything is delivered without anybody's hand.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::report::{Outage, Report};
use super::{Args, FELT, GLANCE, HEALED, until};
use crate::admin::{self, Status};
use crate::cli::say;
use crate::database;
use crate::generate::Generator;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;
use crate::scenario::Verdict as _;
use crate::scenario::home::Home;
use crate::scenario::judge;

/// How long the destination stays away once the quota is used up.
const LASTING: Duration = Duration::from_secs(5);
/// Nothing may keep the stream beside waiting for longer than this; it delivers about once a second at most.
const UNDISTURBED: Duration = Duration::from_secs(5);

/// So many times the rate goes into the stream whose quota, the smallest there is, has to be used up.
const FLOOD: u32 = 5;
const DOWN: &str = "down";
const BESIDE: &str = "beside";
const LOG: &str = "segment_size = \"1MiB\"";
const SMALL: &str = "partitions = 1\nquota = \"64MiB\"\nretain = \"1s\"";
const LARGE: &str = "partitions = 1\nquota = \"1GiB\"\nretain = \"1s\"";
const SHIP: &str = "[ship]\ncodec = \"none\"\n";

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    let home = Home::make(&args.home)?;
    let mut rig = Rig::new(Ground::at(home.path(), programs)?);
    let mut report = Report::new("destination_down", args.seed);
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
    let pipe = |name: &str, stream: &str| {
        let mut pipe = ground.pipe();
        (pipe.name, pipe.from, pipe.stream) = (name.into(), name.into(), stream.into());
        pipe.database = ground.dir.join(format!("{name}.sqlite"));
        pipe
    };
    let (down, beside) = (pipe(DOWN, SMALL), pipe(BESIDE, LARGE));
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
        Generator::start_without_rotations(down_logs, args.seed, args.rate.saturating_mul(FLOOD)),
        Generator::start_without_rotations(beside_logs, args.seed + 1, args.rate),
    ];
    let both = |status: &Status| [DOWN, BESIDE].iter().all(|name| settled(status, name) > 0);
    anyhow::ensure!(until(rig, HEALED, both).await?, "nothing is delivered before the outage");

    let outage = take_away(rig, &down.database, report).await?;
    report.outages.push(outage);
    let mut written = Vec::new();
    for writer in writers {
        writer.check()?;
        written.push(writer.finish().await?);
    }
    for (pipe, book) in [&down, &beside].into_iter().zip(&written) {
        let all = |status: &Status| settled(status, &pipe.name) >= book.len();
        if !until(rig, HEALED, all).await? {
            report.why.push(format!("{}: not all of {} records arrived", pipe.name, book.len()));
        }
    }
    report.why.extend(rig.stop().await);
    for (pipe, book) in [&down, &beside].into_iter().zip(&written) {
        let found = judge::judge(&rig.ground, &pipe.name, &pipe.database, book).await?;
        report.add(&pipe.name, book.len(), &found);
    }
    Ok(())
}

/// Locks the destination until its stream is full and a while longer, watching the one beside.
async fn take_away(rig: &mut Rig, database: &Path, report: &mut Report) -> anyhow::Result<Outage> {
    let lock = database::lock(database).await?;
    let began = Instant::now();
    let (mut felt, mut moved, mut longest) = (None, began, Duration::ZERO);
    let (mut arrived, mut stood) = (0, None);
    while felt.is_none_or(|at: Instant| at.elapsed() < LASTING) {
        rig.check()?;
        anyhow::ensure!(felt.is_some() || began.elapsed() < FELT, "the quota is never used up");
        let status = admin::status(rig.ground.admin).await?;
        let now = settled(&status, BESIDE);
        if now > arrived {
            (arrived, moved) = (now, Instant::now());
        }
        longest = longest.max(moved.elapsed());
        let states = status.streams.iter().map(|stream| (stream.name.as_str(), &stream.state));
        for (name, state) in states.filter(|(_, state)| *state != "ok") {
            anyhow::ensure!(name == DOWN, "the stream {name} is not well: {state}");
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
    let freed = Instant::now();
    lock.release().await?;
    let healed = until(rig, HEALED, |status| {
        status.why.is_empty() && settled(status, DOWN) > stood.unwrap_or_default()
    });
    let healed_s = healed.await?.then(|| freed.elapsed().as_secs_f64());
    let felt_s = felt.map(|felt| felt.duration_since(began).as_secs_f64());
    Ok(Outage { name: "destination locked until the quota", felt_s, healed_s })
}

fn settled(status: &Status, pipeline: &str) -> u64 {
    let found = status.pipelines.iter().find(|found| found.name == pipeline);
    found.map_or(0, |found| found.counters().settled())
}
