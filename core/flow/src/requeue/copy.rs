//! Copies what a request took into the pipeline's second lane, in the order of the quarantine.
//!
//! Promise: the log's mark of the request's own origin says what is copied; it is asked for after the claim, so an older
//! carrier can add nothing behind it.

use std::collections::VecDeque;

use garam_log::Log;
use garam_proto::PartitionId;
use garam_stage::Failure;

use super::ledger::{Selected, records};
use super::{Name, Request, Writer, durable};
use crate::error::FlowError;
use crate::producer::Pending;
use crate::stats::Progress;

/// Appends that may wait for their sync.
const IN_FLIGHT: usize = 256;

pub(super) async fn copy(
    log: &dyn Log,
    at: &PartitionId,
    request: &Request,
    selected: &Selected,
    progress: &dyn Progress,
    now_us: fn() -> i64,
) -> Result<(), Failure> {
    let mut writer = Writer::claim(log, Writer::of_copies(request), now_us).await?;
    let done = writer.producer.mark;
    let mut left: VecDeque<Name> = selected.keys().copied().collect();
    left.retain(|name| name.position() >= done);
    let Some(first) = left.front() else { return Ok(()) };
    let doing = "read the quarantine";
    let mut reader = log.reader(at, first.offset).await.map_err(FlowError::log(doing))?;
    let mut pending: VecDeque<Pending> = VecDeque::new();
    while let Some(&next) = left.front() {
        let entry = reader.next().await.map_err(FlowError::log(doing))?;
        progress.beat();
        if entry.offset < next.offset {
            continue;
        }
        for record in records(at, &entry)? {
            let name = Name { offset: entry.offset, index: record.index };
            if left.front() != Some(&name) {
                continue;
            }
            left.pop_front();
            pending.push_back(writer.append(name.position(), &record.bytes).await?);
            if pending.len() >= IN_FLIGHT
                && let Some(oldest) = pending.pop_front()
            {
                durable(oldest).await?;
            }
        }
    }
    for append in pending {
        durable(append).await?;
    }
    Ok(())
}
