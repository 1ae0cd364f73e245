//! Strikes at every call with which the core or the agent changes its state, one run for each, and compares every record.
//!
//! In: programs, faults, how many of the calls. Out: how many calls there were and were struck, and everything that was lost,
//! repeated or moved back. The workload is small and fixed ([`workload`]) and goes in lockstep: the next step begins when the
//! last one has been delivered, so that runs make nearly the same calls.
//!
//! How every call is reached: the tracer numbers the calls of all threads in one sequence. First an undisturbed run is
//! listed; then there is one run for every number, 1 upwards, and beyond the list as long as runs reach that far. Runs differ
//! by a few calls (group commit), so the number is what is covered, not the name: the tracer says in each run whether the
//! call was reached. A number that a run ended before is tried three times more; what lies behind the largest number that was
//! reached is no call, a hole before it is counted as `not_reached`.
//!
//! After a kill (or a torn write and a kill) the program is started again and the workload goes on. After an error of the
//! disk the program may heal by itself, or end, or say that it is degraded, and is then restarted; to be stuck and silent is
//! an error. No space must heal by itself once the program has started.

mod lane;
mod workload;

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::say;
use crate::ground::{Ground, Programs, free_port};
use crate::scenario::Verdict;
use crate::scenario::home::{Home, Place};
use crate::tracer::Fault;
use lane::{Ending, Lane, Run};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Decides what the workload writes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Whose calls are struck; default: both.
    #[arg(long, value_enum, value_delimiter = ',')]
    program: Vec<Program>,
    /// What happens at the call: kill, tear (half a write, then killed), eio, enospc.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill")]
    mode: Vec<Fault>,
    /// Only every K-th call, beginning with one that follows from the seed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// At most this many calls of each program, evenly spread.
    #[arg(long)]
    calls: Option<u64>,
    /// Only this call.
    #[arg(long, conflicts_with_all = ["every", "calls"])]
    at: Option<u64>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    jobs: u16,
    #[command(flatten)]
    home: Place,
}

/// Whose calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Program {
    Core,
    Agent,
}

/// What all runs found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    calls_traced: u64,
    calls_injected: u64,
    not_reached: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    altered: u64,
    misjudged: u64,
    /// Checkpoints, log ends and cursors that stood lower after a restart than before it.
    regressions: u64,
    restarts: u64,
    restarts_failed: u64,
    /// After an error of the disk: went on by itself, said that it is degraded, ended.
    healed: u64,
    degraded: u64,
    ended: u64,
    /// Per program and fault: the calls of an undisturbed run, and how many of those were struck.
    parts: Vec<Part>,
    ok: bool,
    why: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Part {
    program: Program,
    mode: Fault,
    calls_traced: u64,
    calls_injected: u64,
}

/// How often a number is tried that a run ended before.
const TRIES: u32 = 4;
/// How many complaints are printed.
const NAMED: usize = 40;

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    let home = Home::make(&args.home)?;
    let template = Ground::at(&home.path().join("template"), programs)?;
    template.write_core("", &[template.pipe()])?;
    template.make_certificates().await?;
    let mut report = Report { scenario: "crash_points", seed: args.seed, ..Report::default() };
    let outcome = every_part(args, &template, home.path(), &mut report).await;
    report.ok = outcome.is_ok()
        && report.why.is_empty()
        && report.calls_injected > 0
        && report.not_reached == 0;
    home.leave(report.ok);
    outcome.map(|()| report)
}

async fn every_part(
    args: &Args,
    template: &Ground,
    folder: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    let programs = if args.program.is_empty() {
        vec![Program::Core, Program::Agent]
    } else {
        args.program.clone()
    };
    for program in programs {
        let lanes = lanes(args, template, folder, program)?;
        let first = lanes.first().context("no lane")?;
        let listed = first.run("list", None).await.context("the undisturbed run failed")?;
        anyhow::ensure!(
            listed.is_good(),
            "the undisturbed run is not good: {:?}",
            listed.complaints().collect::<Vec<_>>()
        );
        say(&format!("{program:?}: {} calls in an undisturbed run", listed.calls));
        for &mode in &args.mode {
            strike_all(args, &lanes, (program, mode), listed.calls, report).await?;
        }
    }
    Ok(())
}

fn lanes(
    args: &Args,
    template: &Ground,
    folder: &Path,
    program: Program,
) -> anyhow::Result<Vec<Lane>> {
    let mut taken = vec![template.gateway, template.admin];
    (0..args.jobs)
        .map(|number| {
            let gateway = free_port(&taken)?;
            taken.push(gateway);
            let admin = free_port(&taken)?;
            taken.push(admin);
            let folder = folder.join(format!("{program:?}-{number}").to_lowercase());
            let template = template.clone();
            Ok(Lane { template, folder, gateway, admin, program, seed: args.seed })
        })
        .collect()
}

/// The numbers that are still to be struck, and what came of those that were.
struct Progress {
    waiting: VecDeque<(u64, u32)>,
    /// Goes on beyond the list while runs reach that far.
    beyond: Option<u64>,
    missed: Vec<u64>,
    reached: Vec<u64>,
    failure: Option<anyhow::Error>,
}

