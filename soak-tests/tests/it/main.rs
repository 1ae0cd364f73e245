//! Checks of the whole repository, and of the programs driven from outside.

mod canaries;
mod tidy;
