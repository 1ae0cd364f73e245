//! `garam-soak`: drives the real binaries with faults and checks every record by its id.
//!
//! ```text
//! generate ─► files ─► garam-agent ═(proxy)═► garam ─► SQLite + quarantine
//!    │                     ▲ kill, lose state   ▲ kill        │
//!    └──► book ────────────┴──── scenario ──────┴────────► oracle ─► report
//! ```
//!
//! In: a scenario, a duration, a seed. Out: one object of counts, and an exit code that is 0 only when nothing was lost,
//! repeated, reordered or altered. Promise: the product is used from outside alone (command line, files, ports), and the
//! oracle shares no code with it; what the canaries damage is found. Not here: tests of single rooms.
//! Reading order: [`scenario`] (the story) → [`generate`], [`book`] → [`ground`], [`processes`], [`proxy`] → [`database`],
//! [`oracle`]; [`bench`] stands apart.
#![forbid(unsafe_code)]

mod admin;
mod agent;
mod bench;
mod book;
mod cli;
mod database;
mod generate;
mod ground;
mod mounts;
mod oracle;
mod processes;
mod proxy;
mod rig;
mod scenario;
mod server;
mod tracer;

fn main() -> std::process::ExitCode {
    cli::main()
}
