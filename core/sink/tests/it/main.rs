//! The destinations against real databases: SQLite's at the top, SQL servers in `servers`, and in a folder each what only one has.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod changes;
mod config;
mod cursor;
mod existing;
mod fixture;
mod mysql;
mod postgres;
mod proxy;
mod query;
mod refusal;
mod servers;
mod shards;
mod testbed;
mod write;
