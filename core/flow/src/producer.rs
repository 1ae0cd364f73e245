//! An origin of Garam's own: who writes into the log what no agent has sent.
//!
//! In: a claim, then blocks and advances. Out: tickets. Promise: nothing is appended before the claim is durable; an older
//! claimant of the same origin can add nothing behind it; what is appended begins exactly at the mark, and an answer that
//! says otherwise is an error ([`NotAppended`]), never a retry.

use bytes::Bytes;
use garam_log::{Append, AppendBody, Appended, Claim, Log, LogError, Ticket};
use garam_proto::message::ClaimReason;
use garam_proto::{
    BlockHeader, BlockKind, Codec, Descriptor, LineageId, OriginId, PartitionId, SessionId,
    SourceName, StreamName,
};

/// One origin that this session has claimed.
pub(crate) struct Producer {
    pub(crate) at: PartitionId,
    origin: OriginId,
    pub(crate) session: SessionId,
    /// Behind what was appended last, durable or on its way.
    pub(crate) mark: u128,
}

/// Records with their positions, packed and perhaps compressed.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) to: u128,
    pub(crate) records: u32,
    pub(crate) codec: Codec,
    pub(crate) raw_len: usize,
    pub(crate) payload: Bytes,
}

/// Why the log did not take an append as it was meant.
#[derive(Debug)]
pub(crate) enum NotAppended {
    Log(LogError),
    /// A newer claim exists.
    Stale,
    Mark {
        expected: u128,
        found: u128,
    },
}

/// An append that is not durable yet.
pub(crate) struct Pending {
    ticket: Ticket<Appended>,
    to: u128,
}

/// A session of its own for whoever claims.
pub(crate) fn new_session() -> Result<SessionId, getrandom::Error> {
    getrandom::u64().map(SessionId)
}

/// The claim of an origin that Garam writes itself. The lineage says in which partition a new one begins.
pub(crate) fn own_claim(
    stream: StreamName,
    origin: OriginId,
    source: &str,
    lineage: LineageId,
    session: SessionId,
) -> Claim {
    let mut key = origin.agent.0.to_vec();
    key.extend_from_slice(&origin.generation.0);
    Claim {
        stream,
        origin,
        host: "garam".into(),
        source: SourceName::new(source).expect("a valid name"),
        lineage,
        descriptor: Descriptor::Producer { key },
        session,
        from: 0,
        reason: ClaimReason::New,
        source_epoch: 0,
    }
}

impl Producer {
    /// Returns once the claim is durable, with what the origin's newest entry said about resuming.
    pub(crate) async fn claim(
        log: &dyn Log,
        claim: Claim,
    ) -> Result<(Self, Option<Vec<u8>>), LogError> {
        let (origin, session) = (claim.origin, claim.session);
        let claimed = log.claim(claim).await?.wait().await?;
        let producer = Self { at: claimed.partition, origin, session, mark: claimed.state.mark };
        Ok((producer, claimed.state.resume))
    }

    /// Enqueues a block of records from the mark on.
    pub(crate) async fn append(
        &mut self,
        log: &dyn Log,
        packed: Packed,
        resume: Option<Vec<u8>>,
        now_us: i64,
    ) -> Result<Pending, NotAppended> {
        let len = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let Packed { to, records, codec, raw_len, payload } = packed;
        let header = BlockHeader {
            origin: self.origin,
            session: self.session,
            from: self.mark,
            to,
            records,
            kind: BlockKind::Records,
            flags: 0,
            codec,
            raw_len: len(raw_len),
            payload_len: len(payload.len()),
            payload_crc: crc32c::crc32c(&payload),
            ingest_time_us: now_us,
            tail_hash: 0,
            resume,
        };
        self.enqueue(log, AppendBody::Block { header, payload }, to).await
    }

    /// Enqueues an entry without records up to `to`.
    pub(crate) async fn advance(
        &mut self,
        log: &dyn Log,
        to: u128,
        resume: Vec<u8>,
    ) -> Result<Pending, NotAppended> {
        let (from, resume) = (self.mark, Some(resume));
        self.enqueue(log, AppendBody::Advance { from, to, tail_hash: 0, resume }, to).await
    }

    async fn enqueue(
        &mut self,
        log: &dyn Log,
        body: AppendBody,
        to: u128,
    ) -> Result<Pending, NotAppended> {
        let append = Append { origin: self.origin, session: self.session, body };
        let ticket = log.append(&self.at, append).await.map_err(NotAppended::Log)?;
        self.mark = to;
        Ok(Pending { ticket, to })
    }
}

impl Pending {
    /// Returns once it is durable; gives its offset.
    pub(crate) async fn wait(self) -> Result<garam_proto::LogOffset, NotAppended> {
        match self.ticket.wait().await.map_err(NotAppended::Log)? {
            Appended::Durable { offset, mark } if mark == self.to => Ok(offset),
            Appended::Stale => Err(NotAppended::Stale),
            Appended::Durable { mark, .. }
            | Appended::Repeat { mark }
            | Appended::Reposition { mark, .. } => {
                Err(NotAppended::Mark { expected: self.to, found: mark })
            }
        }
    }
}

impl Packed {
    /// A payload as it is.
    pub(crate) fn plain(to: u128, (payload, records): (Vec<u8>, u32)) -> Self {
        let raw_len = payload.len();
        Self { to, records, codec: Codec::None, raw_len, payload: payload.into() }
    }
}
