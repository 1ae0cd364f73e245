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

use garam_log::{Append, AppendBody, Appended, Claim, Log};
use garam_proto::message::ClaimReason;
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Codec, DecodeLimits, Descriptor, Generation, Incarnation,
    LineageId, LogOffset, OriginId, PartitionId, PipelineId, RecordsBuilder, SessionId, SourceName,
    StreamName,
};
use garam_stage::{Failure, QuarantineReason, QuarantinedRecord};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::error::FlowError;
use crate::lives::Lives;
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
    let mut producer = Producer::claim(log, Producer::of_taken(request.pipeline), now_us).await?;
    let (selected, unfit) = ledger::select(log, &at, request, producer.session, progress).await?;
    ledger::take(&mut producer, request, &selected).await?;
    if request.what == TakenFor::Requeue && !selected.is_empty() {
        copy::copy(log, &at, request, &selected, progress, now_us).await?;
    }
    let taken = selected.values().map(|chosen| u64::from(chosen.records)).sum();
    tracing::info!(pipeline = %request.pipeline, taken, unfit, what = request.what.name(), "request carried out");
    Ok(Done { taken, unfit, is_void: false })
}

/// One origin of Garam's own that this session has claimed.
pub(crate) struct Producer<'a> {
    log: &'a dyn Log,
    at: PartitionId,
    origin: OriginId,
    pub(crate) session: SessionId,
    pub(crate) mark: u128,
    now_us: fn() -> i64,
}

impl<'a> Producer<'a> {
    fn of_taken(pipeline: PipelineId) -> Claim {
        let (stream, origin) = (quarantine_stream(pipeline), taken_origin(pipeline));
        own_claim(stream, origin, "taken")
    }

    fn of_copies(request: &Request) -> Claim {
        let agent = AgentId(request.pipeline.0);
        let origin = OriginId { agent, generation: Generation(request.id.0) };
        own_claim(requeue_stream(request.pipeline), origin, "requeue")
    }

    async fn claim(log: &'a dyn Log, claim: Claim, now_us: fn() -> i64) -> Result<Self, Failure> {
        let session = SessionId(getrandom::u64().map_err(FlowError::Random)?);
        let origin = claim.origin;
        let doing = "claim for a requeue";
        let ticket = log.claim(Claim { session, ..claim }).await.map_err(FlowError::log(doing))?;
        let claimed = ticket.wait().await.map_err(FlowError::log(doing))?;
        let (at, mark) = (claimed.partition, claimed.state.mark);
        Ok(Self { log, at, origin, session, mark, now_us })
    }

    /// Appends one record at `position`; what lies between the mark and it holds nothing.
    async fn append(&mut self, position: u128, bytes: &[u8]) -> Result<Pending, Failure> {
        let mut builder = RecordsBuilder::new(self.mark);
        builder.push(position, bytes);
        let (payload, records) = builder.finish();
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let to = position + 1;
        let header = BlockHeader {
            origin: self.origin,
            session: self.session,
            from: self.mark,
            to,
            records,
            kind: BlockKind::Records,
            flags: 0,
            codec: Codec::None,
            raw_len: len,
            payload_len: len,
            payload_crc: crc32c::crc32c(&payload),
            ingest_time_us: (self.now_us)(),
            tail_hash: 0,
            resume: None,
        };
        let body = AppendBody::Block { header, payload: payload.into() };
        let append = Append { origin: self.origin, session: self.session, body };
        let ticket = self.log.append(&self.at, append).await.map_err(FlowError::log(APPENDING))?;
        self.mark = to;
        Ok(Pending { ticket, to })
    }
}

const APPENDING: &str = "append for a requeue";

/// An append that is not durable yet.
struct Pending {
    ticket: garam_log::Ticket<Appended>,
    to: u128,
}

impl Pending {
    async fn wait(self) -> Result<(), Failure> {
        match self.ticket.wait().await.map_err(FlowError::log(APPENDING))? {
            Appended::Durable { mark, .. } if mark == self.to => Ok(()),
            Appended::Stale => Err(FlowError::QuarantineTaken.into()),
            Appended::Durable { mark, .. }
            | Appended::Repeat { mark }
            | Appended::Reposition { mark, .. } => {
                Err(FlowError::QuarantineMark { expected: self.to, found: mark }.into())
            }
        }
    }
}

fn own_claim(stream: StreamName, origin: OriginId, source: &str) -> Claim {
    let mut key = origin.agent.0.to_vec();
    key.extend_from_slice(&origin.generation.0);
    Claim {
        stream,
        origin,
        host: "garam".into(),
        source: SourceName::new(source).expect("a valid name"),
        lineage: LineageId(xxh3_64(&key)),
        descriptor: Descriptor::Producer { key },
        session: SessionId(0),
        from: 0,
        reason: ClaimReason::New,
        source_epoch: 0,
    }
}

/// What Garam wrote itself is no larger than what agents may send.
fn limits() -> DecodeLimits {
    DecodeLimits::default()
}
