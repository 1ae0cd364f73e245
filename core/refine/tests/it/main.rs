//! Refining by contract, seen from outside: bytes in, rows and reasons out.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod batch;
mod changes;
mod fields;
mod infer;
mod json;
mod line;
mod partition;
mod rules;
mod show;
