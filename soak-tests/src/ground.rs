//! The ground a run stands on: a folder with configurations and certificates, free ports, and the programs.
//!
//! In: where the programs are, a folder. Out: paths and addresses. Promise: everything lies in the one folder and listens on
//! 127.0.0.1; certificates are made by the product's own command line. Not here: running anything for longer than a moment.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use crate::generate::record::COLUMNS;

/// The two binaries.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) core: PathBuf,
    pub(crate) agent: PathBuf,
}

impl Programs {
    /// In a folder, by default that of this program.
    pub(crate) fn find(folder: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot find this program's file")?;
        let folder = match folder {
            Some(folder) => folder.canonicalize().context("cannot read --bin-dir")?,
            None => own.parent().context("this program lies in no folder")?.to_path_buf(),
        };
        let find = |name: &str| {
            let path = folder.join(name);
            anyhow::ensure!(
                path.is_file(),
                "{} is not there: cargo build -p garam-core -p garam-agent, or name --bin-dir",
                path.display()
            );
            Ok(path)
        };
        Ok(Self { core: find("garam")?, agent: find("garam-agent")? })
    }
}

/// Paths and addresses of one run.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) programs: Programs,
    pub(crate) dir: PathBuf,
    /// Where the files lie that the agent tails.
    pub(crate) logs: PathBuf,
    pub(crate) database: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) core_config: PathBuf,
    pub(crate) agent_config: PathBuf,
    /// The agent's state; its identity lies elsewhere.
    pub(crate) state: PathBuf,
    pub(crate) gateway: SocketAddr,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
}

/// A quarantined record as `garam dlq ls` lists it.
#[derive(Debug, Deserialize)]
pub(crate) struct Aside {
    /// Of its block in the log.
    pub(crate) offset: u64,
    /// Which record of its block; none when the block was put aside whole.
    pub(crate) index: Option<u32>,
    pub(crate) reason: String,
    pub(crate) record: String,
}

/// A stream, the pipeline that reads it, and the destination. `stream` and `pipeline` are further lines of their tables.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    pub(crate) name: String,
    /// Whose stream it reads: its own, or that of a pipe before it.
    pub(crate) from: String,
    pub(crate) database: PathBuf,
    /// Another destination than that SQLite file: what stands behind `[pipeline.NAME.to.`.
    pub(crate) to: Option<String>,
    pub(crate) stream: String,
    pub(crate) pipeline: String,
}

/// The stream, the pipeline and the table, where there is but one.
const NAME: &str = "soak";

