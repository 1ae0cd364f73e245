//! `garam ca` and `garam agent`: certificates from the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use garam_meta::Meta;
use garam_proto::AgentId;
use serde_json::json;

use super::confirm::{Answer, Consent, confirm};
use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table};
use crate::app::{Issue, StartError, issue_agent};
use crate::config::Plan;
use crate::enrol::{Audit, Event, Outcome};
use crate::pki::{DAY, Pki, PkiError, ServerCertificate, default_names};

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
    /// Issue a certificate for a host into a new folder, on this machine
    #[command(
        after_help = "Example: garam agent issue web-01 --out ./web-01   then copy the folder to the host as its identity_dir\n\n\
A host that is known keeps its agent's id; its older certificate counts until the new one is used. Where a token can be used \
(`garam token create`), prefer it: the key then never leaves the host."
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
        /// What it may do: a [policy.NAME] of the configuration. Default: everything.
        #[arg(long)]
        policy: Option<String>,
        /// Also when the host's agent is revoked.
        #[arg(long)]
        replace: bool,
    },
    /// List agents
    Ls,
    /// Let an agent in no more: its sessions end within a second, its certificates count no longer
    #[command(
        after_help = "Example: garam agent revoke web-01   to let the host in again: garam token create --replace web-01"
    )]
    Revoke {
        /// Host name or agent id.
        name: String,
        #[command(flatten)]
        consent: Consent,
    },
}

pub(crate) fn ca(plan: &Plan, verb: &CaVerb) -> anyhow::Result<Exit> {
    let CaVerb::Init { label } = verb;
    let pki = Pki::at(&plan.pki_dir);
    pki.init(label).map_err(exists_is_conflict)?;
    ServerCertificate::open(&pki, &server_names(plan))?;
    output::emit(&format!("certificate authority made in {}\n", plan.pki_dir.display()))?;
    Ok(Exit::Ok)
}

/// The names the server certificate must carry.
pub(crate) fn server_names(plan: &Plan) -> Vec<String> {
    if plan.gateway.names.is_empty() { default_names() } else { plan.gateway.names.clone() }
}

pub(crate) fn agent(plan: &Plan, verb: AgentVerb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        AgentVerb::Issue { name, out, days, policy, replace } => {
            let life = DAY * days;
            let issue = Issue { host: &name, life, policy, replace, folder: &out };
            issue_one(plan, &issue, format)
        }
        AgentVerb::Ls => list(plan, format),
        AgentVerb::Revoke { name, consent } => revoke(plan, &name, consent, format),
    }
}

fn issue_one(plan: &Plan, issue: &Issue<'_>, format: Format) -> anyhow::Result<Exit> {
    let issued = super::block_on(async { Ok(issue_agent(plan, issue).await) })?;
    let issued = issued.map_err(|error| match error {
        StartError::Pki(error) => exists_is_conflict(error),
        error @ StartError::Revoked { .. } => coded(Exit::Conflict, error),
        error @ StartError::NoPolicy(_) => coded(Exit::NotFound, error),
        other => other.into(),
    })?;
    let not_after_s = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (host, folder) = (issue.host, issue.folder);
    let value = json!({
        "agent": issued.agent.to_string(),
        "host": host,
        "serial": issued.serial,
        "not_after_s": not_after_s,
        "folder": folder,
        "again": issued.again,
    });
    let again = if issued.again {
        "the host was known and keeps its agent's id; its older certificate counts until this one is used\n"
    } else {
        ""
    };
    let text = format!(
        "agent {} for host {host} issued into {}\n{again}put it on the host as identity_dir of garam-agent; the key stays there\n",
        issued.agent,
        folder.display()
    );
    output::print_text(format, &value, &text)?;
    Ok(Exit::Ok)
}

/// How many generations above the newest known one a revocation covers: a record from a backup knows only older keys.
const BEYOND: u64 = 1_000_000;

/// An agent as it is listed.
struct Listed {
    host: String,
    agent: AgentId,
    policy: Option<String>,
    generation: u64,
    revoked: bool,
    expires_us: i64,
}

