//! `garam dlq export`: quarantined records out of Garam, whole.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;

use super::read::{Aside, read};
use crate::cli::exit::{Exit, coded, eprintln_quietly};
use crate::cli::query::choose;
use crate::config::Plan;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam dlq export orders-to-db > bad.jsonl\n  garam dlq export orders-to-db --reason type --raw --to bad.log\n\n\
One JSON object a line, as `garam dlq ls -o json` has them; bytes that are no text come as \"bytes_hex\" too. With --raw the records as they\n\
were read, each with a line feed. Nothing is taken out of the quarantine: see `garam dlq purge`."
)]
pub(crate) struct Args {
    pipeline: String,
    /// Only records put aside for this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Also what was requeued or purged, as long as it is held.
    #[arg(long)]
    all: bool,
    /// The bytes alone.
    #[arg(long)]
    raw: bool,
    /// A new file, synced to disk; default: stdout.
    #[arg(long)]
    to: Option<PathBuf>,
}

pub(crate) fn export(plan: &Plan, args: &Args) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(&args.pipeline))?;
    let mut found = read(plan, pipeline)?;
    found.retain(|aside| args.all || aside.taken.is_none());
    let reason = args.reason.as_deref();
    found.retain(|aside| reason.is_none_or(|reason| aside.record.reason.name() == reason));
    match &args.to {
        None => write(&found, args.raw, &mut std::io::stdout().lock())?,
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let file = file.map_err(|error| {
                let exit = match error.kind() {
                    std::io::ErrorKind::AlreadyExists => Exit::Conflict,
                    _ => Exit::Failed,
                };
                coded(exit, anyhow::anyhow!("cannot write {}: {error}", path.display()))
            })?;
            let mut out = BufWriter::new(file);
            write(&found, args.raw, &mut out)?;
            let file = out.into_inner().context("cannot write the file to its end")?;
            file.sync_all().context("cannot sync the file")?;
        }
    }
    eprintln_quietly(&format!("{} records", found.len()));
    Ok(Exit::Ok)
}

fn write(found: &[Aside], raw: bool, out: &mut impl Write) -> std::io::Result<()> {
    for aside in found {
        if raw {
            out.write_all(&aside.bytes)?;
            out.write_all(b"\n")?;
            continue;
        }
        let mut value = aside.as_json();
        if std::str::from_utf8(&aside.bytes).is_err() {
            let hex: String = aside.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            value["bytes_hex"] = hex.into();
        }
        writeln!(out, "{value}")?;
    }
    out.flush()
}
