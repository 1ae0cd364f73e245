//! The count at the end of a quickstart: what the log took in against what the destination says it has.
//!
//! *Read* is counted from the log's blocks between where the pipeline stood at the start and where the log ends now;
//! *delivered*, *quarantined*, *dropped* are how far the cursor's own counters moved; *duplicated* is counted in the table.
//! Two independent counts that agree are worth printing.

use std::fs;
use std::path::{Path, PathBuf};

use garam_log::{EntryBody, inspect};
use garam_proto::{LogOffset, PartitionId, StreamName};
use garam_sink::{RowCount, SinkConfig};
use garam_stage::{Counters, Cursor};
use serde::Serialize;

use super::setup::{Ground, PIPELINE, STREAM, TABLE};
use crate::cli::output::bytes;

/// What a run did. Counts are records of this run; `gap` is bytes known to be lost upstream.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    read: u64,
    delivered: u64,
    quarantined: u64,
    dropped: u64,
    gap: u64,
    lost: u64,
    duplicated: u64,
    bytes_read: u64,
    files: u64,
    /// Rows in the table, over all runs.
    rows: u64,
    database: String,
    table: &'static str,
    folder: PathBuf,
}

/// Where things stood when the run began.
struct Start {
    next: LogOffset,
    counters: Counters,
}

/// A question to begin with.
const ASK: &str = "select _path, count(*) from lines group by 1 order by 2 desc";

const START_FILE: &str = "run-start.json";

/// Notes where the pipeline stands before the agent begins.
pub(super) async fn remember_start(ground: &Ground) -> anyhow::Result<()> {
    let start = cursor(ground)
        .await?
        .map_or((0, Counters::default()), |cursor| (cursor.next.0, cursor.counters));
    let (next, counters) = start;
    let text = serde_json::json!({
        "next": next,
        "records_in": counters.records_in,
        "delivered": counters.delivered,
        "quarantined": counters.quarantined,
        "dropped": counters.dropped_total(),
        "gap": counters.gap_units,
    });
    Ok(fs::write(ground.dir.join(START_FILE), text.to_string())?)
}

/// Counts after both processes have stopped.
pub(super) async fn count(ground: &Ground) -> anyhow::Result<Summary> {
    let start = start(&ground.dir)?;
    let end = cursor(ground).await?.map(|cursor| cursor.counters).unwrap_or_default();
    let taken = taken_in(&ground.plan.log_dir(), start.next)?;
    let RowCount { rows, distinct } = ground.sink.count_rows().await?;
    let delivered = end.delivered - start.counters.delivered;
    let quarantined = end.quarantined - start.counters.quarantined;
    let dropped = end.dropped_total() - start.counters.dropped_total();
    Ok(Summary {
        read: taken.records,
        delivered,
        quarantined,
        dropped,
        gap: end.gap_units - start.counters.gap_units,
        lost: taken.records.saturating_sub(delivered + quarantined + dropped),
        duplicated: (rows - distinct)
            + (delivered + quarantined + dropped).saturating_sub(taken.records),
        bytes_read: taken.bytes,
        files: taken.files,
        rows,
        database: ground.sink.target().0,
        table: TABLE,
        folder: ground.dir.clone(),
    })
}

impl Summary {
    /// Whether every record that was read is accounted for, once.
    pub(super) fn holds(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.read == self.delivered + self.quarantined + self.dropped
    }

    pub(super) fn text(&self, ground: &Ground) -> String {
        let program = std::env::current_exe()
            .map_or_else(|_| "garam".into(), |path| path.display().to_string());
        let garam = format!("{program} -c {}", ground.core_config.display());
        format!(
            "\n{verdict}\n  read         {} records, {} from {} files\n  delivered    {}\n  quarantined  {}\n  dropped      {}\n  \
             gap          {} bytes\n  lost         {}\n  duplicated   {}\n\n\
             The data is in {} (table {TABLE}, {} rows over all runs); run again and it continues.\nTry:\n  \
             {query}\n  \
             {garam} log inspect --origins\n  \
             {garam} dlq ls\n",
            self.read,
            bytes(self.bytes_read),
            self.files,
            self.delivered,
            self.quarantined,
            self.dropped,
            self.gap,
            self.lost,
            self.duplicated,
            self.database,
            self.rows,
            query = match &ground.sink {
                SinkConfig::MySql(_) => format!("mysql -e \"{ASK}\""),
                SinkConfig::Postgres(_) => format!("psql -c \"{ASK}\""),
                SinkConfig::Sqlite(_) => format!("{garam} query \"{ASK}\""),
            },
            verdict = if self.holds() {
                "Every record that was read is accounted for."
            } else {
                "THE COUNT DOES NOT BALANCE."
            },
        )
    }
}

/// What the log took in since an offset.
#[derive(Default)]
struct TakenIn {
    records: u64,
    bytes: u64,
    files: u64,
}

fn taken_in(log: &Path, from: LogOffset) -> anyhow::Result<TakenIn> {
    let partition = PartitionId { stream: StreamName::new(STREAM)?, index: 0 };
    let mut taken = TakenIn::default();
    let mut origins = std::collections::HashSet::new();
    for entry in inspect::entries(log, &partition, Some(from))? {
        let entry = entry?;
        if let EntryBody::Block { header, .. } = entry.body {
            taken.records += u64::from(header.records);
            taken.bytes += u64::from(header.raw_len);
            origins.insert(header.origin);
        }
    }
    taken.files = origins.len() as u64;
    Ok(taken)
}

async fn cursor(ground: &Ground) -> anyhow::Result<Option<Cursor>> {
    let meta = garam_meta::Meta::open(&ground.plan.meta_path()).await?;
    let known = meta.pipelines().await?.into_iter().find(|pipeline| pipeline.name == PIPELINE);
    let cursors = ground.sink.read_cursors().await?;
    let ours = |cursor: &Cursor| known.as_ref().is_some_and(|own| own.id == cursor.key.pipeline);
    Ok(cursors.into_iter().find(ours))
}

fn start(dir: &Path) -> anyhow::Result<Start> {
    let text = fs::read_to_string(dir.join(START_FILE))?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let number = |key: &str| value.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let counters = Counters {
        records_in: number("records_in"),
        delivered: number("delivered"),
        quarantined: number("quarantined"),
        dropped: std::iter::once(("all".to_owned(), number("dropped"))).collect(),
        gap_units: number("gap"),
        gaps: 0,
    };
    Ok(Start { next: LogOffset(number("next")), counters })
}
