//! Exit codes: public, documented in `docs/operating.md`, the same for every verb.

use std::fmt;
use std::process::ExitCode;

use garam_meta::MetaError;
use garam_proto::shown;
use garam_stage::FailureKind;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    /// Consent is missing.
    Usage = 2,
    NotFound = 3,
    /// Unreachable or timed out.
    Unreachable = 4,
    /// Whoever asks may not.
    Denied = 5,
    /// Somebody else holds what is needed: a port, a folder.
    Conflict = 6,
    /// It runs, but not all of it.
    Degraded = 7,
    Config = 78,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code. Everything else is [`Exit::Failed`].
#[derive(Debug)]
pub(crate) struct Coded {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Coded {}

/// Wraps an error with an exit code.
pub(crate) fn coded(exit: Exit, error: impl Into<anyhow::Error>) -> anyhow::Error {
    Coded { exit, error: error.into() }.into()
}

/// Prints the error the way an operator reads it and gives its code.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    eprintln_quietly(&format!("garam: {}", in_words(error)));
    error.downcast_ref::<Coded>().map_or_else(|| of_cause(error), |coded| coded.exit)
}

/// A file of a newer version or of another program asks for the same hands, whatever verb meets it.
fn of_cause(error: &anyhow::Error) -> Exit {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<MetaError>());
    match refused.map(MetaError::kind) {
        Some(FailureKind::Config) => Exit::Config,
        _ => Exit::Failed,
    }
}

/// The error and its causes as one line, leaving out what an outer text says already.
fn in_words(error: &anyhow::Error) -> String {
    let root = error.downcast_ref::<Coded>().map_or(error, |coded| &coded.error);
    root.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// Writes to stderr, with nothing in it that steers a terminal; a closed stderr is no reason to fail.
pub(crate) fn eprintln_quietly(line: &str) {
    use std::io::Write as _;
    let _closed_stderr_is_fine = writeln!(std::io::stderr(), "{}", shown::lines(line));
}
