//! The rooms as children of the supervision tree: each file makes the factory of one child, and nothing else.
//!
//! *The actor says when, the room says how.* A factory builds its child from durable state only, hands it to the room, says
//! when it lives and when it waits, and turns the room's failure into a fault. Not here: who restarts what (`supervise`),
//! what a room does.

pub mod admin;
pub mod dimension;
pub mod enrol;
pub mod gate;
pub mod gateway;
pub mod log;
pub mod meta;
pub mod pipeline;
pub mod replay;
pub mod requeue;
pub mod slot;

pub use slot::Slot;