impl Ground {
    /// Makes the folders and finds ports. Nothing is written to them yet.
    pub(crate) fn at(dir: &Path, programs: Programs) -> anyhow::Result<Self> {
        let logs = dir.join("logs");
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("cannot make {}", logs.display()))?;
        let dir = dir.canonicalize()?;
        anyhow::ensure!(
            !dir.join("core").try_exists()?,
            "{} holds an earlier run: name an empty folder",
            dir.display()
        );
        let gateway = free_port(&[])?;
        Ok(Self {
            programs,
            logs: dir.join("logs"),
            database: dir.join("data.sqlite"),
            data_dir: dir.join("core"),
            core_config: dir.join("core.toml"),
            agent_config: dir.join("agent.toml"),
            state: dir.join("agent"),
            gateway,
            admin: free_port(&[gateway])?,
            dir,
        })
    }

    /// Where the core answers whoever may write its folder.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The pipe that most scenarios need: one stream, one pipeline, one SQLite table.
    pub(crate) fn pipe(&self) -> Pipe {
        Pipe {
            name: NAME.into(),
            from: NAME.into(),
            database: self.database.clone(),
            to: None,
            stream: "partitions = 2\nquota = \"4GiB\"".into(),
            pipeline: String::new(),
        }
    }

    /// Writes the core's configuration with a JSON stream and a pipeline to SQLite for each pipe.
    pub(crate) fn write_core(&self, log: &str, pipes: &[Pipe]) -> anyhow::Result<()> {
        let columns: String =
            COLUMNS.iter().map(|(name, kind)| format!("{name} = {kind:?}\n")).collect();
        let mut text = format!("{}[log]\n{log}\n\n", self.core_head());
        for Pipe { name, from, database, to, stream, pipeline } in pipes {
            if name == from {
                text += &format!(
                    "[stream.{name}]\n{stream}\n\n\
                     [stream.{name}.contract]\nformat = \"json\"\nunknown = \"quarantine\"\n\n\
                     [stream.{name}.contract.columns]\n{columns}\n"
                );
            }
            let sqlite =
                || format!("sqlite]\npath = {database:?}\ntable = \"{NAME}\"\nmode = \"append\"");
            let to = to.clone().unwrap_or_else(sqlite);
            text += &format!(
                "[pipeline.{name}]\nfrom = \"{from}\"\nstart = \"earliest\"\n{pipeline}\n\n\
                 [pipeline.{name}.to.{to}\n\n",
            );
        }
        write(&self.core_config, &text)
    }

    /// Writes the core's configuration with a stream of lines that nothing reads: gateway and log alone.
    pub(crate) fn write_log_only_core(&self) -> anyhow::Result<()> {
        let text = format!("{}[stream.{NAME}]\nquota = \"20GiB\"\n", self.core_head());
        write(&self.core_config, &text)
    }

    /// Where the core keeps its data and listens.
    pub(crate) fn core_head(&self) -> String {
        format!(
            "data_dir = {:?}\n\n[gateway]\nlisten = \"{}\"\nnames = [\"127.0.0.1\", \"localhost\"]\n\n\
             [admin]\nlisten = \"{}\"\n\n",
            self.data_dir, self.gateway, self.admin,
        )
    }

    /// Writes the configuration of an agent that reads one folder; `core` is the address it connects to.
    pub(crate) fn write_agent(&self, core: SocketAddr, ship: &str) -> anyhow::Result<()> {
        self.write_agent_of(core, ship, &[(NAME, &self.logs)])
    }

    /// The same with several streams, each fed from a folder of its own.
    pub(crate) fn write_agent_of(
        &self,
        core: SocketAddr,
        ship: &str,
        sources: &[(&str, &Path)],
    ) -> anyhow::Result<()> {
        let mut text = format!(
            "state_dir = {:?}\nidentity_dir = {:?}\ncore = [\"{core}\"]\n\n{ship}\n",
            self.state,
            self.identity(),
        );
        for (stream, folder) in sources {
            text += &format!(
                "[[file]]\nname = \"{stream}\"\ninclude = [\"{}/*.log*\"]\nstream = \"{stream}\"\n",
                folder.display(),
            );
        }
        write(&self.agent_config, &text)
    }

    /// The same for files that lie in folders of the one folder.
    pub(crate) fn write_agent_of_folders(&self, core: SocketAddr) -> anyhow::Result<()> {
        let text = format!(
            "state_dir = {:?}\nidentity_dir = {:?}\ncore = [\"{core}\"]\n\n\
             [[file]]\nname = \"{NAME}\"\ninclude = [\"{}/*/*.log\"]\nstream = \"{NAME}\"\n",
            self.state,
            self.identity(),
            self.logs.display(),
        );
        write(&self.agent_config, &text)
    }

    /// Has the core make an authority and a certificate for the agent.
    pub(crate) async fn make_certificates(&self) -> anyhow::Result<()> {
        self.garam(&["ca", "init", "--label", NAME]).await?;
        let identity = self.identity();
        let identity = identity.to_str().context("the work folder's name is no UTF-8")?;
        self.garam(&["agent", "issue", "soak-host", "--out", identity]).await?;
        Ok(())
    }

    /// Everything in a pipeline's quarantine.
    pub(crate) async fn quarantined(&self, pipeline: &str) -> anyhow::Result<Vec<Aside>> {
        let text = self.garam(&["dlq", "ls", pipeline, "--limit", "0", "-o", "json"]).await?;
        serde_json::from_slice(&text).context("`garam dlq ls` prints something else than before")
    }

    /// Runs one verb of the core's command line and gives what it prints.
    pub(crate) async fn garam(&self, verb: &[&str]) -> anyhow::Result<Vec<u8>> {
        let program = &self.programs.core;
        let output =
            Command::new(program).arg("-c").arg(&self.core_config).args(verb).output().await;
        let output = output.with_context(|| format!("cannot start {}", program.display()))?;
        anyhow::ensure!(
            output.status.success(),
            "garam {} ended with {}: {}",
            verb.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.dir.join("identity")
    }
}

pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A free port below those that the kernel gives to outgoing connections, so that nobody takes it while the core is down.
pub(crate) fn free_port(taken: &[SocketAddr]) -> anyhow::Result<SocketAddr> {
    let mut rng = fastrand::Rng::new();
    for _ in 0..1_000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rng.u16(10_000..30_000)));
        if !taken.contains(&address) && TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no free port between 10000 and 30000")
}
