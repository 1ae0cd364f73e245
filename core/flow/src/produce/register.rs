//! The cursor as bytes: what the register's newest entry says about resuming.
//!
//! Promise: the first byte says the format; a newer one is refused.

use bincode::{Decode, Encode};
use garam_proto::{Incarnation, LogOffset, Malformed};
use garam_stage::{Counters, Cursor, CursorKey, PlanId};

/// The format this build writes.
const FORMAT: u8 = 1;

#[derive(Encode, Decode)]
struct Stored {
    incarnation: [u8; 16],
    next: u64,
    fingerprint: u64,
    epoch: u64,
    plan: u64,
    slot_map_epoch: u32,
    quarantine_next: u64,
    records_in: u64,
    delivered: u64,
    quarantined: u64,
    dropped: Vec<(String, u64)>,
    gap_units: u64,
    gaps: u64,
}

pub(super) fn encode(cursor: &Cursor) -> Result<Vec<u8>, Malformed> {
    let Cursor { incarnation, next, fingerprint, epoch, plan, slot_map_epoch, .. } = cursor;
    let Counters { records_in, delivered, quarantined, dropped, gap_units, gaps } =
        &cursor.counters;
    let stored = Stored {
        incarnation: incarnation.0,
        next: next.0,
        fingerprint: *fingerprint,
        epoch: *epoch,
        plan: plan.0,
        slot_map_epoch: *slot_map_epoch,
        quarantine_next: cursor.quarantine_next.0,
        records_in: *records_in,
        delivered: *delivered,
        quarantined: *quarantined,
        dropped: dropped.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
        gap_units: *gap_units,
        gaps: *gaps,
    };
    let mut bytes = vec![FORMAT];
    bytes.extend(garam_proto::encode("a pipeline's cursor", &stored)?);
    Ok(bytes)
}

pub(super) fn decode(key: &CursorKey, bytes: &[u8]) -> Result<Cursor, String> {
    let (format, body) = bytes.split_first().ok_or("it is empty")?;
    if *format != FORMAT {
        return Err(format!("it has format {format}, this build reads {FORMAT}: upgrade Garam"));
    }
    let stored: Stored =
        garam_proto::decode("a pipeline's cursor", body).map_err(|error| error.to_string())?;
    Ok(Cursor {
        key: key.clone(),
        incarnation: Incarnation(stored.incarnation),
        next: LogOffset(stored.next),
        fingerprint: stored.fingerprint,
        epoch: stored.epoch,
        plan: PlanId(stored.plan),
        slot_map_epoch: stored.slot_map_epoch,
        quarantine_next: LogOffset(stored.quarantine_next),
        counters: Counters {
            records_in: stored.records_in,
            delivered: stored.delivered,
            quarantined: stored.quarantined,
            dropped: stored.dropped.into_iter().collect(),
            gap_units: stored.gap_units,
            gaps: stored.gaps,
        },
    })
}

/// What a block of rows says: the plan that made them.
pub(super) fn of_plan(plan: PlanId) -> Vec<u8> {
    plan.0.to_be_bytes().to_vec()
}

pub(super) fn plan(bytes: &[u8]) -> Option<PlanId> {
    bytes.try_into().ok().map(u64::from_be_bytes).map(PlanId)
}

#[cfg(test)]
mod tests {
    use garam_proto::PipelineId;
    use garam_stage::SlotRange;

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_and_a_newer_format_is_refused() {
        let key = CursorKey { pipeline: PipelineId([1; 16]), partition: 3, slots: SlotRange::ALL };
        let counters = Counters {
            records_in: 10,
            delivered: 6,
            quarantined: 1,
            dropped: [("filtered".to_owned(), 3)].into(),
            gap_units: 9,
            gaps: 1,
        };
        let cursor = Cursor {
            key: key.clone(),
            incarnation: Incarnation([4; 16]),
            next: LogOffset(5),
            fingerprint: u64::MAX,
            epoch: 7,
            plan: PlanId(8),
            slot_map_epoch: 2,
            quarantine_next: LogOffset(11),
            counters,
        };
        let mut bytes = encode(&cursor).unwrap();
        assert_eq!(decode(&key, &bytes).unwrap(), cursor);
        bytes[0] = FORMAT + 1;
        assert!(decode(&key, &bytes).unwrap_err().contains("upgrade"));
        assert_eq!(plan(&of_plan(PlanId(77))), Some(PlanId(77)));
    }
}
