//! `garam admin`: who may ask this core from other machines.
//!
//! Works on the data folder directly: whoever may write it decides, and nobody over a network.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::anyhow;
use clap::ValueEnum;
use garam_meta::Meta;
use garam_proto::AgentId;
use serde_json::json;

use super::agent::exists_is_conflict;
use super::confirm::{Answer, Consent, confirm};
use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format};
use crate::config::Plan;
use crate::enrol::{Audit, Event, Outcome};
use crate::pki::{DAY, Pki, Role};

/// The longest life of a certificate of a person.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Issue a certificate for a person or a program into a new folder
    #[command(
        after_help = "Example: garam admin issue --role viewer --name kim --out ./kim   then, with that folder on another machine:\n         \
garam --core CORE:7480 --identity ./kim status\n\nviewer: tree, status, lag. operator: also tap and resume. admin: everything the port has."
    )]
    Issue {
        /// What its holder may do.
        #[arg(long)]
        role: RoleName,
        /// Appears in the audit log.
        #[arg(long)]
        name: String,
        /// Folder to make: ca.pem, cert.pem, key.pem.
        #[arg(long)]
        out: PathBuf,
        /// How long it is valid.
        #[arg(long, default_value = "30days", value_parser = humantime::parse_duration)]
        life: Duration,
    },
    /// Let a certificate open nothing any more, at once
    #[command(after_help = "Example: garam admin revoke 0b6c1f9e-4a57-4b5e-9d5c-1f0f7a3c2d11\n\n\
The id is what `issue` printed; the audit log has it too (what: admin-issue).")]
    Revoke {
        /// Of the certificate.
        id: AgentId,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

pub(crate) fn dispatch(plan: &Plan, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        Verb::Issue { role, name, out, life } => {
            issue(plan, (role.into(), &name), out, life, format)
        }
        Verb::Revoke { id, consent } => revoke(plan, id, consent, format),
    }
}

fn issue(
    plan: &Plan,
    (role, name): (Role, &str),
    folder: PathBuf,
    life: Duration,
    format: Format,
) -> anyhow::Result<Exit> {
    if life < Duration::from_secs(60) || life > LONGEST {
        return Err(coded(
            Exit::Usage,
            anyhow!("--life is 1m to {} days", LONGEST.as_secs() / DAY.as_secs()),
        ));
    }
    let authority = Pki::at(&plan.pki_dir).authority()?;
    let issued = authority.issue_admin(name, role, life, &folder).map_err(exists_is_conflict)?;
    let event = Event::new("admin-issue", Outcome::Allowed).by_this_user().with("id", issued.id);
    Audit::in_folder(&plan.data_dir).record_now(&event.with("name", name).with("role", role));
    if plan.admin.remote_listen.is_none() {
        eprintln_quietly(
            "admin.remote_listen is not set: set it and restart the core, or nobody can ask from elsewhere",
        );
    }
    let not_after_s = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let value = json!({
        "id": issued.id.to_string(), "name": name, "role": role.name(), "not_after_s": not_after_s, "folder": folder,
    });
    let text = format!(
        "{role} {name} issued into {}, id {}\nwhoever has that folder may do what the role may; revoke it by its id\n",
        folder.display(),
        issued.id
    );
    output::print_text(format, &value, &text)?;
    Ok(Exit::Ok)
}

fn revoke(plan: &Plan, id: AgentId, consent: Consent, format: Format) -> anyhow::Result<Exit> {
    let text = id.to_string();
    eprintln_quietly(&format!("revokes the certificate {text}"));
    if confirm(&text, consent)? == Answer::DryRun {
        return Ok(Exit::Ok);
    }
    super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        meta.revoke(id, u64::from(u32::MAX)).await?;
        let event = Event::new("admin-revoke", Outcome::Allowed).by_this_user().with("id", id);
        Audit::in_folder(&plan.data_dir).record(event).await;
        Ok(())
    })?;
    output::print_text(format, &json!([text]), "revoked\n")?;
    Ok(Exit::Ok)
}
