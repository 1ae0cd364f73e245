//! Strikes at every call with which the core or the agent changes its state, one run for each, and compares every record.
//!
//! In: programs, faults, how many of the calls. Out: how many calls there were and were struck, and everything that was lost,
//! repeated or moved back. The workload is small and fixed ([`workload`]) and goes in lockstep: the next step begins when the
//! last one has been delivered, so that runs make nearly the same calls.
//!
//! How every call is reached: a call is known by its site, which is the same in every run ([`crate::tracer`]), and what counts
//! as every call of the workload is every site that any run ever made ([`coverage`]). First an undisturbed run is listed;
//! then there is one run for every site of it, and then a sweep for what those runs did not make and for what was not on the
//! list, until a number of whole runs in a row make no call that has not been struck.
//!
//! After a kill (or a torn write and a kill) the program is started again and the workload goes on. After an error of the
//! disk the program may heal by itself, or end, or say that it is degraded, and is then restarted; to be stuck and silent is
//! an error. No space must heal by itself once the program has started, unless a sync said so: that is an error of the disk.

mod coverage;
mod lane;
mod workload;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::say;
use crate::ground::{Ground, Programs, free_port};
use crate::scenario::Verdict;
use crate::scenario::findings::{self, Errors};
use crate::scenario::home::{Home, Place};
use crate::tracer::Fault;
use coverage::{Coverage, Errand, QUIET, Site};
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
    /// Only this call, as a complaint names it, e.g. "fsync core/log/soak/* 2".
    #[arg(long, value_name = "CALL", conflicts_with_all = ["every", "calls"])]
    at: Option<String>,
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
    #[serde(flatten)]
    errors: Errors,
    /// Checkpoints, log ends and cursors that stood lower after a restart than before it.
    regressions: u64,
    restarts: u64,
    restarts_failed: u64,
    /// After an error of the disk: went on by itself, said that it is degraded, ended.
    healed: u64,
    degraded: u64,
    ended: u64,
    /// Per program and fault.
    parts: Vec<Part>,
    ok: bool,
    why: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Part {
    program: Program,
    mode: Fault,
    /// Different calls that any run made, or that are in the sample; and how many of those were struck.
    calls_traced: u64,
    calls_injected: u64,
    runs: u64,
    /// Whole runs in a row, at the end, that made no call which had not been struck. None are made for a sample.
    quiet_runs: u32,
}

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
        let listed = listed.calls.made;
        say(&format!("{program:?}: {} calls in an undisturbed run", listed.len()));
        for &mode in &args.mode {
            strike_all(args, &lanes, (program, mode), &listed, report).await?;
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

/// What the lanes share.
struct Progress {
    coverage: Coverage,
    runs: Vec<Run>,
    sent: u64,
    failure: Option<anyhow::Error>,
}

async fn strike_all(
    args: &Args,
    lanes: &[Lane],
    (program, mode): (Program, Fault),
    listed: &[Site],
    report: &mut Report,
) -> anyhow::Result<()> {
    let sample = sample(args, listed);
    let sampled = sample.as_ref().map(|sample| sample.len() as u64);
    let coverage = Coverage::of(listed, sample);
    let progress = Progress { coverage, runs: Vec::new(), sent: 0, failure: None };
    let progress = Arc::new(Mutex::new(progress));
    let work = lanes.iter().map(|lane| work(lane.clone(), mode, progress.clone()));
    let tasks: Vec<_> = work.map(tokio::spawn).collect();
    for task in tasks {
        task.await.context("a lane panicked")?;
    }
    let progress = Arc::into_inner(progress).context("a lane still runs")?;
    let progress = progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(failure) = progress.failure {
        return Err(failure);
    }
    let coverage = progress.coverage;
    report.cover(Part {
        program,
        mode,
        calls_traced: sampled.unwrap_or(coverage.known()),
        calls_injected: coverage.struck(),
        runs: progress.runs.len() as u64,
        quiet_runs: coverage.quiet(),
    });
    report.not_reached += coverage.missed().len() as u64;
    for site in coverage.missed() {
        report.complain(format!("{program:?} {mode:?}: {site} was made once and never again"));
    }
    if sampled.is_none() && coverage.quiet() < QUIET {
        report.complain(format!("{program:?} {mode:?}: runs make new calls without end"));
    }
    for run in &progress.runs {
        report.add((program, mode), run);
    }
    Ok(())
}

/// One lane: goes on errand after errand until none is left.
async fn work(lane: Lane, mode: Fault, progress: Arc<Mutex<Progress>>) {
    while let Some((number, errand)) = next(&progress) {
        let name = format!("{}-{number}", mode.name());
        let run = lane.run(&name, Some((&errand.spared, mode))).await;
        let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match run {
            Ok(run) => {
                progress.coverage.note(errand, &run.calls);
                tell(&lane, mode, &run, &progress.coverage);
                progress.runs.push(run);
            }
            Err(error) => {
                progress.failure = Some(error.context(format!("run {name}")));
            }
        }
    }
}

fn next(progress: &Mutex<Progress>) -> Option<(u64, Errand)> {
    let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if progress.failure.is_some() {
        return None;
    }
    progress.sent += 1;
    Some((progress.sent, progress.coverage.next()?))
}

/// Says what a person at the screen should know after a run.
fn tell(lane: &Lane, mode: Fault, run: &Run, coverage: &Coverage) {
    let (program, mode) = (lane.program, mode.name());
    if !run.is_good() {
        let complaints: Vec<_> = run.complaints().collect();
        say(&format!("{program:?} {mode} at {:?}: {complaints:?}", run.calls.struck));
    }
    let (struck, waiting, quiet) = (coverage.struck(), coverage.waiting(), coverage.quiet());
    if waiting > 0 && struck.is_multiple_of(25) {
        say(&format!("{program:?} {mode}: {struck} struck, {waiting} to go"));
    }
    if waiting == 0 && run.calls.struck.is_none() && quiet.is_multiple_of(6) {
        let missed = coverage.missed().len();
        say(&format!("{program:?} {mode}: {struck} struck, {missed} missing, quiet for {quiet}"));
    }
}

/// Which calls are struck, when not all of them.
fn sample(args: &Args, listed: &[Site]) -> Option<Vec<Site>> {
    if let Some(at) = &args.at {
        return Some(vec![at.clone()]);
    }
    let every = match args.calls {
        Some(calls) => args.every.max((listed.len() as u64).div_ceil(calls.max(1))),
        None => args.every,
    };
    let first = args.seed % every;
    let chosen = (1..).zip(listed).filter(|(number, _)| number % every == first);
    (every > 1).then(|| chosen.map(|(_, site)| site.clone()).collect())
}

impl Report {
    fn cover(&mut self, part: Part) {
        self.calls_traced += part.calls_traced;
        self.calls_injected += part.calls_injected;
        self.parts.push(part);
    }

    fn complain(&mut self, why: String) {
        if self.why.len() < NAMED {
            self.why.push(why);
        }
    }

    fn add(&mut self, (program, mode): (Program, Fault), run: &Run) {
        self.errors.add(&run.found);
        self.regressions += run.regressions;
        self.restarts += run.restarts;
        self.restarts_failed += run.restarts_failed;
        let struck = run.calls.struck.as_deref();
        match run.ending {
            _ if struck.is_none() => {}
            Ending::Healed => self.healed += 1,
            Ending::Degraded => self.degraded += 1,
            Ending::Ended => self.ended += 1,
        }
        let struck = struck.unwrap_or("no call");
        for why in run.complaints() {
            self.complain(format!("{program:?} {mode:?} at {struck}: {why}"));
        }
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
            let Part { program, mode, calls_traced, calls_injected, runs, quiet_runs } = part;
            let name = format!("{program:?} {mode:?}");
            writeln!(
                f,
                "  {name:<14} {calls_injected:>6} struck of {calls_traced:>6} in {runs} runs, the \
                 last {quiet_runs} of them without a new call"
            )?;
        }
        let mut rows = vec![("not reached", self.not_reached)];
        rows.extend(self.errors.rows());
        rows.extend([
            ("regressions", self.regressions),
            ("restarts", self.restarts),
            ("restarts failed", self.restarts_failed),
            ("healed", self.healed),
            ("degraded", self.degraded),
            ("ended", self.ended),
        ]);
        findings::table(f, &rows, &self.why)
    }
}
