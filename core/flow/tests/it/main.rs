//! The engine whole, against a scripted log, destination and memory that count every call as a step and can end the
//! process at any of them.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "the world's parts are tests too: they fail where they unwrap"
)]

mod crash;
mod faults;
mod oracle;
mod random;
mod requeue;
mod resume;
mod starts;
mod streams;
mod world;