async fn strike_all(
    args: &Args,
    lanes: &[Lane],
    (program, mode): (Program, Fault),
    listed: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let numbers = numbers(args, listed);
    let whole = numbers.len() as u64 == listed;
    let progress = Arc::new(Mutex::new(Progress {
        waiting: numbers.into_iter().map(|number| (number, TRIES)).collect(),
        beyond: whole.then_some(listed + 1),
        missed: Vec::new(),
        reached: Vec::new(),
        failure: None,
    }));
    let runs = Arc::new(Mutex::new(Vec::new()));
    let work = lanes.iter().map(|lane| work(lane.clone(), mode, progress.clone(), runs.clone()));
    let tasks: Vec<_> = work.map(tokio::spawn).collect();
    for task in tasks {
        task.await.context("a lane panicked")?;
    }
    let progress = Arc::into_inner(progress).context("a lane still runs")?;
    let progress = progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(failure) = progress.failure {
        return Err(failure);
    }
    let largest = progress.reached.iter().copied().max().unwrap_or_default();
    let holes = progress.missed.iter().filter(|number| **number < largest).count() as u64;
    let struck = progress.reached.len() as u64;
    let traced = if whole { largest } else { listed };
    report.calls_traced += traced;
    report.calls_injected += struck;
    report.not_reached += holes;
    report.parts.push(Part { program, mode, calls_traced: traced, calls_injected: struck });
    if whole && largest * 10 < listed * 9 {
        report.why.push(format!("{program:?}: runs end before call {largest} of {listed}"));
    }
    let runs = runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (number, run) in &*runs {
        report.add(&format!("{program:?} {mode:?} call {number}"), run);
    }
    Ok(())
}

/// One lane: takes number after number until none is left.
async fn work(
    lane: Lane,
    mode: Fault,
    progress: Arc<Mutex<Progress>>,
    runs: Arc<Mutex<Vec<(u64, Run)>>>,
) {
    while let Some((number, tries)) = next(&progress) {
        let run = lane.run(&format!("{}-{number}", mode.name()), Some((number, mode))).await;
        let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match run {
            Ok(run) if run.struck => {
                progress.reached.push(number);
                if progress.reached.len().is_multiple_of(25) {
                    let (done, left) = (progress.reached.len(), progress.waiting.len());
                    say(&format!(
                        "{:?} {}: {done} struck, {left} to go",
                        lane.program,
                        mode.name()
                    ));
                }
                if !run.is_good() {
                    say(&format!(
                        "{:?} {} call {number}: {:?}",
                        lane.program,
                        mode.name(),
                        run.why
                    ));
                }
                runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, run));
            }
            Ok(_) if tries > 1 => progress.waiting.push_back((number, tries - 1)),
            Ok(_) => {
                progress.missed.push(number);
                progress.beyond = None;
            }
            Err(error) => {
                progress.failure = Some(error.context(format!("call {number}")));
                progress.waiting.clear();
                progress.beyond = None;
            }
        }
    }
}

fn next(progress: &Mutex<Progress>) -> Option<(u64, u32)> {
    let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(next) = progress.waiting.pop_front() {
        return Some(next);
    }
    let beyond = progress.beyond?;
    progress.beyond = Some(beyond + 1);
    Some((beyond, TRIES))
}

/// Which calls are struck.
fn numbers(args: &Args, listed: u64) -> Vec<u64> {
    if let Some(at) = args.at {
        return vec![at];
    }
    let every = match args.calls {
        Some(calls) => args.every.max(listed.div_ceil(calls.max(1))),
        None => args.every,
    };
    let first = args.seed % every;
    (1..=listed).filter(|number| number % every == first).collect()
}

impl Report {
    fn add(&mut self, what: &str, run: &Run) {
        self.lost += run.found.lost;
        self.duplicated += run.found.duplicated;
        self.reordered += run.found.reordered;
        self.altered += run.found.altered;
        self.misjudged += run.found.misjudged;
        self.regressions += run.regressions;
        self.restarts += run.restarts;
        self.restarts_failed += run.restarts_failed;
        match run.ending {
            Ending::Healed => self.healed += 1,
            Ending::Degraded => self.degraded += 1,
            Ending::Ended => self.ended += 1,
        }
        let left = NAMED.saturating_sub(self.why.len());
        self.why.extend(run.complaints().take(left).map(|why| format!("{what}: {why}")));
    }
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "crash_points  seed {}  {verdict}", self.seed)?;
        for part in &self.parts {
            let Part { program, mode, calls_traced, calls_injected } = part;
            let name = format!("{program:?} {mode:?}");
            writeln!(f, "  {name:<14} {calls_injected:>6} struck of {calls_traced:>6}")?;
        }
        for (name, value) in [
            ("not reached", self.not_reached),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("altered", self.altered),
            ("misjudged", self.misjudged),
            ("regressions", self.regressions),
            ("restarts", self.restarts),
            ("restarts failed", self.restarts_failed),
            ("healed", self.healed),
            ("degraded", self.degraded),
            ("ended", self.ended),
        ] {
            writeln!(f, "  {name:<16} {value:>10}")?;
        }
        self.why.iter().try_for_each(|why| writeln!(f, "  ! {why}"))
    }
}
