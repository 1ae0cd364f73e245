//! `garam token`: who may become an agent.
//!
//! Works on the metadata directly, beside a running core: whoever may write the data folder decides, and nobody over a network.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use garam_meta::{Meta, NewToken, TokenRecord};
use serde_json::json;

use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table};
use crate::app::{check_policy, known_agent};
use crate::config::Plan;
use crate::enrol::network::Network;
use crate::enrol::token::FreshToken;
use crate::enrol::{Audit, Event, Outcome};
use crate::gateway::wall_clock_us;
use crate::pki::{Pki, check_host};

/// The longest life of a token.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a token and print it, once
    #[command(
        after_help = "Examples:\n  garam token create --host web-01 --policy web --out ./web-01.token\n  \
garam token create --host 'web-*' --uses 50 --ttl 2h --cidr 10.1.0.0/16\n  garam token create --replace web-01\n\n\
On the host: garam-agent enrol --core CORE:7471 --token-file web-01.token"
    )]
    Create(Create),
    /// List tokens; their secrets are not kept
    Ls,
    /// Let a token open nothing any more
    Revoke {
        /// The second part of the token, as `ls` shows it.
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The host's name; with --uses a pattern such as web-*, which the host's own name must fit.
    #[arg(long, required_unless_present = "replace", conflicts_with = "replace")]
    host: Option<String>,
    /// The host or agent id whose identity a rebuilt host takes over.
    #[arg(long, value_name = "AGENT")]
    replace: Option<String>,
    /// What it may do: a [policy.NAME] of the configuration. Default: everything.
    #[arg(long)]
    policy: Option<String>,
    /// How long the token can be used.
    #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// How many hosts it makes agents.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    uses: u32,
    /// Networks it can be used from. Default: anywhere.
    #[arg(long, value_name = "NETWORK")]
    cidr: Vec<Network>,
    /// Write it into a new file that only its owner may read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn dispatch(plan: &Plan, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        Verb::Create(args) => create(plan, &args, format),
        Verb::Ls => list(plan, format),
        Verb::Revoke { id } => revoke(plan, &id),
    }
}

fn create(plan: &Plan, args: &Create, format: Format) -> anyhow::Result<Exit> {
    check(plan, args)?;
    let pin = Pki::at(&plan.pki_dir).root_pin().map_err(|error| coded(Exit::Config, error))?;
    let fresh = FreshToken::mint().ok_or_else(|| anyhow!("the system has no random numbers"))?;
    let record = super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        let token = new_token(&meta, args, &fresh).await?;
        meta.create_token(&token).await?;
        let event = Event::new("token-create", Outcome::Allowed).by_this_user();
        let event = event.with("token", &token.id);
        let event = event.with("host", &token.host).with("uses", token.uses);
        let policy = token.policy.clone().unwrap_or_default();
        Audit::in_folder(&plan.data_dir).record(event.with("policy", policy)).await;
        Ok(token)
    })?;
    let text = fresh.text(pin);
    if let Some(path) = &args.out {
        write(path, &text)?;
    }
    if plan.gateway.enrol_listen.is_none() {
        eprintln_quietly(
            "gateway.enrol_listen is not set: set it and restart the core, or nobody can enrol",
        );
    }
    eprintln_quietly(&format!(
        "token {} for {}, {} use(s), within {}; keep it secret",
        record.id,
        record.host,
        record.uses,
        humantime::format_duration(args.ttl)
    ));
    let shown = if args.out.is_none() { Some(text) } else { None };
    let value = json!({
        "id": record.id,
        "token": shown,
        "file": args.out,
        "host": record.host,
        "policy": record.policy,
        "uses": record.uses,
        "expires_s": record.expires_us / 1_000_000,
    });
    let line = shown.as_ref().map_or_else(String::new, |token| format!("{token}\n"));
    output::print_text(format, &value, &line)?;
    Ok(Exit::Ok)
}

fn check(plan: &Plan, args: &Create) -> anyhow::Result<()> {
    check_policy(plan, args.policy.as_deref()).map_err(|error| coded(Exit::NotFound, error))?;
    let usage = |text: String| Err(coded(Exit::Usage, anyhow!(text)));
    if args.ttl > LONGEST || args.ttl.is_zero() {
        return usage(format!("--ttl is at most {}", humantime::format_duration(LONGEST)));
    }
    if args.replace.is_some() && args.uses > 1 {
        return usage("--replace is for one host: without --uses".into());
    }
    let Some(host) = &args.host else { return Ok(()) };
    if check_host(host).is_ok() {
        return match args.uses {
            1 => Ok(()),
            _ => usage(format!(
                "several hosts cannot all be {host}: give a pattern, such as {host}-*"
            )),
        };
    }
    let letters: String = host.chars().filter(|c| !"*?[]!{},".contains(*c)).collect();
    if globset::Glob::new(host).is_err() || (!letters.is_empty() && check_host(&letters).is_err()) {
        return usage(format!("{host:?} is neither a host name nor a pattern of one"));
    }
    Ok(())
}

