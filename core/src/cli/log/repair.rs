//! `garam log repair`: gives up what cannot be read of one partition, counted and named, so that the rest goes on.

use std::path::Path;

use anyhow::anyhow;
use garam_log::LogError;
use garam_log::embedded::Env;
use garam_log::offline::{self, RepairPlan, Repaired};
use garam_proto::PartitionId;
use serde_json::{Value, json};

use super::super::confirm::{Answer, Consent, confirm};
use super::super::exit::{Exit, coded, eprintln_quietly};
use super::super::output::{self, Format, Table, bytes};
use super::verify::{damage_json, damage_rows};

#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// Which partition, as `log verify` names it: STREAM/NUMBER.
    partition: String,
    #[command(flatten)]
    consent: Consent,
}

pub(super) fn repair(dir: &Path, args: &Repair, format: Format) -> anyhow::Result<Exit> {
    let partitions = super::partitions(dir, None)?;
    let named = |partition: &&PartitionId| partition.to_string() == args.partition;
    let partition = partitions.iter().find(named).ok_or_else(|| {
        let text = format!("no partition {} in {}", args.partition, dir.display());
        coded(Exit::NotFound, anyhow!(text))
    })?;
    let env = Env::default();
    let Some(plan) = offline::plan_repair(&env, dir, partition)? else {
        eprintln_quietly(&format!("partition {partition} is sound, there is nothing to repair"));
        output::print_text(format, &json!({"partition": args.partition, "repaired": false}), "")?;
        return Ok(Exit::Ok);
    };
    eprintln_quietly(&talk(&plan));
    if let Some(why) = &plan.hopeless {
        let text =
            format!("partition {partition} cannot be repaired: {why}; restore it from a backup");
        return Err(anyhow!(text));
    }
    let done = match confirm(&args.partition, args.consent)? {
        Answer::DryRun => None,
        Answer::Go => Some(offline::repair(&env, dir, &plan).map_err(with_code)?),
    };
    output::print(format, &as_json(&plan, done.as_ref()), &table(&plan, done.as_ref()))?;
    Ok(Exit::Ok)
}

fn talk(plan: &RepairPlan) -> String {
    format!(
        "partition {}: {} damaged places; {} are written anew and the old files kept aside; cursors at or below offset {} \
         go on by themselves, those above stop with choices (`garam resume`)",
        plan.partition,
        plan.damage.len(),
        bytes(plan.bytes),
        plan.branch,
    )
}

fn with_code(error: LogError) -> anyhow::Error {
    match error {
        LogError::Locked { .. } => {
            coded(Exit::Conflict, anyhow!("{error}; a log is repaired while its core is stopped"))
        }
        error => error.into(),
    }
}

fn table(plan: &RepairPlan, done: Option<&Repaired>) -> Table {
    let mut table = Table::new(&["PARTITION", "START", "END", "SEGMENTS", "BYTES", "STATE"]);
    let state = match done {
        Some(done) => format!("repaired, incarnation {}", done.incarnation),
        None => "not repaired: this is the plan".into(),
    };
    table.row([
        plan.partition.to_string(),
        plan.start.to_string(),
        plan.end.to_string(),
        plan.rewritten.len().to_string(),
        bytes(plan.bytes),
        state,
    ]);
    plan.damage.iter().for_each(|damage| damage_rows(&mut table, damage));
    table
}

fn as_json(plan: &RepairPlan, done: Option<&Repaired>) -> Value {
    json!({
        "partition": plan.partition.to_string(),
        "repaired": done.is_some(),
        "incarnation": done.map(|done| done.incarnation.to_string()),
        "parent": plan.incarnation.to_string(),
        "branch": plan.branch.0,
        "start": plan.start.0,
        "end": plan.end.0,
        "damage": plan.damage.iter().map(damage_json).collect::<Vec<_>>(),
        "rewritten": plan.rewritten,
        "bytes": plan.bytes,
        "kept_aside": done.map(|done| done.aside.clone()).unwrap_or_default(),
    })
}
