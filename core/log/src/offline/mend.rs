//! What must have stood in a lost stretch, as far as sound entries behind it and the next snapshot prove it.
//!
//! In: the fold in front of the stretch, and what does not follow from it. Out: [`LossRecord`]s that set the fold right.
//! Promise: pure; an origin's mark never goes back, and only what was lost is restated. What an origin was about, when its
//! registration is lost and nothing tells it, is written as [`UNKNOWN_PATH`]; the agent's next claim corrects it.
//! Each lost entry was about one origin, so there is always a number to put a loss under; if not, the proof is wrong.

use garam_proto::{
    AgentId, Descriptor, FileDescriptor, Generation, LineageId, OriginId, SessionId, SourceName,
};

use super::scan::Run;
use crate::fold::{ClaimRecord, Fold, LossRecord, Record, SavedOrigin};

/// Stands for the path of a file whose registration was lost.
const UNKNOWN_PATH: &[u8] = b"(lost with a damaged segment)";

/// What has to be restated so that `record` follows; `hint`: a later state that may know an unknown origin.
pub(crate) fn needed(record: &Record, fold: &Fold, hint: Option<&Fold>) -> Option<LossRecord> {
    let (from, _) = record.range();
    let origin = record.origin();
    let Some(before) = fold.saved(origin) else {
        let after = match record {
            Record::Claim(claim) if claim.registers => return None,
            Record::Claim(claim) => of_claim(claim),
            Record::Loss(_) => return None,
            _ => {
                let known = hint.and_then(|hint| hint.saved(origin));
                let known = known.unwrap_or_else(|| nameless(*origin, fold));
                SavedOrigin { mark: from, claim: record.session(), tail_hash: 0, ..known }
            }
        };
        let after = SavedOrigin { retired: false, retired_at_ms: 0, resume: None, ..after };
        return Some(LossRecord { registers: true, from: beginning(&after), after });
    };
    let claims = matches!(record, Record::Claim(_));
    if from < before.mark || matches!(record, Record::Claim(claim) if claim.registers) {
        return None;
    }
    let after = SavedOrigin {
        mark: from,
        tail_hash: if from == before.mark { before.tail_hash } else { 0 },
        claim: if claims { before.claim } else { record.session() },
        retired: false,
        ..before.clone()
    };
    Some(LossRecord { registers: false, from: before.mark, after })
}

/// What has to be restated so that `fold` becomes `target`.
pub(crate) fn settle(fold: &Fold, target: &Fold) -> Result<Vec<LossRecord>, String> {
    let mut losses = Vec::new();
    for after in target.saved_origins() {
        match fold.saved(&after.origin) {
            Some(before) if before == after => {}
            Some(before) if before.mark > after.mark || before.lineage != after.lineage => {
                return Err(format!(
                    "origin {} stands at {} before the segment and at {} in it",
                    after.origin, before.mark, after.mark
                ));
            }
            Some(before) => {
                losses.push(LossRecord { registers: false, from: before.mark, after });
            }
            None => losses.push(LossRecord { registers: true, from: beginning(&after), after }),
        }
    }
    // Known before and not after: it retired in the lost stretch and was forgotten when the next segment began.
    for before in fold.saved_origins().filter(|before| target.get(&before.origin).is_none()) {
        let from = before.mark;
        let after = SavedOrigin { retired: true, retired_at_ms: 0, ..before };
        losses.push(LossRecord { registers: false, from, after });
    }
    Ok(losses)
}

/// Puts each loss under a number that nothing else took, the latest first.
pub(crate) fn place(
    runs: &mut [Run],
    pending: &[usize],
    losses: Vec<LossRecord>,
) -> Result<(), String> {
    for loss in losses {
        let mut free = pending.iter().rev().copied();
        let run = free.find(|&run| runs.get(run).is_some_and(|run| run.free() > 0));
        let run = run.and_then(|run| runs.get_mut(run)).ok_or_else(|| {
            format!("origin {} differs, and no lost entry explains it", loss.after.origin)
        })?;
        run.losses.push(loss);
    }
    Ok(())
}

/// What stands in for an entry of which everything but the payload is known; `fold` is the state behind it.
pub(crate) fn of_known(record: &Record, fold: &Fold) -> Option<LossRecord> {
    let after = fold.saved(record.origin())?;
    Some(LossRecord { registers: false, from: record.range().0, after })
}

/// Where a new origin begins: a file at its first byte. Of anything else nobody knows, so nothing is counted.
fn beginning(after: &SavedOrigin) -> u128 {
    match &after.descriptor {
        Descriptor::File(file) if file.path != UNKNOWN_PATH => 0,
        _ => after.mark,
    }
}

fn of_claim(claim: &ClaimRecord) -> SavedOrigin {
    SavedOrigin {
        origin: claim.origin,
        host: claim.host.clone(),
        source: claim.source.clone(),
        descriptor: claim.descriptor.clone(),
        lineage: claim.lineage,
        source_epoch: claim.source_epoch,
        mark: claim.from,
        tail_hash: 0,
        claim: claim.session,
        resume: None,
        retired: false,
        retired_at_ms: 0,
    }
}

/// An origin of which only its blocks are left. Its host and epoch are those of the same agent's other origins.
fn nameless(origin: OriginId, fold: &Fold) -> SavedOrigin {
    let kin = fold.saved_origins().filter(|other| other.origin.agent == origin.agent);
    let newest = kin.max_by_key(|other| other.source_epoch);
    let (host, source, epoch) = match newest {
        Some(kin) => (kin.host, kin.source, kin.source_epoch),
        None => (String::new(), lost_source(), 1),
    };
    SavedOrigin {
        origin,
        host,
        source,
        descriptor: Descriptor::File(FileDescriptor {
            path: UNKNOWN_PATH.to_vec(),
            file_system: 0,
            inode: 0,
            birth_ns: None,
            head_len: 0,
            head_hash: 0,
        }),
        lineage: LineageId(u64::from_le_bytes(half(&origin.generation.0))),
        source_epoch: epoch,
        mark: 0,
        tail_hash: 0,
        claim: SessionId(0),
        resume: None,
        retired: false,
        retired_at_ms: 0,
    }
}

/// An origin that is nobody's, for a number in front of every registration.
pub(crate) fn nobody() -> LossRecord {
    let origin = OriginId { agent: AgentId::NIL, generation: Generation([0; 16]) };
    let after = SavedOrigin { retired: true, ..nameless(origin, &Fold::default()) };
    LossRecord { registers: true, from: 0, after }
}

fn lost_source() -> SourceName {
    SourceName::new("lost").expect("a valid name")
}

fn half(bytes: &[u8; 16]) -> [u8; 8] {
    bytes.first_chunk().copied().unwrap_or_default()
}
