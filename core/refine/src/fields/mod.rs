//! Takes a line of text apart into named fields, one file per format.
//!
//! In: the text of one record. Out: for each column of the contract the text of its field, borrowed where it stands as it is
//! meant, and what the contract does not know, by its policy. Promise: one pass; a field that occurs twice is refused: which
//! was meant cannot be known; foreign text never panics.
//! Not here: what a value means ([`crate::text`]), JSON ([`crate::members`]).

mod access;
mod delimited;
mod grok;
mod logfmt;
mod pattern;
mod syslog;

use std::borrow::Cow;

use garam_stage::{Contract, DropReason, Format, QuarantineReason, UnknownColumns};

use crate::error::Unusable;
use crate::names::Names;
use crate::reject::{Reject, shown};
use delimited::Cells;
use pattern::Pattern;

/// How the records of a stream are taken apart.
#[derive(Debug)]
pub(crate) enum Splitter {
    Logfmt,
    Cells(Cells),
    Access { is_combined: bool },
    Syslog,
    Cri,
    Pattern(Pattern),
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Record,
    /// Nothing to deliver.
    Dropped(DropReason),
}

/// The fields of one record. Reused from record to record.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    /// By column; `None` when absent, `Some(None)` when the record says that there is no value.
    values: Vec<Option<Option<Cow<'a, str>>>>,
    /// Fields that are no column, where they are kept.
    rest: Vec<(String, Option<Cow<'a, str>>)>,
    hint: usize,
}

impl Splitter {
    /// None for formats that are taken apart otherwise.
    pub(crate) fn of(contract: &Contract, names: &Names) -> Result<Option<Self>, Unusable> {
        Ok(Some(match contract.format {
            Format::Line | Format::Json | Format::Changes => return Ok(None),
            Format::Logfmt => Self::Logfmt,
            Format::Csv => Self::Cells(Cells::csv(&contract.reading)),
            Format::Tsv => Self::Cells(Cells::tsv(&contract.reading)),
            Format::Common => Self::Access { is_combined: false },
            Format::Combined => Self::Access { is_combined: true },
            Format::Syslog => Self::Syslog,
            Format::Cri => Self::Cri,
            Format::Regex | Format::Grok => Self::Pattern(Pattern::of(contract, names)?),
        }))
    }

    /// Splits a record. After an error the content is undefined; the next call clears it.
    pub(crate) fn split<'a>(
        &self,
        names: &Names,
        text: &'a str,
        into: &mut Fields<'a>,
    ) -> Result<Line, Reject> {
        into.clear(names);
        let mut put = |name: &str, value| into.put(names, name, value);
        match self {
            Self::Logfmt => logfmt::split(text, put)?,
            Self::Cells(cells) => return cells.split(text, put),
            Self::Access { is_combined } => access::split(text, *is_combined, put)?,
            Self::Syslog => syslog::split(text, put)?,
            Self::Cri => cri(text, put)?,
            Self::Pattern(pattern) => pattern.split(text, &mut put)?,
        }
        Ok(Line::Record)
    }
}

impl<'a> Fields<'a> {
    fn clear(&mut self, names: &Names) {
        self.values.clear();
        self.values.resize(names.columns.len(), None);
        self.rest.clear();
        self.hint = 0;
    }

    /// Keeps the text of a column that something else stands in for.
    pub(crate) fn keep(&mut self, names: &Names, column: usize, text: Option<Cow<'a, str>>) {
        if let (UnknownColumns::Keep, Some(name)) = (names.unknown, names.columns.get(column))
            && !self.rest.iter().any(|(known, _)| known == name)
        {
            self.rest.push((name.clone(), text));
        }
    }

    /// Takes a column's text out.
    pub(crate) fn take(&mut self, column: usize) -> Option<Cow<'a, str>> {
        self.values.get_mut(column).and_then(Option::take).flatten()
    }

    /// The fields that are no column, as the text of an object; `None` when there are none.
    pub(crate) fn rest(&self) -> Option<String> {
        if self.rest.is_empty() {
            return None;
        }
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let member = |(name, value): &(String, Option<Cow<'_, str>>)| {
            format!("{}:{}", text(name), value.as_deref().map_or("null".to_owned(), text))
        };
        Some(format!("{{{}}}", self.rest.iter().map(member).collect::<Vec<_>>().join(",")))
    }

    fn put(
        &mut self,
        names: &Names,
        name: &str,
        value: Option<Cow<'a, str>>,
    ) -> Result<(), Reject> {
        if let Some(column) = names.find(self.hint, name) {
            self.hint = column + 1;
            let slot = self.values.get_mut(column);
            return match slot.map(|slot| slot.replace(value)) {
                Some(Some(_)) => Err(twice(name)),
                _ => Ok(()),
            };
        }
        match names.unknown {
            UnknownColumns::Keep if self.rest.iter().any(|(known, _)| known == name) => {
                Err(twice(name))
            }
            UnknownColumns::Keep => {
                if self.rest.len() == MOST_UNKNOWN {
                    let detail = format!("more than {MOST_UNKNOWN} fields are no column");
                    return Err(Reject::new(QuarantineReason::Shape, detail));
                }
                self.rest.push((name.to_owned(), value));
                Ok(())
            }
            UnknownColumns::Drop => Ok(()),
            UnknownColumns::Quarantine => {
                let detail = format!("field {:?} is no column of the contract", shown(name));
                Err(Reject::new(QuarantineReason::UnknownColumn, detail))
            }
        }
    }
}

/// A line's keys and values, where it is logfmt.
pub(crate) fn logfmt_of(line: &str) -> Option<Vec<(String, Option<String>)>> {
    let mut found = Vec::new();
    let put = |name: &str, text: Option<Cow<'_, str>>| {
        found.push((name.to_owned(), text.map(Cow::into_owned)));
        Ok(())
    };
    logfmt::split(line, put).is_ok().then_some(found)
}

/// A line's cells as `csv` has them, or without a delimiter as `tsv` has them; `None` where it is no such line.
pub fn cells_of(line: &str, delimiter: Option<char>) -> Option<Vec<Option<String>>> {
    delimited::cells_of(line, delimiter)
}

/// Bounds what a hostile record costs.
const MOST_UNKNOWN: usize = 1_000;

fn twice(name: &str) -> Reject {
    let detail = format!("field {:?} occurs twice", shown(name));
    Reject::new(QuarantineReason::Shape, detail)
}

fn syntax(detail: impl Into<String>) -> Reject {
    Reject::new(QuarantineReason::Syntax, detail)
}

/// `2026-11-23T23:24:04.123456789Z stdout F text`
fn cri<'a>(
    text: &'a str,
    mut put: impl FnMut(&str, Option<Cow<'a, str>>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let mut parts = text.splitn(4, ' ');
    for name in ["time", "stream", "logtag", "message"] {
        let part = parts.next().ok_or_else(|| syntax(format!("there is no {name}")))?;
        put(name, Some(Cow::Borrowed(part)))?;
    }
    Ok(())
}