async fn new_token(meta: &Meta, args: &Create, fresh: &FreshToken) -> anyhow::Result<NewToken> {
    let (host, replaces, policy) = match &args.replace {
        Some(name) => {
            let replaced = replaced(meta, name).await?;
            let identity = meta.identity(replaced).await?;
            let identity = identity.ok_or_else(|| unknown(name))?;
            let policy = args.policy.clone().or(identity.policy);
            (identity.host, Some(replaced), policy)
        }
        None => (args.host.clone().unwrap_or_default(), None, args.policy.clone()),
    };
    if replaces.is_none()
        && let Some((agent, _)) = known_agent(meta, &host).await?
    {
        let text = format!(
            "host {host} is agent {agent} already: with --replace {host} a rebuilt host takes its identity over"
        );
        return Err(coded(Exit::Conflict, anyhow!(text)));
    }
    let ttl = i64::try_from(args.ttl.as_micros()).unwrap_or(i64::MAX);
    Ok(NewToken {
        id: fresh.id.clone(),
        secret_hash: fresh.secret_hash(),
        host,
        policy,
        replaces,
        networks: args.cidr.iter().map(Network::to_string).collect(),
        uses: args.uses,
        expires_us: wall_clock_us().saturating_add(ttl),
    })
}

async fn replaced(meta: &Meta, name: &str) -> anyhow::Result<garam_proto::AgentId> {
    if let Ok(agent) = name.parse() {
        return Ok(agent);
    }
    let known = known_agent(meta, name).await?;
    known.map(|(agent, _)| agent).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> anyhow::Error {
    coded(Exit::NotFound, anyhow!("no agent {name} to replace: `garam agent ls` lists them"))
}

fn write(path: &std::path::Path, token: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    Ok(())
}

fn list(plan: &Plan, format: Format) -> anyhow::Result<Exit> {
    let tokens =
        super::block_on(async { Ok(Meta::open(&plan.meta_path()).await?.tokens().await?) });
    let mut table = Table::new(&["ID", "HOST", "POLICY", "USED", "STATE", "UNTIL"]);
    let mut values = Vec::new();
    for record in tokens? {
        let token = &record.token;
        let until = jiff::Timestamp::from_microsecond(token.expires_us)
            .map(|t| t.to_string())
            .unwrap_or_default();
        table.row([
            token.id.clone(),
            token.host.clone(),
            token.policy.clone().unwrap_or_else(|| "-".into()),
            format!("{}/{}", record.used, token.uses),
            state(&record).into(),
            until,
        ]);
        values.push(json!({
            "id": token.id,
            "host": token.host,
            "policy": token.policy,
            "replaces": token.replaces.map(|agent| agent.to_string()),
            "networks": token.networks,
            "uses": token.uses,
            "used": record.used,
            "state": state(&record),
            "expires_s": token.expires_us / 1_000_000,
        }));
    }
    output::print(format, &values, &table)?;
    Ok(Exit::Ok)
}

fn state(record: &TokenRecord) -> &'static str {
    match record {
        TokenRecord { revoked: true, .. } => "revoked",
        record if record.is_open(wall_clock_us()) => "open",
        record if record.used >= record.token.uses => "used",
        _ => "expired",
    }
}

fn revoke(plan: &Plan, id: &str) -> anyhow::Result<Exit> {
    let known = super::block_on(async {
        let known = Meta::open(&plan.meta_path()).await?.revoke_token(id).await?;
        if known {
            let event =
                Event::new("token-revoke", Outcome::Allowed).by_this_user().with("token", id);
            Audit::in_folder(&plan.data_dir).record(event).await;
        }
        Ok(known)
    })?;
    if !known {
        let text = format!("no token {id}: `garam token ls` lists them");
        return Err(coded(Exit::NotFound, anyhow!(text)));
    }
    eprintln_quietly(&format!("token {id} opens nothing any more"));
    Ok(Exit::Ok)
}
