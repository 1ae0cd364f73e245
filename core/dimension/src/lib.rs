//! Tables to join: read from files and databases, checked, kept on disk, swapped whole.
//!
//! In: `[dimension.NAME]` and what it names. Out: [`garam_stage::Snapshots`], which has the newest rows of each dimension.
//!
//! ```text
//!   file ─┐                                                        DATA_DIR/dimensions/NAME/   two generations
//!         ├─► source ─► gather ─► build ─────────────► store ─────────┘
//!   query ┘   one state  types,    key unique, order,    durable first      then ─► Snapshots (one swap)
//!             of it      bounds    id
//! ```
//!
//! Promise: one row that does not fit, a key that is there twice, or a bound that is passed refuses the whole new snapshot, with
//! the row named, and the last good one stays; what is swapped in is on disk already; after a crash at any moment one whole
//! generation is read back; equal rows are the same snapshot, so nothing is swapped where nothing changed.
//! Not here: when to read (the core's actors), joining, what becomes of a record whose key is missing.
//!
//! Reading order: [`config`] → [`shape`] (declared columns) → [`source`] → [`gather`] (records into columns) → [`build`] (into a
//! snapshot) → [`rows`] (bytes of rows) → [`store`] → [`shelf`] (all of it for one dimension) → [`error`].
#![forbid(unsafe_code)]

mod build;
mod config;
mod error;
mod gather;
mod rows;
mod shape;
mod shelf;
mod source;
mod store;
mod words;

pub use build::{Built, build};
pub use config::{DimensionConfig, DimensionPlan, FileFormat, PlanError, SourcePlan};
pub use error::DimensionError;
pub use shape::Shape;
pub use shelf::{Dimensions, Figures, Refreshed, Shelf, Trouble};
pub use source::FileSource;
pub use store::{Restored, Store};
