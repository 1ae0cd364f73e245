//! Tests of the core as a whole: configuration, the door, the tree, each against the real rooms.

mod client;
mod configuration;
mod core_under_test;
mod door;
mod tree;
