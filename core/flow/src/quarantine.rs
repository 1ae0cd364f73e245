//! The pipeline's quarantine stream: what is put aside, durable before the cursor passes it, and binding ever after.
//!
//! ```text
//! stream `_quarantine.<pipeline id>`     one origin per input partition: (pipeline id, hash of pipeline and partition)
//!   … | Claim s1 | Block [0,3) | Block [3,4) | Claim s2 | Block [4,5) | …       position = running number
//!                   ▲ cursor.quarantine_next               ▲ mark
//! ```
//!
//! In: the cursor at start; records with their reasons later. Out: the names that bind this run, and the offset that a
//! cursor may carry as `quarantine_next`.
//! Promise: after [`Quarantine::open`] no older writer can add a name (its claim is not the newest), and every name it
//! did add at or above the cursor is known. A name that cannot be read stops the pipeline; so does a full quarantine.
//! Not here: which records are bad; taking them out again (`requeue`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use garam_log::{Claim, Entry, EntryBody, Log, LogReader};
use garam_proto::{
    AgentId, Descriptor, Generation, LineageId, LogOffset, OriginId, PartitionId, PipelineId,
    RecordsBuilder, SessionId, StreamName,
};
use garam_stage::{Cursor, Failure, QuarantinedRecord};
use xxhash_rust::xxh3::Xxh3;

use crate::binding::Binding;
use crate::decode::split;
use crate::engine::Context;
use crate::error::FlowError;
use crate::lives::Lives;
use crate::producer::{Packed, Producer, new_session, own_claim};

/// The stream that holds what a pipeline put aside.
pub fn quarantine_stream(pipeline: PipelineId) -> StreamName {
    StreamName::new(format!("_quarantine.{pipeline}")).expect("a uuid is a valid part of a name")
}

/// Who writes the entries of one input partition.
pub fn quarantine_origin(pipeline: PipelineId, partition: u32) -> OriginId {
    let hash = hash(b"garam.quarantine.origin.1\0", pipeline, partition).digest128();
    OriginId { agent: AgentId(pipeline.0), generation: Generation(hash.to_be_bytes()) }
}

/// One record on its way into the quarantine.
#[derive(Debug, Clone)]
pub(crate) struct Exhibit {
    pub(crate) record: QuarantinedRecord,
    pub(crate) bytes: Bytes,
}

/// The claimed quarantine of one input partition.
pub(crate) struct Quarantine {
    log: Arc<dyn Log>,
    /// Its mark is the running number of the next record.
    producer: Producer,
    origin: OriginId,
    reader_name: String,
    now_us: fn() -> i64,
    /// Own entries with a record that no cursor has passed: where they lie, and the last input offset they name.
    open: BTreeMap<LogOffset, LogOffset>,
    /// Behind the newest own entry or claim.
    behind: LogOffset,
}

/// Raw bytes after which a block of quarantine entries is cut.
const BLOCK_BYTES: usize = 1024 * 1024;

impl Quarantine {
    /// Claims the quarantine, then reads what binds this run. The cursor must have been taken over before.
    pub(crate) async fn open(
        context: &Context,
        cursor: &Cursor,
    ) -> Result<(Self, Binding), Failure> {
        let (config, log) = (&context.config, &context.log);
        let origin = quarantine_origin(config.pipeline, config.number());
        let session = new_session().map_err(FlowError::Random)?;
        let claim = claim(config.pipeline, config.number(), origin, session);
        let claimed = Producer::claim(&**log, claim).await;
        let (producer, _) = claimed.map_err(FlowError::log("claim the quarantine"))?;

        let reader_name = config.reader_name();
        let from = first_binding(&**log, &producer.at, cursor.quarantine_next)?;
        log.pin(&producer.at, &reader_name, from);
        let mut quarantine = Self {
            log: Arc::clone(log),
            producer,
            origin,
            reader_name,
            now_us: context.hooks.now_us,
            open: BTreeMap::new(),
            behind: from,
        };
        let doing = "open the quarantine";
        let reader =
            log.reader(&quarantine.producer.at, from).await.map_err(FlowError::log(doing))?;
        let binding = quarantine.read_binding(context, cursor, reader).await?;
        Ok((quarantine, binding))
    }

    /// Everything up to the own claim: behind it only this session can add.
    async fn read_binding(
        &mut self,
        context: &Context,
        cursor: &Cursor,
        mut reader: Box<dyn LogReader>,
    ) -> Result<Binding, Failure> {
        let mut binding = Binding::default();
        let lives = Lives::of(&*self.log, &context.config.input)?;
        loop {
            let entry = reader.next().await.map_err(FlowError::log("read the quarantine"))?;
            if entry.origin.origin != self.origin {
                continue;
            }
            let claims = matches!(entry.body, EntryBody::Claim);
            if claims && entry.origin.claim == self.producer.session {
                self.behind = entry.offset.next();
                return Ok(binding);
            }
            let names = names(context, &self.producer.at, &entry)?;
            let binds = |record: &QuarantinedRecord| lives.binds(record, cursor.next);
            for record in names.iter().filter(|record| binds(record)) {
                binding.add(record.at());
                let last = self.open.entry(entry.offset).or_insert(LogOffset(record.offset));
                *last = (*last).max(LogOffset(record.offset));
            }
        }
    }

