//! The SQLite destination against real database files.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod config;
mod cursor;
mod existing;
mod fixture;
mod query;
mod refusal;
mod write;
