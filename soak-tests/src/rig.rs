//! The core and the agent as one thing to torment: start, kill, stop, and ask how far they are.
//!
//! In: a [`Ground`]. Out: running processes. Promise: at most one core and one agent run at a time, and both end with this
//! value. A process that ends without having been told to is an error at the next look.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::agent;
use crate::ground::Ground;
use crate::processes::{Process, Tracing, last_lines};

/// How long a core may take until it is ready, over all that it has to recover.
const READY: Duration = Duration::from_secs(60);
/// How often something is looked at that gives no signal of its own.
const GLANCE: Duration = Duration::from_millis(20);
/// How much of a log a failed run shows.
const LAST_LINES: usize = 25;

/// Both processes.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) ground: Ground,
    core: Option<Process>,
    agent: Option<Process>,
    restarts: u64,
    /// How the next core and the next agent are run.
    pub(crate) trace_core: Option<Tracing>,
    pub(crate) trace_agent: Option<Tracing>,
    /// What the core finds in its environment.
    pub(crate) core_environment: Vec<(&'static str, OsString)>,
    /// The same for the agent.
    pub(crate) agent_environment: Vec<(&'static str, OsString)>,
}

impl Rig {
    pub(crate) fn new(ground: Ground) -> Self {
        Self {
            ground,
            core: None,
            agent: None,
            restarts: 0,
            trace_core: None,
            trace_agent: None,
            core_environment: Vec::new(),
            agent_environment: Vec::new(),
        }
    }

    /// How often a process was started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(crate) fn start_core(&mut self) -> anyhow::Result<()> {
        let ground = &self.ground;
        let log = self.core_log();
        let (program, config) = (&ground.programs.core, &ground.core_config);
        let tracing = self.trace_core.as_ref();
        let environment = &self.core_environment;
        self.core = Some(Process::start("core", program, config, tracing, environment, &log)?);
        Ok(())
    }

    pub(crate) fn start_agent(&mut self) -> anyhow::Result<()> {
        let ground = &self.ground;
        let log = self.agent_log();
        let program = &ground.programs.agent;
        let tracing = self.trace_agent.as_ref();
        let config = &ground.agent_config;
        let environment = &self.agent_environment;
        self.agent = Some(Process::start("agent", program, config, tracing, environment, &log)?);
        Ok(())
    }

    /// Waits until the core says that it is ready.
    pub(crate) async fn core_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while !admin::is_ready(self.ground.admin).await {
            self.check()?;
            if Instant::now() > deadline {
                let why = match admin::status(&self.ground.socket()).await {
                    Ok(status) => status.why.join("; "),
                    Err(error) => format!("{error:#}"),
                };
                anyhow::bail!("the core is not ready after {READY:?}: {why}");
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    pub(crate) async fn kill_core(&mut self) -> anyhow::Result<()> {
        self.core.take().context("no core runs")?.kill().await
    }

    pub(crate) async fn kill_agent(&mut self) -> anyhow::Result<()> {
        self.agent.take().context("no agent runs")?.kill().await
    }

    pub(crate) fn restart_core(&mut self) -> anyhow::Result<()> {
        self.restarts += 1;
        self.start_core()
    }

    pub(crate) fn restart_agent(&mut self) -> anyhow::Result<()> {
        self.restarts += 1;
        self.start_agent()
    }

    /// An error when a process has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.running().try_for_each(Process::check)
    }

    /// Waits until more than `records` records came into the pipeline, at most `patience`. Gives the newest count known.
    pub(crate) async fn progress(
        &mut self,
        records: u64,
        patience: Duration,
    ) -> anyhow::Result<u64> {
        let deadline = Instant::now() + patience;
        let mut newest = records;
        while newest <= records && Instant::now() < deadline {
            self.check()?;
            sleep(GLANCE).await;
            if let Ok(status) = admin::status(&self.ground.socket()).await {
                newest = newest.max(status.counters().records_in);
            }
        }
        Ok(newest)
    }

    /// Waits until so many records are delivered or put aside.
    pub(crate) async fn all_settled(
        &mut self,
        records: u64,
        patience: Duration,
    ) -> anyhow::Result<bool> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.check()?;
            if let Ok(status) = admin::status(&self.ground.socket()).await {
                let counters = status.counters();
                if counters.delivered + counters.quarantined >= records {
                    return Ok(true);
                }
            }
            sleep(GLANCE).await;
        }
        Ok(false)
    }

    /// Waits until the agent has been acknowledged every byte of every file in these folders; none of them is rotated.
    pub(crate) async fn all_shipped(
        &mut self,
        folders: &[PathBuf],
        patience: Duration,
    ) -> anyhow::Result<bool> {
        let mut lengths = Vec::new();
        for folder in folders {
            for file in std::fs::read_dir(folder)? {
                let file = file?;
                lengths.push((file.path().canonicalize()?, u128::from(file.metadata()?.len())));
            }
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.check()?;
            let files = agent::acknowledged(&self.ground.state).await?;
            let is_shipped = |(path, length): &(PathBuf, u128)| {
                files.values().any(|file| file.path == *path && file.mark == *length)
            };
            if lengths.iter().all(is_shipped) {
                return Ok(true);
            }
            sleep(GLANCE).await;
        }
        Ok(false)
    }

    /// Asks both to stop, the agent first. Gives what was wrong with their ends.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for process in [self.agent.take(), self.core.take()].into_iter().flatten() {
            if let Err(error) = process.stop().await {
                wrong.push(format!("{error:#}"));
            }
        }
        wrong
    }

    /// How the core ended by itself, if it has; it can be started again then.
    pub(crate) fn core_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        take_ended(&mut self.core)
    }

    /// The same for the agent.
    pub(crate) fn agent_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        take_ended(&mut self.agent)
    }

    pub(crate) async fn stop_core(&mut self) -> anyhow::Result<()> {
        self.core.take().context("no core runs")?.stop().await
    }

    pub(crate) async fn stop_agent(&mut self) -> anyhow::Result<()> {
        self.agent.take().context("no agent runs")?.stop().await
    }

    /// Stops both where they stand, for good: all that is left to do then is to kill them.
    pub(crate) async fn freeze(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        self.running().try_for_each(|process| process.freeze())?;
        for process in self.running() {
            while !process.is_frozen()? {
                anyhow::ensure!(Instant::now() < deadline, "a process does not freeze");
                sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    /// Lets both go on where they stood.
    pub(crate) fn thaw(&mut self) -> anyhow::Result<()> {
        self.running().try_for_each(|process| process.thaw())
    }

    /// `kill -9` for whichever still lives: what it stood on was taken away, and it may have ended of that.
    pub(crate) async fn kill_what_lives(&mut self) -> anyhow::Result<()> {
        for mut process in [self.agent.take(), self.core.take()].into_iter().flatten() {
            if process.ended()?.is_none() {
                process.kill().await?;
            }
        }
        Ok(())
    }

    pub(crate) fn core(&self) -> anyhow::Result<&Process> {
        self.core.as_ref().context("no core runs")
    }

    pub(crate) fn agent(&self) -> anyhow::Result<&Process> {
        self.agent.as_ref().context("no agent runs")
    }

    /// The last words of both.
    pub(crate) fn last_words(&self) -> String {
        let words = |name: &str, log: &Path| {
            format!("── {name}: {}\n{}", log.display(), last_lines(log, LAST_LINES))
        };
        words("core", &self.core_log()) + &words("agent", &self.agent_log())
    }

    fn running(&mut self) -> impl Iterator<Item = &mut Process> {
        [&mut self.core, &mut self.agent].into_iter().flatten()
    }

    /// What the core has said, over all its lives.
    pub(crate) fn core_log(&self) -> PathBuf {
        self.ground.dir.join("core.log")
    }

    fn agent_log(&self) -> PathBuf {
        self.ground.dir.join("agent.log")
    }
}

fn take_ended(process: &mut Option<Process>) -> anyhow::Result<Option<ExitStatus>> {
    let Some(running) = process else { return Ok(None) };
    let ended = running.ended()?;
    if ended.is_some() {
        *process = None;
    }
    Ok(ended)
}
