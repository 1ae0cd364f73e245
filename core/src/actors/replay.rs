//! Carries out what an operator asked of a pipeline's cursors: to stand further back, so that what the log holds is delivered again.
//!
//! In: a request that the metadata keeps until it is done. Out: decisions for the pipeline's flows, which carry them out at their next
//! start. Promise: cursors are read while no flow of the pipeline runs; all decisions of a request and that it is done are kept in
//! one step, so that it is carried out once, whatever ends in between. Not here: moving a cursor (`flow`), asking (the command line).

use garam_log::Log as _;
use garam_meta::RequestRecord;
use garam_proto::{Incarnation, LogOffset, PartitionId};
use garam_stage::{Choice, Cursor, CursorKey, Decision, Failure, FailureKind, SlotRange};

use super::requeue::CarrierRoom;
use crate::supervise::{Context, Fault};

/// What such a request is called in the metadata.
pub const REPLAY: &str = "replay";

/// Where one cursor is to stand, as the metadata keeps it: `partition/offset/incarnation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub partition: u32,
    pub to: LogOffset,
    /// The life of the log that `to` is an offset of.
    pub incarnation: Incarnation,
}

/// Ends the flows at their cursors, decides, and lets them begin again. `false`: asked to stop before that.
pub(super) async fn carry_out(
    room: &CarrierRoom,
    record: &RequestRecord,
    context: &Context,
) -> Result<bool, Fault> {
    let targets = record.names.iter().map(|name| name.parse::<Target>());
    let targets = targets.collect::<Result<Vec<_>, _>>().map_err(|why| {
        let text = format!("request {} cannot be read: {why}", record.id);
        Failure::new(FailureKind::Config, text)
    })?;
    let hold = room.gate.hold("a replay is about to begin");
    {
        let _guard = context.progress.waiting("its flows to end at their cursors");
        tokio::select! {
            () = room.gate.empty() => {}
            () = context.stopping() => return Ok(false),
        }
    }
    let key = |target: &Target| CursorKey {
        pipeline: room.pipeline,
        partition: target.partition,
        slots: SlotRange::ALL,
    };
    let keys: Vec<_> = targets.iter().map(key).collect();
    let cursors = {
        let _guard = context.progress.waiting("the destination's cursors");
        room.to.read_cursors(&room.log_dir, &keys).await.map_err(failure)?
    };
    let mut decisions = Vec::new();
    for target in &targets {
        let key = key(target);
        match decision(room, target, cursors.iter().find(|cursor| cursor.key == key)) {
            Ok(decision) => decisions.push((key, decision)),
            Err(why) => tracing::warn!(request = %record.id, partition = target.partition, why,
                "this partition is not replayed: ask again"),
        }
    }
    let stored = room.meta.replay(record.id, &decisions, targets.len()).await;
    stored.map_err(Failure::from)?;
    tracing::info!(request = %record.id, partitions = decisions.len(), "the replay begins");
    drop(hold);
    Ok(true)
}

/// What a destination said, whichever it is.
fn failure(error: anyhow::Error) -> Failure {
    error.downcast::<Failure>().unwrap_or_else(|error| {
        Failure::new(FailureKind::Unreachable, format!("cannot read the cursors: {error:#}"))
    })
}

fn decision(
    room: &CarrierRoom,
    target: &Target,
    cursor: Option<&Cursor>,
) -> Result<Decision, &'static str> {
    let at = PartitionId { stream: room.input.clone(), index: target.partition };
    let log = room.log.peek().ok_or("the log is being opened")?;
    let bounds = log.bounds(&at).map_err(|_| "the log does not have it")?;
    let cursor = cursor.ok_or("the destination has no cursor of it")?;
    if cursor.incarnation != bounds.incarnation || target.incarnation != bounds.incarnation {
        return Err("the log has begun a new life since it was asked for");
    }
    if target.to < bounds.start {
        return Err("the log does not hold it any more");
    }
    if target.to > cursor.next {
        return Err("the cursor stands before it: nothing would be delivered again");
    }
    let stored = Some((cursor.incarnation, cursor.next));
    let incarnation = bounds.incarnation;
    Ok(Decision { choice: Choice::Rewind, stored, incarnation, to: target.to, gap_from: None })
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.partition, self.to, self.incarnation)
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let broken = || format!("{text:?} is no place to replay from");
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().ok_or_else(broken);
        Ok(Self {
            partition: next()?.parse().map_err(|_| broken())?,
            to: LogOffset(next()?.parse().map_err(|_| broken())?),
            incarnation: next()?.parse().map_err(|_| broken())?,
        })
    }
}