    /// Puts records aside; returns once all of them are durable. They must be in log order.
    pub(crate) async fn put(&mut self, exhibits: &[Exhibit]) -> Result<(), Failure> {
        let doing = "put records into the quarantine";
        let mut waiting = Vec::new();
        let mut rest = exhibits;
        while !rest.is_empty() {
            let packed = self.pack(rest)?;
            let taken = packed.records as usize;
            let last = rest.get(..taken).and_then(|taken| taken.last());
            let last = last.map_or(LogOffset::ZERO, |last| LogOffset(last.record.offset));
            let pending = self.producer.append(&*self.log, packed, None, (self.now_us)()).await;
            waiting.push((pending.map_err(|error| FlowError::quarantine(doing, error))?, last));
            rest = rest.get(taken..).unwrap_or_default();
        }
        for (pending, last) in waiting {
            let offset = pending.wait().await;
            let offset = offset.map_err(|error| FlowError::quarantine(doing, error))?;
            self.open.insert(offset, last);
            self.behind = self.behind.max(offset.next());
        }
        Ok(())
    }

    /// The next block: as many exhibits as fit, at least one.
    fn pack(&self, exhibits: &[Exhibit]) -> Result<Packed, FlowError> {
        let mut to = self.producer.mark;
        let mut builder = RecordsBuilder::new(to);
        for exhibit in exhibits {
            let encoded = exhibit.record.encode(&exhibit.bytes)?;
            if !builder.is_empty() && builder.len() + encoded.len() > BLOCK_BYTES {
                break;
            }
            builder.push(to, &encoded);
            to += 1;
        }
        Ok(Packed::plain(to, builder.finish()))
    }

    /// What a cursor at `next` carries: the first entry with a record at or above `next`.
    pub(crate) fn next_at(&self, next: LogOffset) -> LogOffset {
        let open = self.open.iter().find(|&(_, &last)| last >= next);
        open.map_or(self.behind, |(&entry, _)| entry)
    }

    /// A cursor is durable: what it passed is no longer needed here.
    pub(crate) fn passed(&mut self, cursor: &Cursor) {
        self.open.retain(|_, last| *last >= cursor.next);
        self.log.pin(&self.producer.at, &self.reader_name, cursor.quarantine_next);
    }
}

fn claim(pipeline: PipelineId, partition: u32, origin: OriginId, session: SessionId) -> Claim {
    let mut key = pipeline.0.to_vec();
    key.extend_from_slice(&partition.to_be_bytes());
    let lineage = LineageId(hash(b"garam.quarantine.lineage.1\0", pipeline, partition).digest());
    let stream = quarantine_stream(pipeline);
    let claim = own_claim(stream, origin, "quarantine", lineage, session);
    Claim { descriptor: Descriptor::Producer { key }, ..claim }
}

/// What an entry names.
pub(crate) fn names(
    context: &Context,
    at: &PartitionId,
    entry: &Entry,
) -> Result<Vec<QuarantinedRecord>, FlowError> {
    let EntryBody::Block { header, payload } = &entry.body else { return Ok(Vec::new()) };
    let unreadable = |why: String| {
        let (partition, offset) = (at.clone(), entry.offset);
        FlowError::QuarantineUnreadable { partition, offset, why }
    };
    let records = split(header, payload, &context.config.limits.decode)
        .map_err(|error| unreadable(error.to_string()))?;
    let decode = |record: &garam_proto::Record| {
        QuarantinedRecord::decode(&record.bytes)
            .map(|(record, _)| record)
            .map_err(|error| unreadable(error.to_string()))
    };
    records.iter().map(decode).collect()
}

/// Where reading must begin. A cursor that has never passed an entry begins at whatever is left.
fn first_binding(log: &dyn Log, at: &PartitionId, next: LogOffset) -> Result<LogOffset, Failure> {
    let bounds = log.bounds(at).map_err(FlowError::log("find the quarantine's bounds"))?;
    if next == LogOffset::ZERO {
        return Ok(bounds.start);
    }
    if next < bounds.start || next > bounds.end {
        let (partition, start, end) = (at.clone(), bounds.start, bounds.end);
        return Err(FlowError::QuarantineOutside { partition, next, start, end }.into());
    }
    Ok(next)
}

fn hash(tag: &[u8], pipeline: PipelineId, partition: u32) -> Xxh3 {
    let mut hash = Xxh3::new();
    hash.update(tag);
    hash.update(&pipeline.0);
    hash.update(&partition.to_be_bytes());
    hash
}
