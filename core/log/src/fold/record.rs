//! What entries say, apart from payload bytes: the fold's input, and the header of each entry kind on disk.
//!
//! The order of fields is the order on disk (bincode): a field is only ever added with a new format version.

use super::SavedOrigin;
use bincode::{Decode, Encode};
use garam_proto::message::{ClaimReason, GapReason};
use garam_proto::{BlockHeader, Descriptor, LineageId, OriginId, SessionId, SourceName};

/// What an entry says. Each carries origin and session, so that every entry can be judged on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Block(BlockHeader),
    Claim(Box<ClaimRecord>),
    Gap(GapRecord),
    Advance(AdvanceRecord),
    Retire(RetireRecord),
    Loss(Box<LossRecord>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClaimRecord {
    pub origin: OriginId,
    pub session: SessionId,
    pub host: String,
    pub source: SourceName,
    pub descriptor: Descriptor,
    pub lineage: LineageId,
    pub reason: ClaimReason,
    /// The log did not know the origin: this claim registers it with mark `from` and this source epoch.
    pub registers: bool,
    pub from: u128,
    pub source_epoch: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct GapRecord {
    pub origin: OriginId,
    pub session: SessionId,
    pub from: u128,
    pub to: u128,
    pub at_least: bool,
    pub reason: GapReason,
    /// Log clock; an `at_least` gap ends its generation, and ended origins are forgotten by age.
    pub clock_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct AdvanceRecord {
    pub origin: OriginId,
    pub session: SessionId,
    pub from: u128,
    pub to: u128,
    pub tail_hash: u64,
    pub resume: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RetireRecord {
    pub origin: OriginId,
    pub session: SessionId,
    pub mark: u128,
    pub clock_ms: u64,
}

/// Stands where entries could not be read any more, written by a repair and by nobody else: the bytes `[from, after.mark)`
/// are lost, and this is the origin as it stood behind them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LossRecord {
    /// The origin's registration is among what was lost.
    pub registers: bool,
    pub from: u128,
    pub after: SavedOrigin,
}

impl Record {
    pub(crate) fn origin(&self) -> &OriginId {
        match self {
            Self::Block(block) => &block.origin,
            Self::Claim(claim) => &claim.origin,
            Self::Gap(gap) => &gap.origin,
            Self::Advance(advance) => &advance.origin,
            Self::Retire(retire) => &retire.origin,
            Self::Loss(loss) => &loss.after.origin,
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        match self {
            Self::Block(block) => block.session,
            Self::Claim(claim) => claim.session,
            Self::Gap(gap) => gap.session,
            Self::Advance(advance) => advance.session,
            Self::Retire(retire) => retire.session,
            Self::Loss(loss) => loss.after.claim,
        }
    }

    pub(crate) fn range(&self) -> (u128, u128) {
        match self {
            Self::Block(block) => (block.from, block.to),
            Self::Claim(claim) => (claim.from, claim.from),
            Self::Gap(gap) => (gap.from, gap.to),
            Self::Advance(advance) => (advance.from, advance.to),
            Self::Retire(retire) => (retire.mark, retire.mark),
            Self::Loss(loss) => (loss.from, loss.after.mark),
        }
    }

    /// What makes the record impossible whatever the state is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let (from, to) = self.range();
        match self {
            Self::Block(_) | Self::Gap(_) if to <= from => Some("the range is empty or backwards"),
            Self::Gap(gap) if gap.at_least && to - from != 1 => {
                Some("a gap of unknown size covers exactly one position")
            }
            _ if to < from => Some("the range is backwards"),
            _ => None,
        }
    }
}
