//! Addresses and passwords of servers: what may hold a secret never shows itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::server_error::{OwnError, ServerError};
use crate::table::TableError;

/// An address that may hold a password, so it never shows itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Url(pub String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(..)")
    }
}

/// Where a server is, as its driver has it.
pub trait Place: FromStr + Clone {
    /// What its addresses begin with.
    const SCHEMES: [&'static str; 2];

    /// For people: never a secret.
    fn place(&self) -> String;
}

/// Where the server is.
#[derive(Debug, Clone)]
pub enum Address<P> {
    /// A file that holds the address, read at each connect.
    File(PathBuf),
    Given(Box<P>),
}

impl<P: Place> Address<P> {
    fn text<O: OwnError>(from: &str, text: &str) -> Result<Self, ServerError<O>> {
        parse(from, text).map(|given| Self::Given(Box::new(given)))
    }

    /// Of a file that holds the address, or of the address itself: exactly one of them.
    pub fn of<O: OwnError>(
        file: Option<&Path>,
        given: Option<&Url>,
    ) -> Result<Self, ServerError<O>> {
        match (file, given) {
            (Some(path), None) => Ok(Self::File(path.to_owned())),
            (None, Some(url)) => Self::text("url", &url.0),
            _ => Err(TableError::NoUrl.into()),
        }
    }

    /// For people: never a secret.
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Given(given) => given.place(),
        }
    }

    pub fn read<O: OwnError>(&self) -> Result<P, ServerError<O>> {
        match self {
            Self::Given(given) => Ok(given.as_ref().clone()),
            Self::File(path) => parse(&path.display().to_string(), &secret(path)?),
        }
    }
}

fn parse<P: Place, O: OwnError>(from: &str, text: &str) -> Result<P, ServerError<O>> {
    let wrong = || ServerError::Url { from: from.to_owned() };
    if !P::SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// The one line of a file that only few may read.
pub fn secret<O: OwnError>(path: &Path) -> Result<String, ServerError<O>> {
    only_line(path).map_err(|source| ServerError::Secret { path: path.to_owned(), source })
}

/// The one line of a file.
fn only_line(path: &Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
