//! One run: the workload with a fault at one call, restart, finish, compare.
//!
//! In: which program, which calls are spared, and what happens at the first other one. Out: a [`Run`]. Promise: a run that was struck is judged like any
//! other: every record by id, every checkpoint, log end and cursor against where it stood at the crash. Lanes run side by
//! side, each with ports of its own for all its runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::Program;
use super::coverage::Site;
use super::workload::Workload;
use crate::admin;
use crate::agent::{self, Frontier, Frontiers};
use crate::database;
use crate::ground::Ground;
use crate::oracle::Judgement;
use crate::processes::{Calls, Tracing};
use crate::rig::Rig;
use crate::scenario::judge;
use crate::tracer::Fault;

/// A program that moves nothing for this long while it says that it is degraded is started again.
const DEGRADED: Duration = Duration::from_secs(4);
/// What is stuck for this long is stuck for ever.
const STUCK: Duration = Duration::from_secs(45);
/// Until the log has removed what nobody needs: its upkeep comes every second.
const UPKEEP: Duration = Duration::from_millis(2_200);
const GLANCE: Duration = Duration::from_millis(15);

const LOG: &str = "segment_size = \"1MiB\"";
const STREAM: &str = "partitions = 1\nquota = \"64MiB\"\nretain = \"1s\"";
const PIPELINE: &str = "max_wait = \"10ms\"";
const SHIP: &str =
    "[ship]\ncodec = \"none\"\nlinger = \"5ms\"\npoll = \"20ms\"\ndiscover = \"100ms\"\n";

/// One of several places where runs are made, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) template: Ground,
    pub(super) folder: PathBuf,
    pub(super) gateway: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) program: Program,
    pub(super) seed: u64,
}

/// What one run found.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Those of the traced process.
    pub(super) calls: Calls,
    pub(super) found: Judgement,
    pub(super) regressions: u64,
    pub(super) restarts: u64,
    pub(super) restarts_failed: u64,
    pub(super) ending: Ending,
    pub(super) why: Vec<String>,
}

/// What became of the struck process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// It went on.
    #[default]
    Healed,
    /// It said that it is degraded, and was restarted.
    Degraded,
    /// It ended, or was killed.
    Ended,
}

impl Run {
    pub(super) fn is_good(&self) -> bool {
        self.complaints().next().is_none()
    }

    pub(super) fn complaints(&self) -> impl Iterator<Item = &String> {
        self.why.iter().chain(&self.found.examples)
    }
}

/// How far everything was, as it lies on disk.
#[derive(Debug, Default)]
struct Standing {
    /// The agent's checkpoint, by generation; none when there is none that is whole.
    marks: Option<Frontiers>,
    cursors: Vec<(i64, i64)>,
}

impl Lane {
    /// Makes one run in a folder of its own, which goes when the run was good.
    pub(super) async fn run(
        &self,
        name: &str,
        strike: Option<(&BTreeSet<Site>, Fault)>,
    ) -> anyhow::Result<Run> {
        let folder = self.folder.join(name);
        let _nothing_to_remove = std::fs::remove_dir_all(&folder);
        let mut ground = Ground::at(&folder, self.template.programs.clone())?;
        (ground.gateway, ground.admin) = (self.gateway, self.admin);
        copy_folder(&self.template.data_dir, &ground.data_dir)?;
        copy_folder(&self.template.identity(), &ground.identity())?;
        let mut pipe = ground.pipe();
        (pipe.stream, pipe.pipeline) = (STREAM.into(), PIPELINE.into());
        ground.write_core(LOG, &[pipe])?;
        ground.write_agent(ground.gateway, SHIP)?;
        let state = match self.program {
            Program::Core => vec![ground.data_dir.clone(), ground.database.clone()],
            Program::Agent => vec![ground.state.clone()],
        };
        let strike = match strike {
            None => None,
            Some((spared, fault)) => {
                let list = folder.join("spared");
                let sites: String = spared.iter().map(|site| format!("{site}\n")).collect();
                std::fs::write(&list, sites)?;
                Some((list, fault))
            }
        };
        let tracing = Tracing { state, report: folder.join("calls"), strike };
        let mut trial = Trial {
            program: self.program,
            rig: Rig::new(ground),
            tracing: tracing.clone(),
            before: None,
            run: Run::default(),
        };
        trial.play(self.seed).await?;
        let mut run = trial.run;
        run.calls = tracing.calls()?;
        if run.is_good() {
            std::fs::remove_dir_all(&folder).context("cannot remove a run's folder")?;
        }
        Ok(run)
    }
}

