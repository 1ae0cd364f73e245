//! `garam ca` and `garam agent`: certificates from the command line.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde_json::json;

use super::exit::{Exit, coded};
use super::output::{self, Format, Table};
use crate::config::Plan;
use crate::pki::{Pki, PkiError, default_names};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum CaVerb {
    /// Make root, issuing authority and the server's certificate in the pki folder
    #[command(after_help = "Example: garam ca init --label prod")]
    Init {
        /// Appears in the certificates' names, for people.
        #[arg(long, default_value = "ca")]
        label: String,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AgentVerb {
    /// Issue a certificate for a host into a new folder
    #[command(
        after_help = "Example: garam agent issue web-01 --out ./web-01   then copy the folder to the host as its identity_dir"
    )]
    Issue {
        /// Host name; appears as `_host` in the data.
        name: String,
        /// Folder to make: ca.pem, cert.pem, key.pem.
        #[arg(long)]
        out: PathBuf,
        /// How many days it is valid.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// List the certificates this core has issued
    Ls,
}

pub(crate) fn ca(plan: &Plan, verb: &CaVerb) -> anyhow::Result<Exit> {
    let CaVerb::Init { label } = verb;
    let pki = Pki::at(&plan.pki_dir);
    pki.init(label).map_err(exists_is_conflict)?;
    pki.ensure_server(&server_names(plan))?;
    output::emit(&format!("certificate authority made in {}\n", plan.pki_dir.display()))?;
    Ok(Exit::Ok)
}

/// The names the server certificate must carry.
pub(crate) fn server_names(plan: &Plan) -> Vec<String> {
    if plan.gateway.names.is_empty() { default_names() } else { plan.gateway.names.clone() }
}

pub(crate) fn agent(plan: &Plan, verb: AgentVerb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        AgentVerb::Issue { name, out, days } => issue(plan, &name, &out, days, format),
        AgentVerb::Ls => list(plan, format),
    }
}

fn issue(
    plan: &Plan,
    name: &str,
    out: &std::path::Path,
    days: u32,
    format: Format,
) -> anyhow::Result<Exit> {
    let issued = Pki::at(&plan.pki_dir).issue_agent(name, days, out).map_err(exists_is_conflict)?;
    super::block_on(async { Ok(crate::app::record_issued(plan, &issued).await?) })?;
    let not_after_s = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let value = json!({
        "agent": issued.agent.to_string(),
        "host": issued.host,
        "serial": issued.serial,
        "not_after_s": not_after_s,
        "folder": issued.folder,
    });
    let text = format!(
        "agent {} for host {} issued into {}\nput it on the host as identity_dir of garam-agent; the key stays there\n",
        issued.agent,
        issued.host,
        issued.folder.display()
    );
    output::print_text(format, &value, &text)?;
    Ok(Exit::Ok)
}

fn list(plan: &Plan, format: Format) -> anyhow::Result<Exit> {
    let agents = super::block_on(async {
        let meta = garam_meta::Meta::open(&plan.meta_path()).await?;
        Ok(meta.agents().await?)
    })?;
    let mut table = Table::new(&["HOST", "AGENT", "SERIAL", "VALID UNTIL"]);
    let mut values = Vec::new();
    for agent in agents {
        let until = jiff::Timestamp::from_microsecond(agent.expires_us)
            .map(|t| t.to_string())
            .unwrap_or_default();
        table.row([agent.name.clone(), agent.agent.to_string(), agent.serial.clone(), until]);
        values.push(json!({
            "agent": agent.agent.to_string(),
            "host": agent.name,
            "serial": agent.serial,
            "not_after_s": agent.expires_us / 1_000_000,
        }));
    }
    output::print(format, &values, &table)?;
    Ok(Exit::Ok)
}

fn exists_is_conflict(error: PkiError) -> anyhow::Error {
    match error {
        PkiError::Exists(_) => coded(Exit::Conflict, error),
        PkiError::HostName(_) => coded(Exit::Config, error),
        other => other.into(),
    }
}
