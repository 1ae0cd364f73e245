//! Messages: what agent and core say to each other, one frame each.
//!
//! ```text
//! agent                                       core
//!   Hello ──────────────────────────────────►         who, which versions and features
//!         ◄────────────────────────────────── Welcome session, window, limits, time
//!   Open  ──────────────────────────────────►         state lost? which origins do you know for these files
//!         ◄────────────────────────────────── OpenAck candidates with mark and tail hash
//!   Claim ──────────────────────────────────►         I read this origin now
//!         ◄────────────────────────────────── ClaimAck (durable) mark, tail hash, resume, partition
//!   Push, Part, Gap, Advance, Retire ───────►         each obeys the last answer it names
//!         ◄────────────────────────────────── Ack (durable), Reposition, Hold, Throttle
//!   Ping ───────────────────────────────────►
//!         ◄────────────────────────────────── Pong
//!         ◄────────────────────────────────── RenewDue    most of your certificate's life is over
//!   Renew ──────────────────────────────────►             a new key of mine, to be signed
//!         ◄────────────────────────────────── Renewed
//!   Bye ◄───────────────────────────────────► Bye
//! ```
//!
//! A *slot* is the agent's number for an origin on this connection, chosen in its `Claim`, never reused. An *answer*
//! numbers what the core said about a slot (`ClaimAck` is answer 1, each `Reposition` one more): a push that names an
//! older answer was on its way when the core spoke, and is dropped unanswered. `docs/protocol.md` has the rules.

use bincode::{Decode, Encode};

use crate::bin::{self, Malformed};
use crate::block::BlockHeader;
use crate::descriptor::Descriptor;
use crate::frame::{Frame, encode_head};
use crate::ids::{AgentId, ClusterId, Generation, LineageId, SessionId, SourceName, StreamName};

/// First field of every `Hello`: `garam` and a NUL-free marker, so that a wrong peer is named as such.
pub const MAGIC: [u8; 8] = *b"GARAM\r\n\x1a";
/// The lowest and highest protocol version this build speaks.
pub const VERSIONS: (u16, u16) = (1, 1);
/// Capability bit of `Hello`: the agent renews its certificate when it is told that it is time. Without it a core never sends
/// [`RenewDue`], and the agent's certificate is replaced by hand.
pub const FEATURE_RENEW: u64 = 1;
/// The largest certificate request.
pub const MAX_CSR: usize = 8 * 1024;
/// The most queries in one `Open` and the most answers in one `OpenAck`: as many as fit into a header even when every
/// path is as long as a path can be (4 096 bytes).
pub const MAX_OPENS: usize = 32;
/// The most marks in one `Ack`.
pub const MAX_MARKS: usize = 4096;
/// The most bytes of one payload frame; larger payloads follow in `Part` frames.
pub const MAX_PART: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    pub magic: [u8; 8],
    pub versions: (u16, u16),
    /// Capabilities; unknown bits are ignored by the receiver.
    pub features: u64,
    /// Program and version, for people.
    pub build: String,
    /// Host name as the agent sees it, for people; identity comes from the certificate.
    pub host: String,
    /// The agent's wall clock, microseconds since the epoch: clock skew is named in errors.
    pub time_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    pub version: u16,
    pub features: u64,
    pub build: String,
    pub cluster: ClusterId,
    /// Who the certificate says you are.
    pub agent: AgentId,
    pub session: SessionId,
    pub time_us: i64,
    /// Unacknowledged payload bytes allowed per stream and partition.
    pub window: u32,
    /// Largest payload of one frame, bytes.
    pub max_part: u32,
    /// Largest record, raw bytes.
    pub max_record: u32,
}

/// "Which of my origins could this file be?" Asked when the agent has no generation for it; changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenQuery {
    pub stream: StreamName,
    pub source: SourceName,
    pub descriptor: Descriptor,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    /// Echoed in the answer.
    pub number: u64,
    pub queries: Vec<OpenQuery>,
}

