//! The exactly-once engine between one partition of a stream and one destination.
//!
//! In: durable entries of a [`garam_log::Log`], in order. Out: rows and the cursor they make true, in one step of a
//! [`garam_stage::Destination`]; what does not fit lies, durable, in the pipeline's quarantine stream before the cursor
//! passes it. Promise: at every cursor `records_in = delivered + quarantined + dropped`, each record exactly once,
//! whatever crashed in between and whatever the plan says after the crash.
//! Not here: what a record means (`refine`), how a database is spoken to (`sink`), when to start again (`supervise`):
//! the engine ends with a [`garam_stage::Failure`] and is started again from durable state.
//!
//! Reading order: [`Flow`] (the story) → `start` (where it may begin; `lives`, `resume` when the log is another) → `batch`, `decode`, `staging` (from entries to
//! rows) → `deliver`, `aside`, `isolate` (from rows to the cursor) → `quarantine` (what is put aside, and why that binds)
//! → `requeue` (and how it is delivered after all). Beside it `produce`: a stream of the log as a destination, and `producer`, what
//! all origins of Garam's own have in common.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod aside;
mod batch;
mod binding;
mod budget;
mod config;
mod decode;
mod deliver;
mod engine;
mod error;
mod isolate;
mod lives;
mod produce;
mod producer;
mod quarantine;
mod requeue;
mod resume;
mod staging;
mod start;
mod stats;
mod tally;

pub use budget::Budget;
pub use config::{FlowConfig, FlowLimits, Lane, REQUEUE_LANE, Start};
pub use engine::{Flow, Stopped};
pub use error::FlowError;
pub use produce::{
    CutShort, StreamDestination, StreamTarget, producer_origin, register_origin, stored_cursor,
};
pub use quarantine::{quarantine_origin, quarantine_stream};
pub use requeue::{
    Done, Name, Oldest, Request, RequestId, Taken, TakenFor, carry_out, oldest_waiting,
    requeue_stream, taken_origin,
};
pub use resume::{Standing, Unfit};
pub use stats::{FlowHooks, FlowStats, NoProgress, Progress, Waiting};
