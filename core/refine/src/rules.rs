//! What a column has beyond its type, ready to be applied: what stands in for a value, what it may be.
//!
//! In: a parsed value, or why there is none. Out: the value that stands in the row, or why the record is put aside.
//! Promise: literals are read once, by the rules of text formats; a column without rules costs one comparison. What is
//! replaced is told, so that it can be counted and its text kept.
//! Not here: how a value is parsed (`value`, `text`).

use std::borrow::Cow;
use std::cmp::Ordering;

use garam_stage::{
    Cast, Column, ColumnType, Contract, OnBreach, QuarantineReason, TimeBounds, TimeFallback,
};
use regex::{Regex, RegexBuilder};

use crate::clock::{Clock, Time};
use crate::error::Unusable;
use crate::instant;
use crate::reject::{Reject, shown};
use crate::text;
use crate::value::Cell;

/// The rules of one column.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) constant: Option<Cell<'static>>,
    default: Option<Cell<'static>>,
    min: Option<Cell<'static>>,
    max: Option<Cell<'static>>,
    pattern: Option<Regex>,
    /// Sorted; empty allows everything.
    one_of: Vec<Cell<'static>>,
    on_breach: OnBreach,
    /// Of the event time.
    time: TimeBounds,
}

/// What a pattern may take, in bytes.
const LIMIT: usize = 1024 * 1024;
/// How many allowed values an explanation names.
const NAMED: usize = 8;

/// A value by its rules.
pub(crate) enum Judged<'a> {
    As(Cell<'a>),
    /// Something stands in for a value that broke type or rule.
    Instead(Cell<'a>),
}

impl Rule {
    /// `None` where a column takes whatever its type takes.
    pub(crate) fn of(
        contract: &Contract,
        column: &Column,
        clock: &Clock,
    ) -> Result<Option<Self>, Unusable> {
        let rules = &column.rules;
        let is_time = contract.time.as_ref() == Some(&column.name);
        let time = if is_time { contract.time_bounds } else { TimeBounds::default() };
        let plain = garam_stage::Rules { cast: rules.cast, ..Default::default() };
        if *rules == plain && time == TimeBounds::default() {
            return Ok(None);
        }
        let read = |key, text: &Option<String>| {
            text.as_ref().map(|text| literal(column, clock, key, text)).transpose()
        };
        let unreadable = |source| Unusable::ColumnPattern {
            column: column.name.clone(),
            source: Box::new(source),
        };
        let compile = |text: &String| RegexBuilder::new(text).size_limit(LIMIT).build();
        let allowed = rules.one_of.iter().map(|text| literal(column, clock, "one_of", text));
        let mut one_of = allowed.collect::<Result<Vec<_>, _>>()?;
        one_of.sort_by(order);
        let rule = Self {
            constant: read("constant", &rules.constant)?,
            default: read("default", &rules.default)?,
            min: read("min", &rules.min)?,
            max: read("max", &rules.max)?,
            pattern: rules.pattern.as_ref().map(compile).transpose().map_err(unreadable)?,
            one_of,
            on_breach: rules.on_breach,
            time,
        };
        if let Some(default) = &rule.default
            && let Err(Reject { detail, .. }) = rule.check(column, default, None)
        {
            return Err(Unusable::Literal { column: column.name.clone(), key: "default", detail });
        }
        Ok(Some(rule))
    }

    /// What stands in the row whatever the record says, or where it says nothing.
    pub(crate) fn stands_in(&self, is_absent: bool, time: Time<'_>) -> Option<Cell<'_>> {
        let absent = || self.ingest(time).or_else(|| self.default.as_ref().map(Cell::borrowed));
        let constant = self.constant.as_ref().map(Cell::borrowed);
        constant.or_else(|| if is_absent { absent() } else { None })
    }

    /// What stands in the row for what was found.
    pub(crate) fn judge<'a>(
        &'a self,
        column: &Column,
        found: Result<Cell<'a>, Reject>,
        time: Time<'_>,
    ) -> Result<Judged<'a>, Reject> {
        let why = match found {
            Ok(Cell::Null) => return Ok(Judged::As(Cell::Null)),
            Ok(cell) => match self.check(column, &cell, Some(time.ingest_us)) {
                Ok(()) => return Ok(Judged::As(cell)),
                Err(why) => why,
            },
            Err(why) => why,
        };
        let instead = match (self.ingest(time), self.on_breach) {
            (Some(ingest), _) => Some(ingest),
            (None, OnBreach::Quarantine) => None,
            (None, OnBreach::Null) => Some(Cell::Null),
            (None, OnBreach::Default) => self.default.as_ref().map(Cell::borrowed),
        };
        instead.map(Judged::Instead).ok_or(why)
    }

    fn ingest(&self, time: Time<'_>) -> Option<Cell<'static>> {
        self.time.fallback.map(|TimeFallback::Ingest| Cell::Timestamp(time.ingest_us))
    }

    fn check(
        &self,
        column: &Column,
        cell: &Cell<'_>,
        ingest_us: Option<i64>,
    ) -> Result<(), Reject> {
        let refuse = |reason, expected: String| {
            let found = cell.shown(column.kind);
            let detail = format!("column {}: expected {expected}, found {found}", column.name);
            Err(Reject::new(reason, detail))
        };
        if let Some(min) = &self.min
            && order(cell, min) == Ordering::Less
        {
            let expected = format!("at least {}", min.shown(column.kind));
            return refuse(QuarantineReason::Range, expected);
        }
        if let Some(max) = &self.max
            && order(cell, max) == Ordering::Greater
        {
            let expected = format!("at most {}", max.shown(column.kind));
            return refuse(QuarantineReason::Range, expected);
        }
        if let (Some(pattern), Cell::Text(text)) = (&self.pattern, cell)
            && !pattern.is_match(text)
        {
            let expected = format!("text like {}", shown(pattern.as_str()));
            return refuse(QuarantineReason::Pattern, expected);
        }
        if !self.one_of.is_empty()
            && self.one_of.binary_search_by(|allowed| order(allowed, cell)).is_err()
        {
            let named = self.one_of.iter().take(NAMED).map(|allowed| allowed.shown(column.kind));
            let more = if self.one_of.len() > NAMED { ", …" } else { "" };
            let expected = format!("one of {}{more}", named.collect::<Vec<_>>().join(", "));
            return refuse(QuarantineReason::NotAllowed, expected);
        }
        match (cell, ingest_us) {
            (Cell::Timestamp(micros), Some(ingest_us)) => {
                self.check_skew(column, *micros, ingest_us)
            }
            _ => Ok(()),
        }
    }

    fn check_skew(&self, column: &Column, micros: i64, ingest_us: i64) -> Result<(), Reject> {
        let bound = |key, side, bound: std::time::Duration| {
            let detail = format!(
                "column {}: {} lies {} s {side} the arrival at the gateway, {key} is {} s",
                column.name,
                instant::shown(micros),
                micros.abs_diff(ingest_us) / 1_000_000,
                bound.as_secs(),
            );
            Err(Reject::new(QuarantineReason::EventTime, detail))
        };
        let apart = u128::from(micros.abs_diff(ingest_us));
        let beyond = |limit: &std::time::Duration| apart > limit.as_micros();
        match (self.time.max_ahead.filter(beyond), self.time.max_behind.filter(beyond)) {
            (Some(limit), _) if micros > ingest_us => bound("max_ahead", "after", limit),
            (_, Some(limit)) if micros < ingest_us => bound("max_behind", "before", limit),
            _ => Ok(()),
        }
    }
}

fn literal(
    column: &Column,
    clock: &Clock,
    key: &'static str,
    text: &str,
) -> Result<Cell<'static>, Unusable> {
    let rules = garam_stage::Rules { cast: Cast::Strict, ..Default::default() };
    let plain = Column { nullable: false, rules, ..column.clone() };
    let time = Time { clock, is_event: false, ingest_us: 0 };
    let read = text::cell(&plain, Some(Cow::Owned(text.to_owned())), time);
    read.map_err(|Reject { detail, .. }| Unusable::Literal {
        column: column.name.clone(),
        key,
        detail,
    })
}

