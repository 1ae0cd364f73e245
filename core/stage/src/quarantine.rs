//! What did not fit: a record with its reason, kept as an entry of the pipeline's quarantine stream.
//!
//! Entries are *binding*: once durable, the record they name is delivered only by requeue. They lie in the log as
//! `records` blocks of the stream `_quarantine.<pipeline id>`; the position is a running number.

use bincode::{Decode, Encode};
use garam_proto::{Incarnation, LogOffset, Malformed, OriginId, StreamName};

use crate::records::RecordRef;

/// Why a record was put aside. Names are stable: they are metric labels and appear in `garam dlq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum QuarantineReason {
    /// The bytes are not valid in the stream's format (JSON syntax, UTF-8).
    Syntax,
    /// Valid, but not of the contract's shape (an array where an object is expected).
    Shape,
    /// A value does not fit its column's type.
    Type,
    /// A value fits the type but not its bounds (decimal digits, integer range).
    Range,
    /// A column declared `not null` has no value.
    MissingValue,
    /// A column the contract does not know, where it says `quarantine`.
    UnknownColumn,
    /// The event time cannot be read.
    EventTime,
    /// The record is longer than `max_record` and was cut.
    TooLong,
    /// The block's payload does not decode or does not hold what its header says: the block as a whole.
    Undecodable,
    /// The destination refused the row.
    Refused,
    /// Refining or writing it failed again and again; isolated by halving.
    Poison,
    /// A text does not match its column's pattern.
    Pattern,
    /// A value is none of those its column allows.
    NotAllowed,
    /// The pipeline's SQL fails on it.
    Sql,
    /// A dimension that the SQL joins has no row for its key.
    Unmatched,
}

impl QuarantineReason {
    /// All of them, in the order of their numbers on disk.
    pub const ALL: [Self; 15] = [
        Self::Syntax,
        Self::Shape,
        Self::Type,
        Self::Range,
        Self::MissingValue,
        Self::UnknownColumn,
        Self::EventTime,
        Self::TooLong,
        Self::Undecodable,
        Self::Refused,
        Self::Poison,
        Self::Pattern,
        Self::NotAllowed,
        Self::Sql,
        Self::Unmatched,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Shape => "shape",
            Self::Type => "type",
            Self::Range => "range",
            Self::MissingValue => "missing_value",
            Self::UnknownColumn => "unknown_column",
            Self::EventTime => "event_time",
            Self::TooLong => "too_long",
            Self::Undecodable => "undecodable",
            Self::Refused => "refused",
            Self::Poison => "poison",
            Self::Pattern => "pattern",
            Self::NotAllowed => "not_allowed",
            Self::Sql => "sql",
            Self::Unmatched => "unmatched",
        }
    }
}

impl std::str::FromStr for QuarantineReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|reason| reason.name() == text);
        found.ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("{text:?} is no reason; there are {}", all.join(", "))
        })
    }
}

/// One quarantined record, whole: it can be shown, exported and requeued without the input stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct QuarantinedRecord {
    pub stream: StreamName,
    pub partition: u32,
    /// Input incarnation; with `offset` and `index` the name of the record.
    pub incarnation: Incarnation,
    pub offset: u64,
    pub index: u32,
    pub reason: QuarantineReason,
    pub detail: String,
    /// How many records this entry stands for: 1, or the header's count for a block that does not decode.
    pub records: u32,
    pub origin: OriginId,
    pub position: u128,
    pub source_epoch: u32,
    pub ingest_time_us: i64,
    pub host: String,
    pub path: String,
    /// When it was put aside, microseconds since the epoch.
    pub time_us: i64,
    /// Length of `bytes` in the payload.
    pub bytes_len: u32,
}

/// `index` of an entry that names a whole block.
pub const WHOLE_BLOCK: u32 = u32::MAX;

impl QuarantinedRecord {
    pub fn at(&self) -> RecordRef {
        RecordRef { offset: LogOffset(self.offset), index: self.index }
    }

    /// Header length (u32 LE), header (bincode), raw bytes.
    pub fn encode(&self, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let header = garam_proto::encode("quarantined record", self)?;
        let mut out = Vec::with_capacity(4 + header.len() + bytes.len());
        out.extend_from_slice(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        Ok(out)
    }

    /// The record and its raw bytes.
    pub fn decode(encoded: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let torn = || Malformed { what: "quarantined record", why: "it is cut short".into() };
        let (len, rest) = encoded.split_first_chunk::<4>().ok_or_else(torn)?;
        let len = u32::from_le_bytes(*len) as usize;
        let header = rest.get(..len).ok_or_else(torn)?;
        let record: Self = garam_proto::decode("quarantined record", header)?;
        let bytes = rest.get(len..).unwrap_or_default();
        if bytes.len() != record.bytes_len as usize {
            return Err(torn());
        }
        Ok((record, bytes))
    }
}
