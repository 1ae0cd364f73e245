//! One run, as a story: set up, write while faults strike, heal, wait until all has arrived, stop, judge.
//!
//! In: scenario, duration, seed. Out: a [`Report`]. Promise: the oracle looks only after everything has healed and both
//! processes have stopped; a run that cannot be judged is an error, never a good report. In [`strike`] the faults.

mod clocks;
mod report;
mod schedule;
mod strike;

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::admin;
use crate::book::Book;
use crate::cli::say;
use crate::database;
use crate::database::Canary;
use crate::generate::Generator;
use crate::ground::{Ground, Programs};
use crate::oracle::Judgement;
use crate::proxy::Proxy;
use crate::rig::Rig;
use crate::scenario::home::{Home, Place};
use crate::scenario::{Verdict as _, judge};
use clocks::Clocks;
use report::{Report, Run};
use schedule::Fault;
use strike::Striker;

/// How one is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long faults strike; the run ends when everything has arrived.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Decides what is written and when which fault strikes.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second over all writers.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Damage a copy of what was delivered before it is judged: the run must fail.
    #[arg(long, value_enum)]
    canary: Option<Canary>,
    #[command(flatten)]
    home: Place,
}

/// What is done to the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Torment {
    Steady,
    AgentKilled,
    CoreKilled,
    LinkCut,
    AgentStateLost,
    ClocksJump,
}

impl Torment {
    #[cfg(test)]
    const ALL: [Self; 6] = [
        Self::Steady,
        Self::AgentKilled,
        Self::CoreKilled,
        Self::LinkCut,
        Self::AgentStateLost,
        Self::ClocksJump,
    ];
}

impl fmt::Display for Torment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steady => "steady",
            Self::AgentKilled => "agent_killed",
            Self::CoreKilled => "core_killed",
            Self::LinkCut => "link_cut",
            Self::AgentStateLost => "agent_state_lost",
            Self::ClocksJump => "clocks_jump",
        })
    }
}

/// How long records may take to move before the next fault strikes anyway.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long everything may take to arrive once nothing strikes any more.
const HEALING: Duration = Duration::from_secs(120);
/// When nothing has arrived for this long, nothing will.
const STILL: Duration = Duration::from_secs(40);
/// What comes behind the last record would be a repetition; this long it may take.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How often a person hears how it goes.
const TELL_EVERY: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(200);

/// Runs one in a folder of its own.
pub(crate) async fn run(
    torment: Torment,
    args: &Args,
    programs: Programs,
) -> anyhow::Result<Report> {
    let home = Home::make(&args.home)?;
    let mut rig = Rig::new(Ground::at(home.path(), programs)?);
    let outcome = play(torment, args, &mut rig).await;
    let good = args.canary.is_some() || outcome.as_ref().is_ok_and(Report::ok);
    if !good {
        say(&rig.last_words());
    }
    home.leave(good);
    outcome
}

async fn play(torment: Torment, args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let faults = schedule::derive(torment, args.seconds, args.seed);
    announce(torment, args, &faults);
    let proxy = match torment {
        Torment::LinkCut => Some(Proxy::start(rig.ground.gateway).await?),
        _ => None,
    };
    rig.ground.write_core("", &[rig.ground.pipe()])?;
    let door = proxy.as_ref().map_or(rig.ground.gateway, Proxy::address);
    rig.ground.write_agent(door, "")?;
    rig.ground.make_certificates().await?;
    let clocks = match torment {
        Torment::ClocksJump => Some(Clocks::give(rig).await?),
        _ => None,
    };
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;

    let generator = Generator::start(&rig.ground.logs, args.seed, args.rate, args.seconds);
    let mut run = Run { least_faults: schedule::least(torment, args.seconds), ..Run::default() };
    let striker =
        Striker { proxy: proxy.as_ref(), clocks: clocks.as_ref(), tally: generator.tally() };
    run.faults = strike_all(rig, &generator, &striker, &faults, args.seconds).await?;
    run.rotations = generator.tally().rotations.load(Ordering::Relaxed);
    let book = generator.finish().await?;
    run.generated = book.len();
    run.restarts = rig.restarts();
    clocks.iter().try_for_each(Clocks::put_right)?;
    heal(rig, &mut run).await?;
    run.troubles.extend(rig.stop().await);

    let counters = database::read_counters(&rig.ground.database).await?;
    let found = judge(args, rig, &book).await?;
    Ok(Report::new((torment, args.seed, args.seconds), run, counters, found))
}

/// Lets faults strike at their moments until time is up. Gives how many did.
async fn strike_all(
    rig: &mut Rig,
    generator: &Generator,
    striker: &Striker<'_>,
    faults: &[Fault],
    seconds: u64,
) -> anyhow::Result<u64> {
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let mut told = began;
    let (mut struck, mut records) = (0, 0);
    let mut faults = faults.iter();
    loop {
        let next = faults.next();
        let moment = next.map_or(end, |fault| began + fault.at);
        while Instant::now() < moment {
            rig.check()?;
            generator.check()?;
            sleep_until(moment.min(Instant::now() + GLANCE)).await;
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(rig, generator, began, struck).await;
            }
        }
        let Some(fault) = next else { return Ok(struck) };
        if !fault.impatient {
            records = rig.progress(records, PATIENCE).await?;
        }
        if Instant::now() >= end {
            return Ok(struck);
        }
        struck += u64::from(striker.strike(rig, fault.action).await?);
    }
}

async fn tell(rig: &Rig, generator: &Generator, began: Instant, struck: u64) {
    let written = generator.tally().records.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs();
    let arrived = match admin::status(rig.ground.admin).await {
        Ok(status) => format!("{} accounted for", status.counters().settled()),
        Err(_not_answering) => "the core does not answer".into(),
    };
    say(&format!("{seconds:>4} s  {written} written, {arrived}, {struck} faults"));
}

/// Waits until as many records are accounted for as were written, or nothing comes any more.
async fn heal(rig: &mut Rig, run: &mut Run) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut settled, mut moved, mut told) = (0, began, began);
    rig.core_ready().await?;
    while settled < run.generated {
        rig.check()?;
        sleep(GLANCE).await;
        let now = match admin::status(rig.ground.admin).await {
            Ok(status) => status.counters().settled(),
            Err(_not_answering) => settled,
        };
        if now != settled {
            (settled, moved) = (now, Instant::now());
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            say(&format!("healing: {settled} of {} accounted for", run.generated));
        }
        if moved.elapsed() > STILL || began.elapsed() > HEALING {
            let still = moved.elapsed().as_secs();
            run.troubles.push(format!("it does not heal: nothing moved for {still} s"));
            break;
        }
    }
    run.heal_s = began.elapsed().as_secs_f64();
    sleep(AFTERMATH).await;
    Ok(())
}

async fn judge(args: &Args, rig: &Rig, book: &Book) -> anyhow::Result<Judgement> {
    let ground = &rig.ground;
    let database = match args.canary {
        None => ground.database.clone(),
        Some(canary) => {
            let damaged = database::damaged_copy(&ground.database, &ground.dir, canary, args.seed);
            damaged.await?
        }
    };
    judge::judge(ground, &ground.pipe().name, &database, book).await
}

/// Everything that is decided before the run begins.
fn announce(torment: Torment, args: &Args, faults: &[Fault]) {
    let Args { seconds, seed, rate, .. } = args;
    say(&format!("run {torment} --seconds {seconds} --seed {seed} --rate {rate}"));
    for line in faults.chunks(8) {
        let line: Vec<String> = line.iter().map(Fault::to_string).collect();
        say(&format!("  {}", line.join("  ")));
    }
}
