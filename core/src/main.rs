//! The `garam` binary: the core and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    garam_core::cli::main()
}
