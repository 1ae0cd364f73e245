//! `garam log verify`: reads everything, says what is damaged, where, and what it took.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use garam_log::offline::{self, Damage, Verified};
use garam_proto::PartitionId;
use serde_json::{Value, json};

use super::super::exit::Exit;
use super::super::output::{self, Format, Table, bytes};

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Only this stream.
    #[arg(long)]
    stream: Option<String>,
}

pub(super) fn verify(dir: &Path, args: &Verify, format: Format) -> anyhow::Result<Exit> {
    let partitions = super::partitions(dir, args.stream.as_deref())?;
    let total: u64 = partitions.iter().map(|partition| size_on_disk(dir, partition)).sum();
    let mut shown = Shown::new(total);
    let verified = offline::verify(dir, &partitions, &mut |done| shown.at(done))?;
    shown.finish();
    let values: Vec<_> = verified.iter().map(as_json).collect();
    output::print(format, &values, &table(&verified))?;
    let damaged = verified.iter().any(|verified| !verified.damage.is_empty());
    Ok(if damaged { Exit::Failed } else { Exit::Ok })
}

fn table(verified: &[Verified]) -> Table {
    let mut table = Table::new(&["PARTITION", "START", "END", "SEGMENTS", "BYTES", "STATE"]);
    for partition in verified {
        let state = match (&partition.damage[..], &partition.torn) {
            ([], None) => "ok".to_owned(),
            ([], Some((at, why))) => {
                format!("ok, but a tail at byte {at} that nobody waits for: {why}")
            }
            (damage, _) => format!("{} damaged places", damage.len()),
        };
        table.row([
            partition.partition.to_string(),
            partition.start.to_string(),
            partition.end.to_string(),
            partition.segments.to_string(),
            bytes(partition.bytes),
            state,
        ]);
        for damage in &partition.damage {
            damage_rows(&mut table, damage);
        }
        if let Some(why) = &partition.hopeless {
            table.row([
                "  cannot be repaired".into(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                why.clone(),
            ]);
        }
    }
    table
}

/// One row for the place, one for each origin that lost something there.
pub(super) fn damage_rows(table: &mut Table, damage: &Damage) {
    let place = format!("{} byte {}: {}", damage.file.display(), damage.bytes.start, damage.why);
    let what = if damage.is_tail { "  cut off" } else { "  damage" };
    let end = if damage.is_tail { String::new() } else { damage.offsets.end.to_string() };
    table.row([
        what.into(),
        damage.offsets.start.to_string(),
        end,
        String::new(),
        bytes(damage.bytes.end - damage.bytes.start),
        place,
    ]);
    for lost in &damage.lost {
        table.row([
            "    lost".into(),
            lost.from.to_string(),
            lost.to.to_string(),
            String::new(),
            bytes(u64::try_from(lost.to - lost.from).unwrap_or(u64::MAX)),
            format!("{} on {}", lost.path, lost.host),
        ]);
    }
}

fn as_json(verified: &Verified) -> Value {
    json!({
        "stream": verified.partition.stream.as_str(),
        "partition": verified.partition.index,
        "incarnation": verified.incarnation.to_string(),
        "ancestors": verified.ancestors.iter().map(|ancestor| json!({
            "incarnation": ancestor.incarnation.to_string(),
            "until": ancestor.until.0,
        })).collect::<Vec<_>>(),
        "start": verified.start.0,
        "end": verified.end.0,
        "segments": verified.segments,
        "entries": verified.entries,
        "bytes": verified.bytes,
        "ok": verified.damage.is_empty(),
        "torn": verified.torn.as_ref().map(|(at, why)| json!({"byte": at, "why": why})),
        "damage": verified.damage.iter().map(damage_json).collect::<Vec<_>>(),
        "repairable": verified.hopeless.is_none(),
        "why_not": verified.hopeless,
    })
}

pub(super) fn damage_json(damage: &Damage) -> Value {
    json!({
        "file": damage.file,
        "from_byte": damage.bytes.start,
        "to_byte": damage.bytes.end,
        "from_offset": damage.offsets.start,
        "to_offset": damage.offsets.end,
        "tail": damage.is_tail,
        "why": damage.why,
        "lost": damage.lost.iter().map(|lost| json!({
            "agent": lost.origin.agent.to_string(),
            "generation": lost.origin.generation.to_string(),
            "host": lost.host,
            "path": lost.path,
            "from": lost.from.to_string(),
            "to": lost.to.to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn size_on_disk(dir: &Path, partition: &PartitionId) -> u64 {
    let folder = dir.join(partition.stream.as_str()).join(format!("{:04}", partition.index));
    let Ok(listed) = std::fs::read_dir(folder) else { return 0 };
    let sizes = listed.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

/// How far it is, on a terminal only.
struct Shown {
    total: u64,
    is_terminal: bool,
}

impl Shown {
    fn new(total: u64) -> Self {
        Self { total, is_terminal: std::io::stderr().is_terminal() }
    }

    fn at(&mut self, done: u64) {
        if self.is_terminal {
            let line = format!("\rreading {} of {}   ", bytes(done), bytes(self.total));
            let _closed_stderr_is_fine = write!(std::io::stderr(), "{line}");
        }
    }

    fn finish(&self) {
        if self.is_terminal {
            let _closed_stderr_is_fine = write!(std::io::stderr(), "\r{:60}\r", "");
        }
    }
}