fn list(plan: &Plan, format: Format) -> anyhow::Result<Exit> {
    let listed = super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        listed(&meta).await
    })?;
    let mut table = Table::new(&["HOST", "AGENT", "POLICY", "STATE", "VALID UNTIL"]);
    let mut values = Vec::new();
    for agent in listed {
        let until = jiff::Timestamp::from_microsecond(agent.expires_us)
            .map(|t| t.to_string())
            .unwrap_or_default();
        let state = if agent.revoked { "revoked" } else { "active" };
        let policy = agent.policy.clone().unwrap_or_else(|| "-".into());
        table.row([agent.host.clone(), agent.agent.to_string(), policy, state.into(), until]);
        values.push(json!({
            "agent": agent.agent.to_string(),
            "host": agent.host,
            "policy": agent.policy,
            "generation": agent.generation,
            "state": state,
            "not_after_s": agent.expires_us / 1_000_000,
        }));
    }
    output::print(format, &values, &table)?;
    Ok(Exit::Ok)
}

/// All agents: those with a record, and those that an older build issued.
async fn listed(meta: &Meta) -> anyhow::Result<Vec<Listed>> {
    let revoked = meta.revocations().await?;
    let is_revoked =
        |agent, generation| revoked.get(&agent).is_some_and(|&through| generation <= through);
    let mut all: BTreeMap<AgentId, Listed> = BTreeMap::new();
    for issued in meta.agents().await? {
        let listed = Listed {
            host: issued.name,
            agent: issued.agent,
            policy: None,
            generation: 0,
            revoked: is_revoked(issued.agent, 0),
            expires_us: issued.expires_us,
        };
        all.insert(issued.agent, listed);
    }
    for identity in meta.identities().await? {
        let generation = identity.next.map_or(identity.generation, |(next, _)| next);
        let listed = Listed {
            revoked: is_revoked(identity.agent, generation),
            host: identity.host,
            agent: identity.agent,
            policy: identity.policy,
            generation,
            expires_us: identity.expires_us,
        };
        all.insert(identity.agent, listed);
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|a, b| (&a.host, a.agent).cmp(&(&b.host, b.agent)));
    Ok(all)
}

fn revoke(plan: &Plan, name: &str, consent: Consent, format: Format) -> anyhow::Result<Exit> {
    let found = super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        let all = listed(&meta).await?;
        Ok(all.into_iter().filter(|a| a.host == name || a.agent.to_string() == name).collect())
    })?;
    let mut found: Vec<Listed> = found;
    // A restored core may not know an agent that was enrolled after the backup, while its certificate still counts.
    if let (true, Ok(agent)) = (found.is_empty(), name.parse()) {
        let (host, policy) = ("(unknown)".to_owned(), None);
        found.push(Listed { host, agent, policy, generation: 0, revoked: false, expires_us: 0 });
    }
    if found.is_empty() {
        let text = format!("no agent {name}: `garam agent ls` lists them");
        return Err(coded(Exit::NotFound, anyhow::anyhow!(text)));
    }
    let what: Vec<_> =
        found.iter().map(|agent| format!("{} of host {}", agent.agent, agent.host)).collect();
    eprintln_quietly(&format!("revokes agent {}", what.join(", ")));
    if confirm(name, consent)? == Answer::DryRun {
        return Ok(Exit::Ok);
    }
    let audit = Audit::in_folder(&plan.data_dir);
    super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        for agent in &found {
            meta.revoke(agent.agent, agent.generation + BEYOND).await?;
            let event = Event::new("revoke", Outcome::Allowed).with("agent", agent.agent);
            audit.record(event.with("host", &agent.host)).await;
        }
        Ok(())
    })?;
    let value = json!(found.iter().map(|agent| agent.agent.to_string()).collect::<Vec<_>>());
    output::print_text(format, &value, "revoked\n")?;
    Ok(Exit::Ok)
}

fn exists_is_conflict(error: PkiError) -> anyhow::Error {
    match error {
        PkiError::Exists(_) => coded(Exit::Conflict, error),
        PkiError::HostName(_) => coded(Exit::Config, error),
        other => other.into(),
    }
}
