//! The `garam` binary: the core and its command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    garam_core::cli::main()
}
