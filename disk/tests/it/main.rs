//! The seam, on real files.
#![forbid(unsafe_code)]

mod real;
