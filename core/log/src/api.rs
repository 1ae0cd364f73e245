//! What the log offers to gateway and flow: the `Log` trait, its requests and its entries.
//!
//! A request is *enqueued* (bounded, in the order of the calls) and answered through a [`Ticket`] when it is durable, so
//! that a session keeps many blocks in flight without waiting for each.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use garam_proto::message::{ClaimReason, GapReason};
use garam_proto::{
    AgentId, BlockHeader, Descriptor, Incarnation, LineageId, LogOffset, OriginId, PartitionId,
    SessionId, SourceName, StreamName,
};

/// Identifies the content of an entry across copies: CRC32C of its header bytes, then of its payload.
/// The fingerprint *at* an offset is that of the entry before it; 0 at the start of a new log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// What the log knows of an origin: the fold of all its entries (`docs/protocol.md`, "The log").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginState {
    pub origin: OriginId,
    /// Host name from the certificate of the agent, for `_host`.
    pub host: String,
    pub source: SourceName,
    pub descriptor: Descriptor,
    pub lineage: LineageId,
    pub source_epoch: u32,
    pub mark: u128,
    pub tail_hash: u64,
    /// The newest claim: only its session may append.
    pub claim: SessionId,
    pub resume: Option<Vec<u8>>,
    /// The origin is finished; its mark stays for `retain`.
    pub retired: bool,
}

/// "This session reads this origin now." For an origin the log does not know it is also the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub stream: StreamName,
    pub origin: OriginId,
    pub host: String,
    pub source: SourceName,
    pub descriptor: Descriptor,
    pub lineage: LineageId,
    pub session: SessionId,
    /// Where an unknown origin begins.
    pub from: u128,
    pub reason: ClaimReason,
    /// The largest source epoch the claimant has seen; a new origin gets one more than the largest known to anyone.
    pub source_epoch: u32,
}

/// A durable claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub partition: PartitionId,
    pub state: OriginState,
}

/// What a session adds to an origin it has claimed.
#[derive(Debug, Clone)]
pub struct Append {
    pub origin: OriginId,
    pub session: SessionId,
    pub body: AppendBody,
}

#[derive(Debug, Clone)]
pub enum AppendBody {
    /// `header.origin` and `header.session` must equal those of the request; the payload checksum has been checked.
    Block {
        header: BlockHeader,
        payload: Bytes,
    },
    /// `at_least`: the size is unknown, `to` = `from` + 1.
    Gap {
        from: u128,
        to: u128,
        at_least: bool,
        reason: GapReason,
    },
    Advance {
        from: u128,
        to: u128,
        tail_hash: u64,
        resume: Option<Vec<u8>>,
    },
    Retire {
        mark: u128,
    },
}

/// What became of an append: the verdict of the fold, given once everything before it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// On stable storage, as this entry.
    Durable { offset: LogOffset, mark: u128 },
    /// The log had it already; durable.
    Repeat { mark: u128 },
    /// It does not begin at the mark: cut again from there.
    Reposition { mark: u128, tail_hash: u64, resume: Option<Vec<u8>> },
    /// A newer claim exists: ignored, counted, not answered.
    Stale,
}

/// The answer to come for an enqueued request.
#[derive(Debug)]
pub struct Ticket<T>(pub tokio::sync::oneshot::Receiver<Result<T, LogError>>);

impl<T> Ticket<T> {
    /// Waits until the request is durable or refused.
    pub async fn wait(self) -> Result<T, LogError> {
        self.0.await.unwrap_or(Err(LogError::Closed))
    }
}

/// Where a partition begins and ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub incarnation: Incarnation,
    /// First offset still held.
    pub start: LogOffset,
    /// One past the last durable entry.
    pub end: LogOffset,
}

/// An older life of a partition, which shares its entries below `until`.
///
/// A cursor that was written under it at or below `until` is still good, when the fingerprint agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ancestor {
    pub incarnation: Incarnation,
    pub until: LogOffset,
}

/// One durable entry, with its origin as it stood when the entry was appended.
#[derive(Debug, Clone)]
pub struct Entry {
    pub offset: LogOffset,
    pub fingerprint: Fingerprint,
    /// The origin's registration; `mark` and `claim` are those after this entry.
    pub origin: Arc<OriginState>,
    pub body: EntryBody,
}

#[derive(Debug, Clone)]
pub enum EntryBody {
    /// Payload as received, still compressed.
    Block {
        header: BlockHeader,
        payload: Bytes,
    },
    Claim,
    Gap {
        from: u128,
        to: u128,
        at_least: bool,
        reason: GapReason,
    },
    Advance {
        from: u128,
        to: u128,
    },
    Retire,
}

/// Reads a partition forward. Checks the fold as it goes; never yields what is not durable.
#[async_trait]
pub trait LogReader: Send {
    /// The next entry, waiting for one to become durable. Cancel-safe: dropping the future loses nothing.
    async fn next(&mut self) -> Result<Entry, LogError>;

