//! Parses records into Arrow rows by their stream's contract.
//!
//! In: decoded blocks ([`garam_stage::RawBlock`]) of one partition, in log order. Out: one record batch in the contract's
//! schema with the system columns behind it, and every record that broke the contract with its reason.
//! Promise: every record of the input is in exactly one of rows and bad records; no value is rounded, guessed or cut (the
//! two documented exceptions: binary floats, and fractions of a second below a microsecond); the same records give the
//! same rows on replay; foreign bytes never panic.
//! Not here: SQL, dimensions, reading the log, deciding what happens to bad records.
//!
//! Reading order: [`refiner`] (the loop) → [`members`] (a JSON object split, values untouched) or [`fields`] (a line of text
//! split) or [`changes`] (the row before and after), by [`names`] → [`value`] or [`text`] (one value by its column's type) with [`decimal`], [`instant`] and [`clock`] →
//! [`rules`] (what may stand in the row) → [`columns`] (Arrow builders) → [`reject`] (what the operator reads). Beside: [`infer`] (a contract from a sample).
#![forbid(unsafe_code)]

mod changes;
mod clock;
mod columns;
mod decimal;
mod error;
mod fields;
pub mod infer;
mod instant;
mod members;
mod names;
mod refiner;
mod reject;
mod rules;
mod sample;
mod text;
mod value;

pub use error::Unusable;
pub use fields::cells_of;
pub use refiner::{ContractRefiner, SEMANTICS};
pub use sample::sample;
