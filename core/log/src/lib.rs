//! The durable log: the first of the two durable points, and the registry of every origin.
//!
//! In: claims, blocks, gaps and advances of origins, from sessions. Out: the same entries, in order, numbered, to readers.
//! Promise: what is answered `Durable` survives any crash; a reader sees only what is durable; an origin's entries are
//! contiguous and appear once, whoever sent them how often (`fold`).
//! Not here: sockets (gateway), what a payload means (refine), where a pipeline stands (its destination's cursor).
//!
//! Two backends stand behind [`Log`]: [`embedded`] (this crate) and Kafka (a later one).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod api;
pub mod embedded;
mod fold;
pub mod inspect;
pub mod offline;

pub use api::{
    Ancestor, Append, AppendBody, Appended, Bounds, Claim, ClaimDenied, Claimed, Entry, EntryBody,
    Fingerprint, Log, LogError, LogReader, OriginState, Ticket,
};
pub use embedded::{EmbeddedLog, LogConfig, OnFull, PartitionStats, Progress, State, StreamConfig};
