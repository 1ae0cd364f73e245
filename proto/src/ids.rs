//! Identifiers: newtypes, so that a bare integer stops at the codec.
//!
//! Identity comes from the certificate (`AgentId`), from randomness (`Generation`, `SessionId`, `Incarnation`) or
//! from a hash (`LineageId`); names (`StreamName`, `SourceName`) are labels that a person chose.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// All zero: never minted, used where a field is not filled yet.
            pub const NIL: Self = Self([0; 16]);
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(*uuid::Uuid::parse_str(text)?.as_bytes()))
            }
        }
    };
}

uuid_id!(
    /// Who an agent is: the UUID in the URI SAN of its certificate, never a field of a message.
    AgentId
);
uuid_id!(
    /// One life of a source: minted at random by the agent for one file identity or one server timeline.
    Generation
);
uuid_id!(
    /// The life of a log partition; offsets mean nothing without it.
    Incarnation
);
uuid_id!(
    /// The installation: a core and its log. Agents show it to the operator and refuse nothing by it.
    ClusterId
);
uuid_id!(
    /// A pipeline for ever, whatever it is called today.
    PipelineId
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number_id!(
    /// One connection of one agent: random, given out in `Welcome`, carried by every claim.
    SessionId,
    u64
);
number_id!(
    /// The number of an entry in a log partition, from 0, without holes inside an incarnation.
    LogOffset,
    u64
);
number_id!(
    /// What keeps order: a file with its rotated successors, or a database source. Hash of agent, source and path;
    /// a lineage has one partition of a stream for life.
    LineageId,
    u64
);

impl LogOffset {
    pub const ZERO: Self = Self(0);

    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One space of growing positions: what one agent reads as one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct OriginId {
    pub agent: AgentId,
    pub generation: Generation,
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.agent, self.generation)
    }
}

/// Why a text is not a usable name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a name: 1 to 128 characters of a-z, A-Z, 0-9, '.', '_', '-', and neither '.' nor '-' first"
)]
pub struct BadName {
    pub text: String,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode)]
        pub struct $name(String);

        impl $name {
            /// Checks the text: names become folder names, table values and metric labels, so only harmless
            /// characters pass.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
                let first_ok = !matches!(text.bytes().next(), None | Some(b'.' | b'-'));
                if !first_ok || text.len() > 128 || !text.bytes().all(allowed) {
                    return Err(BadName { text });
                }
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let text: String = Decode::decode(decoder)?;
                Self::new(text).map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
            }
        }

        bincode::impl_borrow_decode!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// A stream of the log. Names that begin with `_` belong to Garam (quarantine).
    StreamName
);
name!(
    /// What an agent's configuration calls a source. A label: renaming it repeats nothing.
    SourceName
);

/// One partition of a stream: where a lineage's blocks lie in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct PartitionId {
    pub stream: StreamName,
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.index)
    }
}
