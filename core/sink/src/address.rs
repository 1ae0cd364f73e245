//! Addresses and passwords of servers: what may hold a secret never shows itself.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

/// An address that may hold a password, so it never shows itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(pub String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(..)")
    }
}

/// The one line of a file.
pub(crate) fn only_line(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
