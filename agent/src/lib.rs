//! The agent: tails files on a host, takes in syslog and the journal, and ships it all, compressed and acknowledged, to the core.
//!
//! ```text
//!             files ─► source ─► engine ─► compress ─► ship ═mTLS═► core
//! sockets, journal ─► spool ┘     ▲  │                  │
//!                      checkpoint ┴──┘◄── marks ────────┘
//! ```
//!
//! In: a configuration and the files it names. Out: blocks on a connection, a checkpoint, a status socket.
//! Promise: a byte counts as shipped only when the core says it is on stable storage; until then the file itself is the
//! buffer, and whatever is lost on the way is read again. What can no longer be read is reported as a gap, never skipped.
//! Threads: `source` and `engine` run on one thread that may block on disks, `compress` on another, sockets on the reactor.
//! Not here: what a record means (the core's contract decides), a second copy of what can be read again.
#![forbid(unsafe_code)]

pub mod block;
pub mod checkpoint;
pub mod cli;
pub mod compress;
pub mod config;
pub mod engine;
pub mod enrol;
pub mod error;
pub mod fsck;
pub mod identity;
pub mod lines;
pub mod metrics;
pub mod run;
pub mod ship;
pub mod source;
pub mod status;
pub mod tls;
