//! Tests of refining by SQL: what is refused and how it is told, what rows become, and that each record stands for itself.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod alone;
mod join;
mod refused;
mod rows;
mod world;
