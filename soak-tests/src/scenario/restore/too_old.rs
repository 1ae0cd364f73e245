//! A destination that is restored to a copy so old that the log no longer holds what it lacks.
//!
//! In: a busy run whose log keeps little. Out: every record by its id. Promise: the pipeline must stop with choices, and
//! `garam resume --accept-gap` must let it go on: what is missing then is what only the lost destination had, counted as one gap;
//! everything else is exact.

use tokio::time::{Instant, sleep, sleep_until};

use super::{Args, GLANCE, HEALING, Lost, Report, SAYING};
use crate::admin::{self, Status};
use crate::database;
use crate::generate::Generator;
use crate::ground::Programs;
use crate::rig::Rig;
use crate::scenario::findings::Errors;
use crate::scenario::home::play_at;
use crate::scenario::judge;

const LOG: &str = "segment_size = \"1MiB\"";
const STREAM: &str = "partitions = 1\nquota = \"64MiB\"\nretain = \"1s\"";
const SHIP: &str = "[ship]\ncodec = \"none\"\n";

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let mut pipe = rig.ground.pipe();
    pipe.stream = STREAM.into();
    rig.ground.write_core(LOG, &[pipe])?;
    rig.ground.write_agent(rig.ground.gateway, SHIP)?;
    rig.ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;
    let third = Instant::now() + args.third();
    let generator = Generator::start_without_rotations(&rig.ground.logs, args.seed, args.rate);
    sleep_until(third).await;
    generator.check()?;

    let (old, lost) = (rig.ground.dir.join("old.sqlite"), rig.ground.dir.join("lost.sqlite"));
    rig.stop_core().await?;
    database::copy(&rig.ground.database, &old)?;
    rig.restart_core()?;
    rig.core_ready().await?;
    sleep_until(third + args.third()).await;
    let stood = database::read_cursors(&old).await?.first().map_or(0, |(_, next)| *next);
    let is_gone = |status: &Status| status.streams.iter().any(|s| s.start > stood.unsigned_abs());
    anyhow::ensure!(until(rig, is_gone).await?, "the log is not trimmed beyond {stood}");
    rig.stop_core().await?;
    database::copy(&rig.ground.database, &lost)?;
    database::replace(&rig.ground.database, &old)?;
    rig.restart_core()?;

    let stopped = says_its_choices(rig).await?;
    if stopped {
        let pipe = rig.ground.pipe().name;
        rig.ground.garam(&["resume", &pipe, "--accept-gap", "--yes"]).await?;
        rig.core_ready().await?;
    }
    let book = generator.finish().await?;
    let logs = rig.ground.logs.clone();
    let healed = rig.all_shipped(std::slice::from_ref(&logs), HEALING).await?
        && until(rig, Status::is_drained).await?;
    let mut why = rig.stop().await;
    if !healed {
        why.push("it does not heal".into());
    }
    let ground = &rig.ground;
    let counters = database::read_counters(&ground.database).await?;
    let mut found = judge::judge(ground, &ground.pipe().name, &ground.database, &book).await?;
    let (before, now) =
        (database::read_ids(&lost).await?, database::read_ids(&ground.database).await?);
    let given_up = before.difference(&now).count() as u64;
    let mut demand = |met: bool, complaint: String| {
        if !met {
            why.push(complaint);
        }
    };
    demand(stopped, "the pipeline did not stop with choices".into());
    demand(
        found.lost > 0 && found.lost == given_up,
        format!("{} are missing, {given_up} were only in the lost destination", found.lost),
    );
    demand(counters.gap > 0, "no gap is counted".into());
    demand(
        (counters.delivered, counters.quarantined) == (found.delivered, found.quarantined),
        format!("{counters:?}, but {} rows and {} aside", found.delivered, found.quarantined),
    );
    found.forgive_lost();
    demand(found.examples.is_empty(), found.examples.join("; "));
    let mut errors = Errors::default();
    errors.add(&found);
    Ok(Report {
        scenario: Lost::DestinationTooOld,
        seed: args.seed,
        seconds: args.seconds,
        generated: book.len(),
        delivered: found.delivered,
        quarantined: found.quarantined,
        dropped: counters.dropped,
        given_up,
        errors,
        stopped_with_choices: stopped,
        ok: why.is_empty(),
        why,
    })
}

/// Whether the pipeline stops and names what an operator may choose.
pub(super) async fn says_its_choices(rig: &mut Rig) -> anyhow::Result<bool> {
    let deadline = Instant::now() + SAYING;
    while Instant::now() < deadline {
        rig.check()?;
        let why = admin::status(&rig.ground.socket()).await.map(|status| status.why.join("; "));
        if why.is_ok_and(|why| why.contains("accept a counted gap")) {
            return Ok(true);
        }
        sleep(GLANCE).await;
    }
    Ok(false)
}

async fn until(rig: &mut Rig, is_so: impl Fn(&Status) -> bool) -> anyhow::Result<bool> {
    let deadline = Instant::now() + HEALING;
    while Instant::now() < deadline {
        rig.check()?;
        if admin::status(&rig.ground.socket()).await.is_ok_and(|status| is_so(&status)) {
            return Ok(true);
        }
        sleep(GLANCE).await;
    }
    Ok(false)
}