/// An origin of this agent that the core knows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Candidate {
    pub generation: Generation,
    pub descriptor: Descriptor,
    pub lineage: LineageId,
    pub mark: u128,
    pub tail_hash: u64,
    pub resume: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenAck {
    pub number: u64,
    /// One list per query, in its order; empty when nothing is known.
    pub candidates: Vec<Vec<Candidate>>,
}

/// Why an origin begins where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ClaimReason {
    /// The agent knows this origin, from its checkpoint or from an `OpenAck`.
    Known,
    /// First met: `from` is the first position the source still holds.
    New,
    /// What the core holds is not what the file holds (host snapshot, clone): a new generation from the checkpoint.
    Branched,
    /// The configuration sends this source to another stream now.
    StreamChanged,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    pub slot: u32,
    pub stream: StreamName,
    pub source: SourceName,
    pub generation: Generation,
    pub descriptor: Descriptor,
    pub lineage: LineageId,
    /// Where an origin unknown to the log begins; ignored for a known one, whose mark is the answer.
    pub from: u128,
    pub reason: ClaimReason,
    /// The largest source epoch the agent has seen for this source; the answer is larger for a new generation.
    pub source_epoch: u32,
}

/// What became of a claim. Sent only once the claim is durable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ClaimOutcome {
    Granted {
        mark: u128,
        tail_hash: u64,
        resume: Option<Vec<u8>>,
        partition: u32,
        source_epoch: u32,
    },
    /// Not now (origin limit, full stream): ask again after a while.
    Held { why: String },
    /// Not at all until somebody changes something.
    Denied { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClaimAck {
    pub slot: u32,
    pub answer: u64,
    pub outcome: ClaimOutcome,
}

/// A block. The frame's payload is the block's payload, or its first part when `block.payload_len` is larger.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Push {
    pub slot: u32,
    pub answer: u64,
    pub block: BlockHeader,
}

/// The next bytes of the one block whose payload is not complete yet on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    pub slot: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SlotMark {
    pub slot: u32,
    pub mark: u128,
}

/// Everything of these slots below the marks is on stable storage.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    pub marks: Vec<SlotMark>,
}

/// "Begin again at this mark": the agent re-cuts from there, under this answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reposition {
    pub slot: u32,
    pub answer: u64,
    pub mark: u128,
    pub tail_hash: u64,
    pub resume: Option<Vec<u8>>,
}

/// Stop (or go on) reading for this stream; other streams flow.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    pub stream: StreamName,
    /// `None`: the whole stream.
    pub partition: Option<u32>,
    pub held: bool,
    pub why: String,
}

/// New flow limits for a stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Throttle {
    pub stream: StreamName,
    pub partition: Option<u32>,
    /// Unacknowledged payload bytes allowed.
    pub window: u32,
    /// How long an agent may wait to fill a block, milliseconds.
    pub linger_ms: u32,
}

/// Why bytes or events are known to be lost before they could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum GapReason {
    /// The file was truncated or its unread part was rewritten.
    Truncated,
    /// The file disappeared before it was read to its end.
    Removed,
    /// The server purged the log before it was read.
    Purged,
    /// The log went back (restored core) and the source no longer holds the bytes between.
    Restored,
    /// An operator accepted it.
    Accepted,
}

impl GapReason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Removed => "removed",
            Self::Purged => "purged",
            Self::Restored => "restored",
            Self::Accepted => "accepted",
        }
    }
}

/// `[from, to)` can never be read. `at_least`: the size is unknown, `to` = `from` + 1, and the generation ends here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Gap {
    pub slot: u32,
    pub answer: u64,
    pub from: u128,
    pub to: u128,
    pub at_least: bool,
    pub reason: GapReason,
}

/// `[from, to)` holds nothing to deliver (filtered, quiet): the mark moves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Advance {
    pub slot: u32,
    pub answer: u64,
    pub from: u128,
    pub to: u128,
    pub tail_hash: u64,
    pub resume: Option<Vec<u8>>,
}

/// The origin is finished: its file is gone and everything is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Retire {
    pub slot: u32,
    pub answer: u64,
    pub mark: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    pub nonce: u64,
}

