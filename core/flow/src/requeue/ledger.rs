//! What was taken out of a quarantine, by which request: entries of the quarantine itself.
//!
//! In: the quarantine's entries. Out: what a request may take, and the entries that say it did. Promise: a record is taken by
//! one request only, the first; the entries are durable before anything else is done with the record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use garam_log::{Entry, EntryBody, Log};
use garam_proto::{LogOffset, Malformed, PartitionId, Record, SessionId};
use garam_stage::quarantine::WHOLE_BLOCK;
use garam_stage::{Failure, QuarantineReason, QuarantinedRecord};

use super::{Request, RequestId, Writer, durable, limits, taken_origin};
use crate::decode::split;
use crate::error::FlowError;
use crate::stats::Progress;

/// The name of a quarantined record: the entry of the quarantine and the number inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub offset: LogOffset,
    pub index: u32,
}

/// What for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum TakenFor {
    /// To be delivered again.
    Requeue,
    /// To be given up for good.
    Purge,
}

/// One entry: these records were taken by this request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Taken {
    pub request: [u8; 16],
    pub what: TakenFor,
    /// Offset and index of each, ascending.
    pub names: Vec<(u64, u32)>,
}

/// A record that a request takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    pub(super) records: u32,
    /// The entry that says so is durable.
    is_taken: bool,
}

pub(super) type Selected = BTreeMap<Name, Chosen>;

/// How many names an entry holds at most.
const NAMES: usize = 8_192;

impl Taken {
    pub fn decode(record: &[u8]) -> Result<Self, Malformed> {
        garam_proto::decode("taken records", record)
    }
}

/// What a request takes, up to the claim of this session: behind it nobody else can take anything.
pub(super) async fn select(
    log: &dyn Log,
    at: &PartitionId,
    request: &Request,
    session: SessionId,
    progress: &dyn Progress,
) -> Result<(Selected, u64), Failure> {
    let doing = "read the quarantine";
    let taken_by = taken_origin(request.pipeline);
    let start = log.bounds(at).map_err(FlowError::log(doing))?.start;
    let mut reader = log.reader(at, start).await.map_err(FlowError::log(doing))?;
    let (mut selected, mut others, mut unfit) = (Selected::new(), BTreeSet::new(), 0);
    loop {
        let entry = reader.next().await.map_err(FlowError::log(doing))?;
        progress.beat();
        let is_taken = entry.origin.origin == taken_by;
        if is_taken && matches!(entry.body, EntryBody::Claim) && entry.origin.claim == session {
            break;
        }
        for record in records(at, &entry)? {
            if is_taken {
                note(at, &entry, &record, request.id, &mut selected, &mut others)?;
                continue;
            }
            let (quarantined, _) = QuarantinedRecord::decode(&record.bytes)
                .map_err(|error| unreadable(at, &entry, &error.to_string()))?;
            let name = Name { offset: entry.offset, index: record.index };
            if !request.asks_for(name, &quarantined) {
                continue;
            }
            if request.what == TakenFor::Requeue && !is_fit(&quarantined) {
                unfit += 1;
                continue;
            }
            let chosen = Chosen { records: quarantined.records, is_taken: false };
            selected.insert(name, chosen);
        }
    }
    selected.retain(|name, _| !others.contains(name));
    Ok((selected, unfit))
}

/// Whether a record can be delivered again: whole blocks that do not decode lack their header, pieces of a long record the
/// rest of it.
pub(super) fn is_fit(record: &QuarantinedRecord) -> bool {
    record.index != WHOLE_BLOCK && record.reason != QuarantineReason::TooLong
}

fn note(
    at: &PartitionId,
    entry: &Entry,
    record: &Record,
    own: RequestId,
    selected: &mut Selected,
    others: &mut BTreeSet<Name>,
) -> Result<(), FlowError> {
    let taken =
        Taken::decode(&record.bytes).map_err(|error| unreadable(at, entry, &error.to_string()))?;
    for (offset, index) in taken.names {
        let name = Name { offset: LogOffset(offset), index };
        if taken.request != own.0 {
            others.insert(name);
        } else if let Some(chosen) = selected.get_mut(&name) {
            chosen.is_taken = true;
        }
    }
    Ok(())
}

/// Says durably that the request took them.
pub(super) async fn take(
    writer: &mut Writer<'_>,
    request: &Request,
    selected: &Selected,
) -> Result<(), Failure> {
    let fresh = selected.iter().filter(|(_, chosen)| !chosen.is_taken);
    let fresh: Vec<(u64, u32)> = fresh.map(|(name, _)| (name.offset.0, name.index)).collect();
    for names in fresh.chunks(NAMES) {
        let taken = Taken { request: request.id.0, what: request.what, names: names.to_vec() };
        let bytes = garam_proto::encode("taken records", &taken).map_err(FlowError::from)?;
        let appended = writer.append(writer.producer.mark, &bytes).await?;
        durable(appended).await?;
    }
    Ok(())
}

/// The records of an entry.
pub(super) fn records(at: &PartitionId, entry: &Entry) -> Result<Vec<Record>, FlowError> {
    let EntryBody::Block { header, payload } = &entry.body else { return Ok(Vec::new()) };
    split(header, payload, &limits()).map_err(|error| unreadable(at, entry, &error.to_string()))
}

pub(super) fn unreadable(at: &PartitionId, entry: &Entry, why: &str) -> FlowError {
    let (partition, offset) = (at.clone(), entry.offset);
    FlowError::QuarantineUnreadable { partition, offset, why: why.to_owned() }
}

impl Name {
    /// Its place in the quarantine, as a position that only grows.
    pub(super) fn position(self) -> u128 {
        u128::from(self.offset.0) << 32 | u128::from(self.index)
    }
}

impl TakenFor {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requeue => "requeue",
            Self::Purge => "purge",
        }
    }
}

impl FromStr for TakenFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Requeue, Self::Purge].into_iter().find(|what| what.name() == text);
        found.ok_or_else(|| format!("{text:?} is no request"))
    }
}

/// `17.0`
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.offset, self.index)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('.').and_then(|(offset, index)| {
            Some(Self { offset: LogOffset(offset.parse().ok()?), index: index.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{text:?} names no quarantined record, which looks like 17.0"))
    }
}
