//! The home of every measured claim: `garam-soak bench NAME`.
//!
//! A benchmark runs the real binaries beside this program, on a folder of its own, and prints figures; it judges nothing and
//! asserts no time. Figures from debug builds are labelled as such on stderr.

mod corpus;
mod ship;

use std::path::Path;

use crate::cli::say;
use crate::ground::Programs;
pub(crate) use ship::Figures;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// From a file over mutual TLS to a durable acknowledgement: processor time, memory, delay
    Ship(ship::Args),
}

pub(crate) async fn run(verb: Verb, bin_dir: Option<&Path>) -> anyhow::Result<Figures> {
    let programs = Programs::find(bin_dir)?;
    if cfg!(debug_assertions) {
        say("this is a debug build: build with --release for figures worth writing down");
    }
    match verb {
        Verb::Ship(args) => ship::run(args, programs).await,
    }
}
