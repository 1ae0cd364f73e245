//! A host that enrols with a real core: its configuration, its tokens, its calls of `garam-agent enrol`.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use crate::ground::{Ground, free_port};
use crate::processes::Process;

pub(super) struct Host {
    core: String,
    token: PathBuf,
}

impl Host {
    /// Writes the configurations of both; certificates live for `life`.
    pub(super) fn prepare(ground: &Ground, life: Duration) -> anyhow::Result<Self> {
        let port = free_port(&[ground.gateway, ground.admin])?;
        ground.write_core("", &[ground.pipe()])?;
        let more = ground.dir.join("conf.d");
        std::fs::create_dir_all(&more)?;
        let text = format!(
            "[gateway]\nenrol_listen = \"{port}\"\n\n[pki]\nagent_life = \"{}s\"\n\n\
             [policy.soak]\nstreams = [\"soak\"]\n",
            life.as_secs()
        );
        std::fs::write(more.join("enrol.toml"), text)?;
        ground.write_agent(ground.gateway, &format!("enrol_port = {}\n", port.port()))?;
        Ok(Self { core: port.to_string(), token: ground.dir.join("token") })
    }

    /// A host beside it that has nothing to ship: an enrolled agent that runs, and whose certificates end like everybody's.
    pub(super) async fn companion(
        &self,
        ground: &Ground,
        number: usize,
    ) -> anyhow::Result<Process> {
        let dir = ground.dir.join(format!("companion-{number}"));
        let own = Ground {
            logs: dir.join("logs"),
            state: dir.join("agent"),
            agent_config: dir.join("agent.toml"),
            dir,
            ..ground.clone()
        };
        std::fs::create_dir_all(&own.logs)?;
        own.write_agent(own.gateway, "")?;
        self.enrol(&own, &["--host", &format!("companion-{number}")]).await?;
        let (program, log) = (&own.programs.agent, own.dir.join("agent.log"));
        Process::start("companion", program, &own.agent_config, None, &[], &log)
    }

    /// From a fresh token to an identity.
    pub(super) async fn enrol(&self, ground: &Ground, whom: &[&str]) -> anyhow::Result<()> {
        self.make_token(ground, whom).await?;
        let mut enrol = self.command(Command::new(&ground.programs.agent), ground);
        let output = enrol.arg("--force").output().await?;
        anyhow::ensure!(
            output.status.success(),
            "garam-agent enrol ended with {}: {}",
            output.status,
            complaint(&output)
        );
        Ok(())
    }

    /// A token in its file, in the place of the one before.
    pub(super) async fn make_token(&self, ground: &Ground, whom: &[&str]) -> anyhow::Result<()> {
        if self.token.try_exists()? {
            std::fs::remove_file(&self.token)?;
        }
        let file = self.token.to_str().context("the work folder's name is no UTF-8")?;
        let verb = ["token", "create", "--policy", "soak", "--out", file];
        ground.garam(&[&verb[..], whom].concat()).await?;
        Ok(())
    }

    /// `garam-agent enrol` with the token, ready to be run; `agent` is how the agent's binary is called.
    pub(super) fn command(&self, mut agent: Command, ground: &Ground) -> Command {
        agent
            .args(["enrol", "--core", &self.core, "--token-file"])
            .arg(&self.token)
            .arg("--config")
            .arg(&ground.agent_config);
        agent
    }
}

/// What it said last.
pub(super) fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
