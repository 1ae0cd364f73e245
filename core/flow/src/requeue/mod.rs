//! Delivers again what was put aside, once: an operator's request, from the quarantine into the pipeline's second lane.
//!
//! ```text
//! _quarantine.<pipeline>   … | block of records | … | Claim | taken(request r: 17.0, 18.2) | …     origin (pipeline, "taken")
//! _requeue.<pipeline>      Claim r | record 17.0 | record 18.2 | …                                 origin (pipeline, r)
//!                                  ▲ position = its place in the quarantine                 one record an entry
//! ```
//!
//! In: a [`Request`] with an id that somebody keeps durably until it is done. Out: `taken` entries, then copies; a flow with
//! [`crate::Lane::Requeue`] delivers them under a cursor of its own, with the origin, position and version of the record.
//! Promise: whatever ends in between, carrying the request out again leads to the same: what is taken stays taken by the
//! request that took it first, and a copy is appended at most once, since the log's mark of the request says how far it
//! came. An older carrier that still lives is fenced by the claims.
//! Not here: keeping requests (`meta`), asking for them (the command line), delivering.
//!
//! Reading order: here → [`ledger`] (what is taken) → [`copy`] (into the lane) → [`oldest`] (what still waits).

mod copy;
mod ledger;
mod oldest;

use garam_log::Log;
use garam_proto::{
    AgentId, DecodeLimits, Generation, Incarnation, LineageId, LogOffset, OriginId, PartitionId,
    PipelineId, RecordsBuilder, StreamName,
};
use garam_stage::{Failure, QuarantineReason, QuarantinedRecord};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::error::FlowError;
use crate::lives::Lives;
use crate::producer::{Packed, Pending, Producer, new_session, own_claim};
use crate::quarantine::quarantine_stream;
use crate::stats::Progress;
pub use ledger::{Name, Taken, TakenFor};
pub use oldest::{Oldest, oldest_waiting};

/// The stream from which a pipeline delivers again what it had put aside.
pub fn requeue_stream(pipeline: PipelineId) -> StreamName {
    StreamName::new(format!("_requeue.{pipeline}")).expect("a uuid is a valid part of a name")
}

/// Who writes into a quarantine what was taken out of it.
pub fn taken_origin(pipeline: PipelineId) -> OriginId {
    let hash = xxh3_128(&[b"garam.quarantine.taken.1\0".as_slice(), &pipeline.0].concat());
    OriginId { agent: AgentId(pipeline.0), generation: Generation(hash.to_be_bytes()) }
}

/// Names a request for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

/// What an operator asks of a quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: RequestId,
    pub pipeline: PipelineId,
    pub what: TakenFor,
    /// Only records put aside for this reason.
    pub reason: Option<QuarantineReason>,
    /// Only these; empty means all.
    pub names: Vec<Name>,
    /// Only what lay in the quarantine before this offset when it was asked for.
    pub until: LogOffset,
    /// The life of the quarantine that the offsets are of.
    pub incarnation: Incarnation,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Records that this request took.
    pub taken: u64,
    /// Records it asked for that cannot be delivered again: whole blocks, and pieces of what was too long.
    pub unfit: u64,
    /// The quarantine is another one now (restored, repaired): nothing was done.
    pub is_void: bool,
}

impl Request {
    /// Whether a record is asked for.
    pub fn asks_for(&self, name: Name, record: &QuarantinedRecord) -> bool {
        name.offset < self.until
            && self.reason.is_none_or(|reason| record.reason == reason)
            && (self.names.is_empty() || self.names.contains(&name))
    }
}

/// Carries a request out, or to its end when it was begun before. `Err` leaves it to be carried out again.
pub async fn carry_out(
    log: &dyn Log,
    request: &Request,
    progress: &dyn Progress,
    now_us: fn() -> i64,
) -> Result<Done, Failure> {
    let at = PartitionId { stream: quarantine_stream(request.pipeline), index: 0 };
    let shared = Lives::of(log, &at)?.find(request.incarnation);
    if shared.is_none_or(|(_, shared)| request.until > shared) {
        return Ok(Done { is_void: true, ..Done::default() });
    }
    let mut writer = Writer::claim(log, Writer::of_taken(request.pipeline), now_us).await?;
    let (selected, unfit) =
        ledger::select(log, &at, request, writer.producer.session, progress).await?;
    ledger::take(&mut writer, request, &selected).await?;
    if request.what == TakenFor::Requeue && !selected.is_empty() {
        copy::copy(log, &at, request, &selected, progress, now_us).await?;
    }
    let taken = selected.values().map(|chosen| u64::from(chosen.records)).sum();
    tracing::info!(pipeline = %request.pipeline, taken, unfit, what = request.what.name(), "request carried out");
    Ok(Done { taken, unfit, is_void: false })
}

/// A claimed origin, and how what goes wrong with it is told.
pub(crate) struct Writer<'a> {
    log: &'a dyn Log,
    pub(crate) producer: Producer,
    now_us: fn() -> i64,
}

impl<'a> Writer<'a> {
    fn of_taken(pipeline: PipelineId) -> (StreamName, OriginId, &'static str) {
        (quarantine_stream(pipeline), taken_origin(pipeline), "taken")
    }

    fn of_copies(request: &Request) -> (StreamName, OriginId, &'static str) {
        let agent = AgentId(request.pipeline.0);
        let origin = OriginId { agent, generation: Generation(request.id.0) };
        (requeue_stream(request.pipeline), origin, "requeue")
    }

    async fn claim(
        log: &'a dyn Log,
        (stream, origin, source): (StreamName, OriginId, &str),
        now_us: fn() -> i64,
    ) -> Result<Self, Failure> {
        let session = new_session().map_err(FlowError::Random)?;
        let key = [origin.agent.0, origin.generation.0].concat();
        let claim = own_claim(stream, origin, source, LineageId(xxh3_64(&key)), session);
        let claimed = Producer::claim(log, claim).await;
        let (producer, _) = claimed.map_err(FlowError::log("claim for a requeue"))?;
        Ok(Self { log, producer, now_us })
    }

    /// Appends one record at `position`; what lies between the mark and it holds nothing.
    async fn append(&mut self, position: u128, bytes: &[u8]) -> Result<Pending, Failure> {
        let mut builder = RecordsBuilder::new(self.producer.mark);
        builder.push(position, bytes);
        let packed = Packed::plain(position + 1, builder.finish());
        let pending = self.producer.append(self.log, packed, None, (self.now_us)()).await;
        pending.map_err(|error| FlowError::quarantine(APPENDING, error))
    }
}

const APPENDING: &str = "append for a requeue";

async fn durable(pending: Pending) -> Result<(), Failure> {
    let waited = pending.wait().await;
    waited.map(drop).map_err(|error| FlowError::quarantine(APPENDING, error))
}

/// What Garam wrote itself is no larger than what agents may send.
fn limits() -> DecodeLimits {
    DecodeLimits::default()
}
