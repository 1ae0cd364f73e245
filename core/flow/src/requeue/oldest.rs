//! What still waits in a quarantine: how old it is, and from where on the quarantine is needed.
//!
//! In: the quarantine and what was taken out of it. Out: the oldest record that waits for somebody, and the offset below
//! which nothing is needed: neither by a request that is not done, nor to keep a record of the input, which could be read
//! again, from being delivered.

use std::collections::{BTreeMap, BTreeSet};

use garam_log::Log;
use garam_proto::{LogOffset, PartitionId, PipelineId};
use garam_stage::{Failure, QuarantinedRecord};

use super::ledger::{records, unreadable};
use super::{Name, RequestId, Taken, taken_origin};
use crate::error::FlowError;
use crate::lives::Lives;
use crate::quarantine::quarantine_stream;
use crate::stats::Progress;

/// The front of a quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// When the oldest record that waits was put aside, microseconds since the epoch; `None`: nothing waits.
    pub waits_since_us: Option<i64>,
    /// Nothing below is needed.
    pub needed_from: LogOffset,
    /// Records that wait.
    pub waiting: u64,
}

/// Reads the whole quarantine. `undone`: requests that were begun, perhaps, and are not done.
pub async fn oldest_waiting(
    log: &dyn Log,
    pipeline: PipelineId,
    undone: &[RequestId],
    progress: &dyn Progress,
) -> Result<Oldest, Failure> {
    let doing = "read the quarantine";
    let at = PartitionId { stream: quarantine_stream(pipeline), index: 0 };
    let bounds = log.bounds(&at).map_err(FlowError::log(doing))?;
    let mut reader = log.reader(&at, bounds.start).await.map_err(FlowError::log(doing))?;
    let mut lives: BTreeMap<PartitionId, (LogOffset, Lives)> = BTreeMap::new();
    let mut held: BTreeMap<Name, Held> = BTreeMap::new();
    let mut needed: BTreeSet<Name> = BTreeSet::new();
    while reader.position() < bounds.end {
        let Some(entry) = reader.try_next().await.map_err(FlowError::log(doing))? else { break };
        progress.beat();
        for record in records(&at, &entry)? {
            let broken =
                |error: garam_proto::Malformed| unreadable(&at, &entry, &error.to_string());
            if entry.origin.origin == taken_origin(pipeline) {
                let taken = Taken::decode(&record.bytes).map_err(broken)?;
                if undone.contains(&RequestId(taken.request)) {
                    continue;
                }
                for (offset, index) in taken.names {
                    held.remove(&Name { offset: LogOffset(offset), index });
                }
                continue;
            }
            let (quarantined, _) = QuarantinedRecord::decode(&record.bytes).map_err(broken)?;
            let name = Name { offset: entry.offset, index: record.index };
            if binds(log, &quarantined, &mut lives)? {
                needed.insert(name);
            }
            let QuarantinedRecord { time_us, records, .. } = quarantined;
            held.insert(name, Held { time_us, records });
        }
    }
    let first = held.keys().next().into_iter().chain(needed.first()).min();
    Ok(Oldest {
        waits_since_us: held.values().map(|held| held.time_us).min(),
        needed_from: first.map_or(bounds.end, |name| name.offset),
        waiting: held.values().map(|held| u64::from(held.records)).sum(),
    })
}

struct Held {
    time_us: i64,
    records: u32,
}

/// Whether the record could be met again in its stream, where only this entry keeps it from being delivered.
fn binds(
    log: &dyn Log,
    record: &QuarantinedRecord,
    lives: &mut BTreeMap<PartitionId, (LogOffset, Lives)>,
) -> Result<bool, Failure> {
    let input = PartitionId { stream: record.stream.clone(), index: record.partition };
    let (start, lives) = match lives.entry(input.clone()) {
        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::btree_map::Entry::Vacant(unknown) => {
            let Ok(bounds) = log.bounds(&input) else { return Ok(false) };
            unknown.insert((bounds.start, Lives::of(log, &input)?))
        }
    };
    Ok(lives.binds(record, *start))
}