struct Trial {
    program: Program,
    rig: Rig,
    tracing: Tracing,
    /// Where everything stood when the struck process ended.
    before: Option<Standing>,
    run: Run,
}

impl Trial {
    async fn play(&mut self, seed: u64) -> anyhow::Result<()> {
        match self.program {
            Program::Core => self.rig.trace_core = Some(self.tracing.clone()),
            Program::Agent => self.rig.trace_agent = Some(self.tracing.clone()),
        }
        self.rig.start_core()?;
        self.rig.start_agent()?;
        let mut workload = Workload::new(seed);
        let logs = self.rig.ground.logs.clone();
        while let Some(records) = workload.next(&logs)? {
            if !self.settle(records).await? {
                break;
            }
        }
        self.idle(UPKEEP).await?;
        self.stop().await?;
        if !self.run.why.is_empty() {
            return Ok(());
        }
        self.compare().await?;
        let ground = &self.rig.ground;
        let book = workload.book();
        let name = ground.pipe().name;
        self.run.found = judge::judge(ground, &name, &ground.database, book).await?;
        let counters = database::read_counters(&ground.database).await?;
        if counters.settled() != book.len() || counters.records_in != book.len() {
            self.complain(format!("{} records were written, {counters:?}", book.len()));
        }
        Ok(())
    }

    /// Waits until so many records are accounted for, and starts again what has ended. False when that never comes.
    async fn settle(&mut self, records: u64) -> anyhow::Result<bool> {
        let (mut settled, mut moved) = (None, Instant::now());
        loop {
            self.watch().await?;
            let status = admin::status(&self.rig.ground.socket()).await.ok();
            let now = status.as_ref().map(|status| status.counters().settled());
            if now == Some(records) {
                return Ok(true);
            }
            if now.is_some() && now != settled {
                (settled, moved) = (now, Instant::now());
            }
            let why = status.map(|status| status.why.join("; ")).unwrap_or_default();
            if !why.is_empty() && moved.elapsed() > DEGRADED && self.may_be_restarted()? {
                self.run.ending = Ending::Degraded;
                self.restart().await?;
                moved = Instant::now();
            }
            if moved.elapsed() > STUCK {
                let seen = settled.unwrap_or_default();
                self.complain(format!("stuck at {seen} of {records} records; health: {why:?}"));
                return Ok(false);
            }
            sleep(GLANCE).await;
        }
    }

