//! What the rooms owe each other, checked from outside: contracts as written, quarantine entries as stored.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod contract;
mod quarantine;
