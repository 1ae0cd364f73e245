//! The seam, on real files.

mod real;
