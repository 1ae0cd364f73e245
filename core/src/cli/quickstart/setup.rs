//! The work folder: lock, ports, certificates, and the two configurations, written for people to read and copy.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::Args;
use crate::app::{Issue, issue_agent};
use crate::cli::admin_client::Core;
use crate::cli::exit::{Exit, coded, eprintln_quietly};
use crate::config::{self, Plan, Target};
use crate::pki::{DAY, Pki};
use garam_sink::SinkConfig;

/// Name of quickstart's stream and pipeline.
pub(super) const STREAM: &str = "logs";
pub(super) const PIPELINE: &str = "quickstart";
pub(super) const TABLE: &str = "lines";
const DEFAULT_GLOB: &str = "/var/log/**/*.log";

/// Everything a run stands on. Holds the folder's lock.
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) sink: SinkConfig,
    pub(super) core_config: PathBuf,
    pub(super) agent_config: PathBuf,
    pub(super) admin: Core,
    pub(super) plan: Plan,
    _lock: File,
}

pub(super) fn prepare(args: &Args) -> anyhow::Result<Ground> {
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make the work folder {}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    let lock = lock(&dir)?;
    let gateway = port(args.gateway_port)?;
    let admin = port(args.admin_port)?;
    let logs = dir.join("logs");
    std::fs::create_dir_all(&logs)?;
    let core_config = dir.join("garam.toml");
    write(&core_config, &core_toml(&dir, gateway, admin, &destination(args, &dir)?))?;
    let plan = config::load(&core_config)
        .and_then(config::Config::check)
        .map_err(|error| coded(Exit::Config, error))?;
    certificates(&dir, &plan)?;
    let agent_config = dir.join("agent.toml");
    write(&agent_config, &agent_toml(&dir, gateway, &globs(args, &logs)?))?;
    let admin = Core::Here { socket: plan.admin.socket.clone() };
    let sink = plan.pipelines.first().and_then(|pipeline| match &pipeline.to {
        Target::Sink(sink) => Some(sink.clone()),
        Target::Stream(_) => None,
    });
    let sink = sink.context("the configuration has no pipeline into a database")?;
    Ok(Ground { dir, logs, sink, core_config, agent_config, admin, plan, _lock: lock })
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let file = File::create(dir.join("quickstart.lock"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| {
            let text =
                "another quickstart is running in it; stop it, or give this one a --dir of its own";
            coded(Exit::Conflict, anyhow!("folder {} is taken: {text}", dir.display()))
        },
    )?;
    Ok(file)
}

/// The asked port if it is free, or any free one.
fn port(asked: Option<u16>) -> anyhow::Result<SocketAddr> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, asked.unwrap_or(0)));
    let bound = bound.map_err(|error| {
        let text = format!("port {} is taken ({error}): choose another", asked.unwrap_or(0));
        coded(Exit::Conflict, anyhow!(text))
    })?;
    Ok(bound.local_addr()?)
}

fn certificates(dir: &Path, plan: &Plan) -> anyhow::Result<()> {
    let pki = Pki::at(&plan.pki_dir);
    if !pki.is_initialised()? {
        pki.init("quickstart")?;
        eprintln_quietly(&format!("made a certificate authority in {}", plan.pki_dir.display()));
    }
    let identity = dir.join("agent").join("identity");
    if !identity.join("key.pem").try_exists()? {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let issue =
            Issue { host: &host, life: DAY * 365, policy: None, replace: true, folder: &identity };
        let issued = crate::cli::block_on(async { Ok(issue_agent(plan, &issue).await?) })?;
        eprintln_quietly(&format!("issued a certificate for agent {} on {host}", issued.agent));
    }
    Ok(())
}

/// What to tail, as absolute globs: the agent does not run in the folder that a person meant.
fn globs(args: &Args, logs: &Path) -> anyhow::Result<Vec<String>> {
    let here = std::env::current_dir()?;
    let absolute = |glob: &String| here.join(glob).display().to_string();
    let mut globs: Vec<_> = args.tail.iter().map(absolute).collect();
    if args.generate.is_some() {
        globs.push(format!("{}/app.log*", logs.display()));
    }
    if globs.is_empty() {
        globs.push(DEFAULT_GLOB.into());
    }
    Ok(globs)
}

/// The pipeline's table `to`: a file of its own, or the PostgreSQL server that was named.
fn destination(args: &Args, dir: &Path) -> anyhow::Result<String> {
    Ok(match &args.postgres {
        None => format!("sqlite]\npath = {:?}", dir.join("data.sqlite")),
        Some(file) => {
            let file = file.canonicalize();
            let file = file.with_context(|| "cannot find the file of --postgres")?;
            format!("postgres]\nurl_file = {file:?}")
        }
    })
}

fn core_toml(dir: &Path, gateway: SocketAddr, admin: SocketAddr, destination: &str) -> String {
    format!(
        "# Written by `garam quickstart`; written again by each run.\n\
         data_dir = {data:?}\n\n\
         [gateway]\nlisten = \"{gateway}\"\nnames = [\"127.0.0.1\", \"localhost\"]\n\n\
         [admin]\nlisten = \"{admin}\"\n\n\
         [stream.{STREAM}]\nquota = \"20GiB\"\n\n\
         [stream.{STREAM}.contract]\nformat = \"line\"\n\n\
         [pipeline.{PIPELINE}]\nfrom = \"{STREAM}\"\nstart = \"earliest\"\n\n\
         [pipeline.{PIPELINE}.to.{destination}\ntable = \"{TABLE}\"\nmode = \"append\"\n",
        data = dir.join("core"),
    )
}

fn agent_toml(dir: &Path, gateway: SocketAddr, globs: &[String]) -> String {
    let state = dir.join("agent");
    let identity = state.join("identity");
    format!(
        "# Written by `garam quickstart`; written again by each run.\n\
         state_dir = {state:?}\nidentity_dir = {identity:?}\ncore = [\"{gateway}\"]\n\n\
         [[file]]\nname = \"files\"\ninclude = {globs:?}\nexclude = [\"*.gz\", \"*.xz\", \"*.zst\"]\nstream = \"{STREAM}\"\n",
    )
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
