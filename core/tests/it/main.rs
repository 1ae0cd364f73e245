//! Tests of the core as a whole: configuration, the door, the tree, each against the real rooms.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod admin;
mod backup;
mod backup_crash;
mod changes;
mod client;
mod command_line;
mod configuration;
mod core_under_test;
#[cfg(feature = "sql")]
mod dimension;
mod door;
mod enrol;
mod enrolment;
mod limits;
mod mysql;
mod newer;
mod postgres;
mod recipe;
mod reload;
mod replay;
mod requeue;
mod shards;
#[cfg(feature = "sql")]
mod sql;
mod streams;
mod testbed;
mod tree;
