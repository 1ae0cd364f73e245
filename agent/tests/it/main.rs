//! The agent's integration tests: the real binary, real files, and a scripted core over real TLS on 127.0.0.1.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "the fixtures are part of the tests: a panic is a failed test"
)]

mod agent;
mod core;
mod enrol;
mod oracle;
mod pki;

mod command_line;
mod connection;
mod fsck;
mod journal;
mod lines;
mod random;
mod reload;
mod resources;
mod rotation;
mod scenarios;
mod state;
mod syslog;
mod tailing;
mod watching;