    /// The next entry if it is durable already. Reads ahead from disk on the calling thread at most one read buffer.
    async fn try_next(&mut self) -> Result<Option<Entry>, LogError>;

    /// The offset of the entry that comes next.
    fn position(&self) -> LogOffset;
}

/// Why a claim is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimDenied {
    #[error("partition {partition} holds {limit} live origins: raise max_origins or retire some")]
    TooManyOrigins { partition: PartitionId, limit: u32 },
    #[error("origin {origin} belongs to another stream: {stream}")]
    OtherStream { origin: OriginId, stream: StreamName },
}

/// What the log cannot do. Cloneable, since one failure answers every waiter.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("stream {stream} is not in the configuration")]
    UnknownStream { stream: StreamName },
    #[error("stream {partition} does not know origin {origin}: claim it first")]
    UnknownOrigin { partition: PartitionId, origin: OriginId },
    #[error(transparent)]
    Denied(#[from] ClaimDenied),
    /// The stream's quota is used up and a cursor pins the rest, or the disk is full: hold.
    #[error("stream {partition} is full: {why}")]
    Full { partition: PartitionId, why: String },
    /// This partition takes nothing until the core is restarted: an fsync failed, or the disk did.
    #[error("partition {partition} is stopped: {why}")]
    Stopped { partition: PartitionId, why: String },
    #[error("partition {partition} is damaged at offset {offset} ({file} byte {at}): {why}")]
    Damaged { partition: PartitionId, offset: LogOffset, file: String, at: u64, why: String },
    #[error("offset {offset} of {partition} is outside [{start}, {end}]")]
    OutOfRange { partition: PartitionId, offset: LogOffset, start: LogOffset, end: LogOffset },
    #[error("the log refuses: {why}")]
    Invalid { why: String },
    #[error("the log is closing")]
    Closed,
    #[error("cannot {action} {path}: {error}")]
    Io { action: &'static str, path: String, error: Arc<std::io::Error> },
    #[error(
        "{path} has log format {found}, this build reads up to {supported}: upgrade Garam, nothing was changed"
    )]
    NewerFormat { path: String, found: u16, supported: u16 },
    #[error(
        "log folder {path} is in use by another process: stop it, or give this core a data_dir of its own"
    )]
    Locked { path: String },
}

/// The log as its users see it: gateway and flow append, flow reads, the core trims.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// How many partitions the stream has.
    fn partitions(&self, stream: &StreamName) -> Result<u32, LogError>;

    /// Origins of this agent in the stream that may be the one described: the same file identity or the same path.
    fn candidates(
        &self,
        stream: &StreamName,
        agent: AgentId,
        descriptor: &Descriptor,
    ) -> Result<Vec<OriginState>, LogError>;

    /// Enqueues a claim behind all appends in flight. The lineage decides the partition once and for ever.
    async fn claim(&self, claim: Claim) -> Result<Ticket<Claimed>, LogError>;

    /// Enqueues an append; waits only while the queue's byte bound is reached.
    async fn append(&self, at: &PartitionId, append: Append) -> Result<Ticket<Appended>, LogError>;

    fn bounds(&self, at: &PartitionId) -> Result<Bounds, LogError>;

    /// The lives this partition branched from (restored from a backup, repaired), the newest first.
    fn ancestors(&self, at: &PartitionId) -> Result<Vec<Ancestor>, LogError>;

    /// The fingerprint at an offset in `[start, end]`: that of the entry before it.
    async fn fingerprint(
        &self,
        at: &PartitionId,
        offset: LogOffset,
    ) -> Result<Fingerprint, LogError>;

    /// A reader whose first entry is the one at `from`, which must lie in `[start, end]`.
    async fn reader(
        &self,
        at: &PartitionId,
        from: LogOffset,
    ) -> Result<Box<dyn LogReader>, LogError>;

    /// Says that `reader` (a pipeline) still needs everything from `next` on. Trimming stays below the lowest pin.
    fn pin(&self, at: &PartitionId, reader: &str, next: LogOffset);

    /// `reader` is gone: its pin no longer holds anything.
    fn unpin(&self, at: &PartitionId, reader: &str);

    /// Where `reader` stood when the stream went on without it, until it rejoins. It alone may pass what is gone as a gap
    /// without asking anybody. A reader that pins what the log still holds is waited for again.
    fn detached(&self, at: &PartitionId, reader: &str) -> Option<LogOffset>;

    /// The units (bytes of files, events of databases) of the entries from `from` up to the log's start, where the stream went
    /// on without `reader`. `None`: they were not counted.
    fn given_up(&self, at: &PartitionId, reader: &str, from: LogOffset) -> Option<u64>;

    /// `reader` stands inside the log.
    fn rejoin(&self, at: &PartitionId, reader: &str);
}
