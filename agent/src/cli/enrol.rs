//! `garam-agent enrol`: from a token to an identity folder.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{CoreAddress, DEFAULT_PATH};
use crate::enrol::{self, EnrolError, Token};
use crate::error::AgentError;
use crate::identity::IdentityFolder;
use crate::run::host_name;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The core's address and port for enrolment.
    #[arg(long, value_name = "HOST:PORT")]
    core: String,
    /// File with the token; remove it afterwards.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The name the core's certificate must carry. Default: the host part of the address.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// What this host calls itself, where the token allows a choice. Default: its host name.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Configuration file, for its identity_dir.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, env = "GARAM_AGENT_CONFIG")]
    config: PathBuf,
    /// Folder for the identity, instead of the one in the configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    identity_dir: Option<PathBuf>,
    /// Replace an identity that is there already.
    #[arg(long)]
    force: bool,
}

pub(super) fn enrol(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = match &args.identity_dir {
        Some(path) => path.clone(),
        None => super::load(&args.config)?.identity_dir,
    };
    let folder = IdentityFolder::at(&path);
    let there = folder.is_complete().map_err(EnrolError::from).map_err(AgentError::from)?;
    if there && !args.force {
        return Err(AgentError::from(EnrolError::Identity { path }).into());
    }
    let token = Token::read(&args.token_file).map_err(AgentError::from)?;
    let core = address(args)?;
    let host = args.host.clone().unwrap_or_else(host_name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let enrolled = runtime.block_on(enrol::enrol(&core, &token, &host, &folder));
    let enrolled = enrolled.map_err(AgentError::from)?;
    writeln!(
        out,
        "agent {} on host {}, identity in {}",
        enrolled.agent,
        enrolled.host,
        path.display()
    )?;
    Ok(())
}

fn address(args: &Args) -> anyhow::Result<CoreAddress> {
    let split =
        args.core.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, enrol_port) = split.with_context(|| {
        format!("{:?} is no address: write host:port, as in core-1.example:7471", args.core)
    })?;
    let server_name =
        args.server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    Ok(CoreAddress { address: args.core.clone(), server_name, enrol_port })
}