    async fn idle(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.watch().await?;
            sleep(GLANCE).await;
        }
        Ok(())
    }

    fn is_struck(&self) -> anyhow::Result<bool> {
        Ok(self.tracing.calls()?.struck.is_some())
    }

    /// Only what failed with an error of the disk, and only once. A full disk has to heal by itself, unless a sync said so:
    /// what a sync refused may be gone, so it is never tried again.
    fn may_be_restarted(&self) -> anyhow::Result<bool> {
        if self.run.restarts > 0 {
            return Ok(false);
        }
        let Some(struck) = self.tracing.calls()?.struck else { return Ok(false) };
        let fault = self.tracing.strike.as_ref().map(|(_, fault)| *fault);
        let sync = struck.starts_with("fsync ") || struck.starts_with("fdatasync ");
        Ok(fault == Some(Fault::Eio) || fault == Some(Fault::Enospc) && sync)
    }

    /// Starts again what has ended. Only the struck process may, and only once.
    async fn watch(&mut self) -> anyhow::Result<()> {
        let core = self.rig.core_ended()?.map(|status| (Program::Core, status));
        let agent = self.rig.agent_ended()?.map(|status| (Program::Agent, status));
        for (program, status) in core.into_iter().chain(agent) {
            let struck = self.is_struck()?;
            if program != self.program || !struck || self.run.restarts > 0 {
                self.run.restarts_failed += u64::from(self.run.restarts > 0);
                self.complain(format!("the {program:?} ended by itself ({status})"));
            }
            self.run.ending = Ending::Ended;
            self.remember().await?;
            self.start(program)?;
        }
        Ok(())
    }

    /// Stops the degraded program as an operator would, and starts it again.
    async fn restart(&mut self) -> anyhow::Result<()> {
        let stopped = match self.program {
            Program::Core => self.rig.stop_core().await,
            Program::Agent => self.rig.stop_agent().await,
        };
        // It has seen an error of the disk: how it says so at its end is its own affair.
        let _any_exit_code_will_do = stopped;
        self.remember().await?;
        self.start(self.program)
    }

    fn start(&mut self, program: Program) -> anyhow::Result<()> {
        self.run.restarts += 1;
        anyhow::ensure!(self.run.restarts < 10, "it does not stay alive: {:?}", self.run.why);
        match program {
            Program::Core => {
                self.rig.trace_core = None;
                self.rig.start_core()
            }
            Program::Agent => {
                self.rig.trace_agent = None;
                self.rig.start_agent()
            }
        }
    }

    /// Stops both, the agent first. The fault may strike even now: then what ended is started, and stopped in peace.
    async fn stop(&mut self) -> anyhow::Result<()> {
        for program in [Program::Agent, Program::Core] {
            for attempt in 0..2 {
                let stopped = match program {
                    Program::Agent => self.rig.stop_agent().await,
                    Program::Core => self.rig.stop_core().await,
                };
                let Err(error) = stopped else { break };
                let struck = self.is_struck()?;
                if attempt == 1 || program != self.program || !struck || self.run.restarts > 0 {
                    self.complain(format!("the {program:?} does not stop: {error:#}"));
                    break;
                }
                self.run.ending = Ending::Ended;
                self.remember().await?;
                self.start(program)?;
                match program {
                    Program::Core => self.rig.core_ready().await?,
                    Program::Agent => self.agent_ready().await?,
                }
            }
        }
        Ok(())
    }

    /// Until the agent answers at its socket, which it makes when it is up.
    async fn agent_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STUCK;
        let socket = self.rig.ground.state.join("status.sock");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "the agent does not start");
            self.rig.check()?;
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Notes where everything stands, once: at the crash.
    async fn remember(&mut self) -> anyhow::Result<()> {
        if self.before.is_none() {
            self.before = Some(self.standing().await?);
        }
        Ok(())
    }

    async fn compare(&mut self) -> anyhow::Result<()> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let after = self.standing().await?;
        if let Some(marks) = before.marks {
            let after = after.marks.unwrap_or_default();
            for (generation, Frontier { mark, .. }) in marks {
                let now = after.get(&generation).map(|frontier| frontier.mark);
                if now.is_none_or(|now| now < mark) {
                    self.run.regressions += 1;
                    self.complain(format!("checkpoint of {generation}: {mark}, then {now:?}"));
                }
            }
        } else {
            self.run.regressions += 1;
            self.complain("neither generation of the checkpoint is whole".into());
        }
        for (partition, next) in before.cursors {
            let now = after.cursors.iter().find(|(p, _)| *p == partition).map(|(_, next)| *next);
            if now.is_none_or(|now| now < next) {
                self.run.regressions += 1;
                self.complain(format!("cursor of partition {partition}: {next}, then {now:?}"));
            }
        }
        Ok(())
    }

    /// The destination is looked at in a copy: opening it would finish what the crash left.
    async fn standing(&self) -> anyhow::Result<Standing> {
        let ground = &self.rig.ground;
        let marks = agent::checkpoint(&ground.state)?;
        let mut standing = Standing { marks, cursors: Vec::new() };
        if self.program == Program::Core {
            let copy = ground.dir.join("crashed.sqlite");
            for suffix in ["", "-wal", "-shm", "-journal"] {
                let _nothing_there = std::fs::remove_file(format!("{}{suffix}", copy.display()));
            }
            database::copy(&ground.database, &copy)?;
            standing.cursors = database::read_cursors(&copy).await?;
        }
        Ok(standing)
    }

    fn complain(&mut self, what: String) {
        self.run.why.push(what);
    }
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            // A socket that a killed core left is no part of its data.
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
