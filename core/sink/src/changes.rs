//! Row changes: whether a table obeys them, and what of a batch is written, deleted or makes the table empty. Pure.
//!
//! In: the rows' schema with the column `_op` behind all others, the mode. Out: for tables that keep one row a key what each
//! row asks for; or why the two cannot work together. A history (`append`) stores `_op` like any column and obeys nothing.
//! Promise: what lies before a truncation in a batch is neither written nor deleted, and counts as delivered: the table has
//! seen it come and go.
//! Not here: which row of a key counts (`fold`), statements (each kind's `table`).

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray as _;
use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{Field, SchemaRef};
use garam_stage::contract::{KEY_COLUMNS, NOT_NULL};
use garam_stage::{FailureKind, Op, system};
use serde::Deserialize;

use crate::mode::Mode;

/// Reason under which records are counted that would empty the table where that is to be ignored.
pub(crate) const IGNORED: &str = "ignored";

/// What a table does when its source's table is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncate {
    /// All rows go, in the transaction of the rows behind it.
    Apply,
    /// The pipeline stops and waits for a person.
    Pause,
    /// It is dropped and counted, reason `ignored`.
    Ignore,
}

/// How row changes and a table do not fit together, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    #[error(
        "mode \"{mode}\" never takes a row away, and the stream's rows are changes with deletes: use \"upsert\" or \"update\" to follow them, or \"append\" to keep them as a history"
    )]
    Mode { mode: &'static str },
    #[error(
        "a change finds its row by the key of the stream's contract: key must be all of its columns and no other, and the SQL must leave them as they are"
    )]
    Key,
    #[error("truncate has no meaning here: no row change empties this table; leave it out")]
    Alone,
    #[error(
        "version cannot be had for row changes: a deleted row leaves nothing behind that would stop an older record from bringing it back; leave version out, the order of the log decides"
    )]
    Guarded,
    #[error(
        "the source's table was emptied (truncate), and table {table} waits for a person: say truncate = \"apply\" to empty it too, or \"ignore\" to keep its rows"
    )]
    Paused { table: String },
}

impl ChangesError {
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Paused { .. } => FailureKind::Refused,
            _ => FailureKind::Config,
        }
    }
}

/// What a row asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Write,
    Delete,
    Truncate,
}

/// What each row of a batch asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acts<'a>(Option<&'a StringArray>);

/// The rows of a batch that still matter.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<usize>,
    /// The table loses all its rows before these.
    pub(crate) empties: bool,
    pub(crate) dropped: BTreeMap<usize, &'static str>,
}

/// What the table does with row changes; `None`: its rows are none, or it keeps them as a history.
pub(crate) fn obeyed(
    schema: &SchemaRef,
    mode: Mode,
    key: &[String],
    guarded: bool,
    truncate: Option<Truncate>,
) -> Result<Option<Truncate>, ChangesError> {
    let has_changes = schema.fields().last().is_some_and(|field| field.name() == system::OP);
    match mode {
        Mode::Upsert | Mode::Update if has_changes => {}
        Mode::Insert | Mode::Ignore if has_changes => {
            return Err(ChangesError::Mode { mode: mode.name() });
        }
        _ if truncate.is_some() => return Err(ChangesError::Alone),
        _ => return Ok(None),
    }
    if guarded {
        return Err(ChangesError::Guarded);
    }
    check_key(schema, key)?;
    Ok(Some(truncate.unwrap_or(Truncate::Pause)))
}

/// Whether the key is that of the contract, whatever its columns are called by now.
fn check_key(schema: &SchemaRef, key: &[String]) -> Result<(), ChangesError> {
    let mut places = BTreeSet::new();
    for name in key {
        let field = schema.field_with_name(name).map_err(|_| ChangesError::Key)?;
        places.insert(field.metadata().get(KEY_COLUMNS).cloned().ok_or(ChangesError::Key)?);
    }
    let whole = |place: &String| place.split_once('/').map(|(_, of)| of.to_owned());
    let of = places.first().and_then(whole).ok_or(ChangesError::Key)?;
    if of != places.len().to_string() {
        return Err(ChangesError::Key);
    }
    Ok(())
}

/// Whether a column of a table that obeys may be null.
pub(crate) fn is_nullable(field: &Field) -> bool {
    field.is_nullable() && !field.metadata().contains_key(NOT_NULL)
}

impl<'a> Acts<'a> {
    /// `obeys`: the table does not store them.
    pub(crate) fn of(rows: &'a RecordBatch, obeys: bool) -> Self {
        let ops = rows.column_by_name(system::OP).filter(|_| obeys);
        Self(ops.and_then(|ops| ops.as_string_opt::<i32>()))
    }

    pub(crate) fn get(self, row: usize) -> Act {
        match self.0.map(|ops| Op::of(ops.value(row))) {
            Some(Some(Op::Delete)) => Act::Delete,
            Some(Some(Op::Truncate)) => Act::Truncate,
            _ => Act::Write,
        }
    }

    /// The rows behind the last truncation, and what becomes of the others.
    pub(crate) fn kept(
        self,
        rows: usize,
        truncate: Option<Truncate>,
        table: impl Fn() -> String,
    ) -> Result<Kept, ChangesError> {
        let mut kept = Kept { rows: Vec::new(), empties: false, dropped: BTreeMap::new() };
        kept.rows.reserve(rows);
        for row in 0..rows {
            match (self.get(row), truncate) {
                (Act::Truncate, Some(Truncate::Apply)) => {
                    kept.rows.clear();
                    kept.empties = true;
                }
                (Act::Truncate, Some(Truncate::Ignore)) => {
                    kept.dropped.insert(row, IGNORED);
                }
                (Act::Truncate, _) => return Err(ChangesError::Paused { table: table() }),
                _ => kept.rows.push(row),
            }
        }
        Ok(kept)
    }
}
