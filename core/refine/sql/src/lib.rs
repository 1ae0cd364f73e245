//! Refines rows by a pipeline's SQL: `select … from input …`, one record at a time, planned once.
//!
//! In: the SQL text and the refiner by contract whose rows it reads. Out: a [`garam_stage::Refiner`] with the result's schema.
//! Promise: the SQL is row-local, so the rows of a batch are those of its records one by one, on replay too; `sources` is exact,
//! rows that a filter leaves out are dropped as `filtered`; a record on which the SQL fails is put aside as `sql`, its
//! neighbours are not. What cannot keep this promise is refused before anything is read, with what to do.
//! Not here: parsing by contract (`garam-refine`), whether a destination takes the result (`sink`).
//!
//! Reading order: [`statement`] (what may be written) → [`library`] (the functions) → [`logical`] (text into a plan) → [`steps`]
//! (the plan as steps over one batch) → [`output`] (names and types of the result) → [`refiner`] (the loop). Beside: [`dimension`] (tables to join), [`error`].
#![forbid(unsafe_code)]

mod dimension;
mod error;
mod library;
mod logical;
mod output;
mod refiner;
mod statement;
mod steps;

pub use dimension::Dimensions;
pub use error::Unplannable;
pub use refiner::{SEMANTICS, SqlRefiner};

/// The table that a pipeline's SQL reads: the rows by the stream's contract.
pub const INPUT: &str = "input";