/// Why a side ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ByeReason {
    /// Stopping as asked.
    Shutdown,
    /// No protocol version in common.
    Version,
    /// The agent may not do this.
    Denied,
    /// A newer session of the same agent took over.
    TakenOver,
    /// More than 5 takeovers in a minute: two agents use one identity.
    TakeoverStorm,
    /// The peer broke the protocol.
    Protocol,
    /// Nothing was heard for too long.
    Idle,
    /// The core cannot serve now.
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Bye {
    pub reason: ByeReason,
    pub text: String,
}

/// A frame that carries no message this build knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    #[error("frame kind {0} is unknown in this protocol version")]
    UnknownKind(u8),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{0} frame carries a payload it cannot have")]
    Payload(&'static str),
}

macro_rules! messages {
    ($($kind:literal $name:ident),* $(,)?) => {
        /// Any message. The payload of `Push` and `Part` stays in its [`Frame`].
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Message {
            $($name($name)),*
        }

        impl Message {
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),* }
            }

            /// Encodes the frame head; the caller writes `payload_len` payload bytes behind it.
            pub fn encode(&self, payload_len: u32) -> Result<Vec<u8>, Malformed> {
                self.check_counts()?;
                match self {
                    $(Self::$name(body) => {
                        let header = bin::encode(stringify!($name), body)?;
                        Ok(encode_head($kind, &header, payload_len))
                    })*
                }
            }

            /// Decodes the header of a frame.
            pub fn decode(frame: &Frame) -> Result<Self, MessageError> {
                let message = match frame.kind {
                    $($kind => Self::$name(bin::decode(stringify!($name), &frame.header)?),)*
                    other => return Err(MessageError::UnknownKind(other)),
                };
                let may_carry = matches!(message, Self::Push(_) | Self::Part(_));
                if !may_carry && !frame.payload.is_empty() {
                    return Err(MessageError::Payload(message.name()));
                }
                Ok(message)
            }
        }

        $(impl From<$name> for Message {
            fn from(body: $name) -> Self {
                Self::$name(body)
            }
        })*
    };
}

impl Message {
    /// Refuses lists that the receiver's header limit may not let through.
    fn check_counts(&self) -> Result<(), Malformed> {
        let (count, limit) = match self {
            Self::Open(open) => (open.queries.len(), MAX_OPENS),
            Self::OpenAck(ack) => (ack.candidates.len(), MAX_OPENS),
            Self::Ack(ack) => (ack.marks.len(), MAX_MARKS),
            Self::Renew(renew) => (renew.csr.len(), MAX_CSR),
            _ => return Ok(()),
        };
        if count > limit {
            let why = format!("{count} items in one message, at most {limit} are allowed");
            return Err(Malformed { what: self.name(), why });
        }
        Ok(())
    }
}

/// The answer to a `Ping`, with its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    pub nonce: u64,
}

/// Most of the agent's certificate's life is over. Sent only to agents that announced [`FEATURE_RENEW`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct RenewDue {
    /// When the certificate ends, by the core's clock.
    pub not_after_us: i64,
}

/// A key that the agent wants to change to: a PKCS #10 request (DER), signed by that key. All but the key is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Renew {
    pub csr: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RenewOutcome {
    /// The certificate with its issuer, PEM. The old one counts until this one was used.
    Issued {
        chain: String,
    },
    Refused {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Renewed {
    pub outcome: RenewOutcome,
}

messages! {
    1 Hello, 2 Welcome, 3 Open, 4 OpenAck, 5 Claim, 6 ClaimAck, 7 Push, 8 Part, 9 Ack, 10 Reposition,
    11 Hold, 12 Throttle, 13 Gap, 14 Advance, 15 Retire, 16 Ping, 17 Pong, 18 Bye, 19 RenewDue,
    20 Renew, 21 Renewed,
}

/// The version both sides speak, or why there is none.
pub fn negotiate(ours: (u16, u16), theirs: (u16, u16)) -> Result<u16, String> {
    let highest = ours.1.min(theirs.1);
    if highest < ours.0.max(theirs.0) {
        return Err(format!(
            "this side speaks protocol {} to {}, the peer {} to {}: upgrade the older one",
            ours.0, ours.1, theirs.0, theirs.1
        ));
    }
    Ok(highest)
}