/// Of two values of one column.
fn order(a: &Cell<'_>, b: &Cell<'_>) -> Ordering {
    match (a, b) {
        (Cell::Boolean(a), Cell::Boolean(b)) => a.cmp(b),
        (Cell::SmallInt(a), Cell::SmallInt(b)) => a.cmp(b),
        (Cell::Int(a), Cell::Int(b)) | (Cell::Date(a), Cell::Date(b)) => a.cmp(b),
        (Cell::BigInt(a), Cell::BigInt(b)) | (Cell::Timestamp(a), Cell::Timestamp(b)) => a.cmp(b),
        (Cell::Real(a), Cell::Real(b)) => a.total_cmp(b),
        (Cell::Double(a), Cell::Double(b)) => a.total_cmp(b),
        (Cell::Decimal(a), Cell::Decimal(b)) => a.cmp(b),
        (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
        // Null stands in no row that is checked.
        _ => Ordering::Equal,
    }
}

impl<'a> Cell<'a> {
    /// The same value, its text borrowed.
    pub(crate) fn borrowed(&'a self) -> Self {
        match self {
            Self::Text(text) => Self::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }

    /// As the contract would spell it.
    fn shown(&self, kind: ColumnType) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Boolean(value) => value.to_string(),
            Self::SmallInt(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::BigInt(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Decimal(value) => match kind {
                ColumnType::Decimal { scale, .. } => crate::decimal::shown(*value, scale),
                _ => value.to_string(),
            },
            Self::Text(text) => format!("\"{}\"", shown(text)),
            Self::Date(days) => instant::shown_date(*days),
            Self::Timestamp(micros) => instant::shown(*micros),
        }
    }
}
