//! The log as its users meet it, on real files.

mod basics;
mod damage;
mod faults;
mod format;
mod kit;
mod model;
mod retention;
mod world;
