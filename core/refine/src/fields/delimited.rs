//! `csv` (RFC 4180, but a record is one line) and `tsv`.
//!
//! CSV: an empty cell is null, `""` an empty text. TSV: `\N` is null; `\t`, `\n`, `\r` and `\\` are escapes; an empty cell is
//! an empty text. A record with fewer or more cells than the contract has fields is refused.

use std::borrow::Cow;

use garam_stage::{DropReason, QuarantineReason, Reading};

use super::{Line, syntax};
use crate::reject::{Reject, shown};

/// How cells are told apart, and their names.
#[derive(Debug)]
pub(crate) struct Cells {
    names: Vec<String>,
    /// None: tabs and escapes.
    delimiter: Option<char>,
    header: bool,
}

type Cell<'a> = Option<Cow<'a, str>>;

impl Cells {
    pub(super) fn csv(reading: &Reading) -> Self {
        let delimiter = reading.delimiter.map_or(',', char::from);
        Self { delimiter: Some(delimiter), ..Self::tsv(reading) }
    }

    pub(super) fn tsv(reading: &Reading) -> Self {
        Self { names: reading.fields.clone(), delimiter: None, header: reading.header }
    }

    pub(super) fn split<'a>(
        &self,
        text: &'a str,
        mut put: impl FnMut(&str, Cell<'a>) -> Result<(), Reject>,
    ) -> Result<Line, Reject> {
        let mut cells = Vec::with_capacity(self.names.len());
        let mut rest = Some(text);
        while let Some(from) = rest {
            let (cell, behind) = match self.delimiter {
                Some(delimiter) => quoted_or_bare(from, delimiter)?,
                None => escaped(from)?,
            };
            cells.push(cell);
            if cells.len() > self.names.len() {
                let detail = format!("more than {} cells", self.names.len());
                return Err(Reject::new(QuarantineReason::Shape, detail));
            }
            rest = behind;
        }
        if cells.len() < self.names.len() {
            let detail = format!("{} cells, expected {}", cells.len(), self.names.len());
            return Err(Reject::new(QuarantineReason::Shape, detail));
        }
        let mut named = self.names.iter().zip(&cells);
        if self.header && named.all(|(name, cell)| cell.as_deref() == Some(name)) {
            return Ok(Line::Dropped(DropReason::Header));
        }
        for (name, cell) in self.names.iter().zip(cells) {
            put(name, cell)?;
        }
        Ok(Line::Record)
    }
}

/// All cells of a line; without a delimiter those between tabs.
pub(super) fn cells_of(line: &str, delimiter: Option<char>) -> Option<Vec<Option<String>>> {
    let (mut cells, mut rest) = (Vec::new(), Some(line));
    while let Some(from) = rest {
        let read = delimiter.map_or_else(|| escaped(from), |by| quoted_or_bare(from, by));
        let (cell, behind) = read.ok()?;
        cells.push(cell.map(Cow::into_owned));
        rest = behind;
    }
    Some(cells)
}

/// The first cell, and what stands behind its delimiter, if there is one.
fn quoted_or_bare(text: &str, delimiter: char) -> Result<(Cell<'_>, Option<&str>), Reject> {
    let Some(inside) = text.strip_prefix('"') else {
        return Ok(match text.split_once(delimiter) {
            Some((cell, behind)) => (bare(cell), Some(behind)),
            None => (bare(text), None),
        });
    };
    let mut from = 0;
    loop {
        let found = inside.get(from..).and_then(|rest| rest.find('"'));
        let Some(close) = found.map(|at| from + at) else {
            return Err(syntax("a quoted cell does not end in this line"));
        };
        let (cell, behind) = inside.split_at(close);
        let behind = behind.get(1..).unwrap_or_default();
        if behind.starts_with('"') {
            from = close + 2;
            continue;
        }
        let cell = if from == 0 { Cow::Borrowed(cell) } else { cell.replace("\"\"", "\"").into() };
        return match behind.strip_prefix(delimiter) {
            Some(behind) => Ok((Some(cell), Some(behind))),
            None if behind.is_empty() => Ok((Some(cell), None)),
            None => Err(syntax(format!("text behind a closing quote: {:?}", shown(behind)))),
        };
    }
}

fn bare(cell: &str) -> Cell<'_> {
    (!cell.is_empty()).then_some(Cow::Borrowed(cell))
}

fn escaped(text: &str) -> Result<(Cell<'_>, Option<&str>), Reject> {
    let (cell, behind) = match text.split_once('\t') {
        Some((cell, behind)) => (cell, Some(behind)),
        None => (text, None),
    };
    if cell == "\\N" {
        return Ok((None, behind));
    }
    if !cell.contains('\\') {
        return Ok((Some(Cow::Borrowed(cell)), behind));
    }
    let mut out = String::with_capacity(cell.len());
    let mut chars = cell.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('\\') => '\\',
            _ => return Err(syntax(format!("an escape is not known in {:?}", shown(cell)))),
        });
    }
    Ok((Some(Cow::Owned(out)), behind))
}
