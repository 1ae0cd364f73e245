//! The two processes of a quickstart: started, watched and stopped by their handles.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::process::{Child, Command};

use super::setup::Ground;
use crate::cli::exit::eprintln_quietly;

/// How long a process may take to be ready or to stop.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Children {
    core: Option<Process>,
    agent: Option<Process>,
}

struct Process {
    name: &'static str,
    child: Child,
    talk: PathBuf,
}

impl Children {
    /// Starts the core and waits until it is ready.
    pub(super) async fn start_core(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot find this program's file")?;
        self.core = Some(Process::start("core", &program, &ground.core_config, &ground.dir)?);
        let begun = Instant::now();
        while ground.admin.open("/readyz").await.is_err() {
            self.check()?;
            if begun.elapsed() > DEADLINE {
                return Err(anyhow!(
                    "the core is not ready after {DEADLINE:?}: see {}/core.log",
                    ground.dir.display()
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) async fn start_agent(&mut self, ground: &Ground) -> anyhow::Result<()> {
        let program = agent_program()?;
        self.agent = Some(Process::start("agent", &program, &ground.agent_config, &ground.dir)?);
        // An agent that cannot start says so at once; give it the moment to.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.check()
    }

    /// An error when one of the processes has ended on its own.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for process in [&mut self.core, &mut self.agent].into_iter().flatten() {
            if let Some(status) = process.child.try_wait()? {
                return Err(anyhow!(
                    "the {} ended ({status}); its last words:\n{}",
                    process.name,
                    last_lines(&process.talk)
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn stop_agent(&mut self) -> anyhow::Result<()> {
        match self.agent.take() {
            Some(agent) => agent.stop().await,
            None => Ok(()),
        }
    }

    /// Stops what still runs, agent first.
    pub(super) async fn stop_all(&mut self) {
        for process in [self.agent.take(), self.core.take()].into_iter().flatten() {
            let name = process.name;
            if let Err(error) = process.stop().await {
                eprintln_quietly(&format!("the {name} did not stop well: {error:#}"));
            }
        }
    }
}

impl Process {
    fn start(
        name: &'static str,
        program: &Path,
        config: &Path,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let talk = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&talk)?;
        let child = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name, child, talk })
    }

    /// Asks the process to stop, and ends it when it does not.
    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        match tokio::time::timeout(DEADLINE, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if status.success() {
                    return Ok(());
                }
                Err(anyhow!("it ended with {status}; its last words:\n{}", last_lines(&self.talk)))
            }
            Err(_) => {
                self.child.kill().await?;
                Err(anyhow!("it did not stop within {DEADLINE:?} and was killed"))
            }
        }
    }
}

/// `garam-agent` beside this program, or on the path.
pub(super) fn agent_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's file")?;
    let beside = own.with_file_name("garam-agent");
    Ok(if beside.try_exists()? { beside } else { PathBuf::from("garam-agent") })
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(8).collect();
    lines
        .into_iter()
        .rev()
        .map(|line| format!("  {}\n", crate::cli::output::escape(line)))
        .collect()
}
