//! Dimensions from real files and real databases, kept on a disk that fails.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod config;
mod files;
mod plan;
mod queries;
mod shelf;
mod store;
#[path = "../../../sink/tests/it/testbed.rs"]
mod testbed;
