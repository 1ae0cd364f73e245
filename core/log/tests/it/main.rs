//! The log as its users meet it, on real files.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod basics;
mod branch;
mod damage;
mod detach;
mod faults;
mod flips;
mod format;
mod golden;
mod kit;
mod model;
mod power;
mod repair;
mod reserve;
mod retention;
mod room;
mod world;
