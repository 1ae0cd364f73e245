//! Checks of the whole repository, and of the programs driven from outside.
#![forbid(unsafe_code)]

mod canaries;
mod tidy;
