//! What a row change says: the row before and the row after, and what happened in between.
//!
//! In: one record, a JSON object in Debezium's envelope, alone or as the `payload` beside its `schema`. Out: the operation, the raw
//! text of the row before and after, and when the source made it. Promise: a change of another table is told apart before its
//! row is looked at; nothing is guessed: an operation that is not known is put aside.
//! Not here: the row's values (`members`, `value`), whether a key changed (`refiner`).
//!
//! ```text
//! {"op": "c" | "r" | "u" | "d" | "t",      created, read by a snapshot, updated, deleted, truncated
//!  "before": {…} | null, "after": {…} | null,
//!  "source": {"db": …, "schema": …, "table": …, "ts_ms": …}, "ts_ms": …}
//! ```

use std::borrow::Cow;

use garam_stage::{Contract, DropReason, Op, QuarantineReason};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::members::why_no_object;
use crate::reject::{Reject, shown};

/// The value of a column that a source did not read because it did not change.
const UNAVAILABLE: &str = "\"__debezium_unavailable_value\"";

/// What a record says.
pub(crate) enum Told<'a> {
    Change(Change<'a>),
    /// Nothing about the rows of this stream.
    Nothing(DropReason),
}

/// Rows as raw JSON objects.
pub(crate) struct Change<'a> {
    pub(crate) op: Op,
    pub(crate) before: Option<&'a str>,
    pub(crate) after: Option<&'a str>,
    /// When the source made it, microseconds since 1970.
    pub(crate) time_us: Option<i64>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
    ts_ms: Option<i64>,
    /// The whole of it once more, where it travels beside its schema.
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    db: Option<Cow<'a, str>>,
    #[serde(borrow)]
    schema: Option<Cow<'a, str>>,
    #[serde(borrow)]
    table: Option<Cow<'a, str>>,
    ts_ms: Option<i64>,
}

/// Tells `null` from absent.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Takes a record apart.
pub(crate) fn read<'a>(contract: &Contract, text: &'a str) -> Result<Told<'a>, Reject> {
    let tombstone = |text: &str| text.trim_ascii() == "null";
    if tombstone(text) {
        return Ok(Told::Nothing(DropReason::Tombstone));
    }
    let mut envelope = Envelope::read(text)?;
    if let (None, Some(payload)) = (&envelope.op, envelope.payload) {
        if tombstone(payload.get()) {
            return Ok(Told::Nothing(DropReason::Tombstone));
        }
        envelope = Envelope::read(payload.get())?;
    }
    let Envelope { op, before, after, source, ts_ms, payload: _ } = envelope;
    let tables = &contract.reading.tables;
    if !tables.is_empty() {
        let named = source.as_ref().filter(|source| source.table.is_some());
        let named = named.ok_or_else(|| {
            shape("source.table is missing, and the contract takes the changes of some tables")
        })?;
        if !tables.iter().any(|table| named.is_of(table)) {
            return Ok(Told::Nothing(DropReason::Filtered));
        }
    }
    let op = match op.as_deref() {
        Some("c" | "r") => Op::Insert,
        Some("u") => Op::Update,
        Some("d") => Op::Delete,
        Some("t") => Op::Truncate,
        Some(other) => {
            return Err(shape(format!("op {:?} is none of c, r, u, d, t", shown(other))));
        }
        None => return Err(shape("\"op\" is missing: this is no row change")),
    };
    let made = source.and_then(|source| source.ts_ms).filter(|ms| *ms > 0).or(ts_ms);
    let time_us = made.and_then(|ms| ms.checked_mul(1000));
    let (before, after) = (before.map(RawValue::get), after.map(RawValue::get));
    Ok(Told::Change(Change { op, before, after, time_us }))
}

/// Whether the source says what a column holds, be it null.
pub(crate) fn is_said(raw: Option<&str>) -> bool {
    raw.is_some_and(|raw| raw != UNAVAILABLE)
}

pub(crate) fn shape(detail: impl Into<String>) -> Reject {
    Reject::new(QuarantineReason::Shape, detail.into())
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Self, Reject> {
        serde_json::from_str(text).map_err(|error| match why_no_object(text, &error) {
            // It is an object, but none of a change.
            _ if error.is_data() && text.trim_ascii_start().starts_with('{') => {
                shape(format!("no row change: {error}"))
            }
            why => why,
        })
    }
}

impl Source<'_> {
    /// Whether `name` names its table: with schema, database or both, or without.
    fn is_of(&self, name: &str) -> bool {
        let Some(table) = self.table.as_deref() else { return false };
        let Some(before) = name.strip_suffix(table) else { return false };
        let Some(before) = before.strip_suffix('.') else { return before.is_empty() };
        let (db, schema) = (self.db.as_deref(), self.schema.as_deref());
        [db, schema].into_iter().flatten().any(|one| one == before)
            || matches!((db, schema), (Some(db), Some(schema)) if format!("{db}.{schema}") == before)
    }
}
