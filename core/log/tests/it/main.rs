//! The log as its users meet it, on real files.

mod basics;
mod kit;
