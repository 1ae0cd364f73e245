//! What agent and core agree on, and nothing else: identifiers, blocks, codecs, frames and messages.
//!
//! In: bytes. Out: bytes. Promise: what one side encodes the other decodes to the same value; foreign bytes end in
//! a typed error, never in a panic, and never make a buffer grow beyond what was received or a stated cap.
//! Not here: sockets, clocks, files, threads. The wire is drawn in [`frame`], a block in [`block`]; `docs/protocol.md`
//! explains why they are as they are.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod bin;
pub mod block;
pub mod codec;
pub mod descriptor;
pub mod enrol;
pub mod frame;
pub mod hash;
pub mod ids;
pub mod message;
pub mod shown;

pub use bin::{Malformed, decode, encode};
pub use block::{BlockHeader, BlockKind, Record, RecordsBuilder, records};
pub use codec::{Codec, Compressor, DecodeError, DecodeLimits, decompress};
pub use descriptor::{Descriptor, FileDescriptor, FileMatch};
pub use frame::{Frame, FrameError, FrameLimits, FrameReader};
pub use ids::{
    AgentId, ClusterId, Generation, Incarnation, LineageId, LogOffset, OriginId, PartitionId,
    PipelineId, SessionId, SourceName, StreamName,
};
pub use message::Message;
