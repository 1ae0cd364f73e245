//! A cursor as a row of an SQL table: what every database stores of it, in which order, and how it is believed again.
//!
//! In: a cursor, or a stored row as its database reads it. Out: the values after the key, bound in the order of the columns;
//! or a checked cursor. Promise: numbers of 64 bits fit or are refused; a row that somebody edited by hand is told, never
//! guessed at. Not here: the statements and the types of the columns (each database's `cursors`).

use std::collections::BTreeMap;
use std::str::FromStr;

use garam_proto::{Incarnation, LogOffset, PipelineId};
use garam_stage::{Counters, Cursor, CursorKey, PlanId, SlotRange};
use sqlx::query::Query;
use sqlx::{Database, Encode, Type};

/// A number of a cursor that the database's integers cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}, above what a signed integer of 64 bits holds")]
pub struct TooLarge {
    pub what: &'static str,
    pub value: u64,
}

pub(crate) fn signed(what: &'static str, value: u64) -> Result<i64, TooLarge> {
    i64::try_from(value).map_err(|_| TooLarge { what, value })
}

/// Binds everything behind the key.
pub(crate) fn bind_state<'q, DB: Database>(
    query: Query<'q, DB, DB::Arguments>,
    cursor: &Cursor,
) -> Result<Query<'q, DB, DB::Arguments>, TooLarge>
where
    i64: Encode<'q, DB> + Type<DB> + 'q,
    String: Encode<'q, DB> + Type<DB> + 'q,
{
    let counters = &cursor.counters;
    let dropped = serde_json::Value::from_iter(
        counters.dropped.iter().map(|(reason, count)| (reason.clone(), *count)),
    );
    Ok(query
        .bind(cursor.incarnation.to_string())
        .bind(signed("the cursor's offset", cursor.next.0)?)
        .bind(cursor.fingerprint.cast_signed())
        .bind(signed("the cursor's epoch", cursor.epoch)?)
        .bind(cursor.plan.0.cast_signed())
        .bind(i64::from(cursor.slot_map_epoch))
        .bind(signed("the quarantine's offset", cursor.quarantine_next.0)?)
        .bind(signed("the count of records", counters.records_in)?)
        .bind(signed("the count of delivered records", counters.delivered)?)
        .bind(signed("the count of quarantined records", counters.quarantined)?)
        .bind(dropped.to_string())
        .bind(signed("the size of gaps", counters.gap_units)?)
        .bind(signed("the count of gaps", counters.gaps)?))
}

/// A stored row, column by column.
pub(crate) trait StoredRow {
    type Error;

    fn integer(&self, column: &'static str) -> Result<i64, Self::Error>;
    fn text(&self, column: &'static str) -> Result<String, Self::Error>;
    /// What is said of a value that no cursor has.
    fn wrong(&self, column: &'static str, found: String) -> Self::Error;

    fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, Self::Error> {
        let value = self.integer(column)?;
        T::try_from(value).map_err(|_| self.wrong(column, value.to_string()))
    }

    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, Self::Error> {
        let text = self.text(column)?;
        text.parse().map_err(|_| self.wrong(column, text))
    }

    fn dropped(&self) -> Result<BTreeMap<String, u64>, Self::Error> {
        let text = self.text("dropped")?;
        serde_json::from_str(&text).map_err(|_| self.wrong("dropped", text))
    }

    fn cursor(&self) -> Result<Cursor, Self::Error> {
        Ok(Cursor {
            key: CursorKey {
                pipeline: self.parsed::<PipelineId>("pipeline")?,
                partition: self.number("partition")?,
                slots: SlotRange {
                    first: self.number("slot_first")?,
                    last: self.number("slot_last")?,
                },
            },
            incarnation: self.parsed::<Incarnation>("incarnation")?,
            next: LogOffset(self.number("next")?),
            fingerprint: self.integer("fingerprint")?.cast_unsigned(),
            epoch: self.number("epoch")?,
            plan: PlanId(self.integer("plan")?.cast_unsigned()),
            slot_map_epoch: self.number("slot_map_epoch")?,
            quarantine_next: LogOffset(self.number("quarantine_next")?),
            counters: Counters {
                records_in: self.number("records_in")?,
                delivered: self.number("delivered")?,
                quarantined: self.number("quarantined")?,
                dropped: self.dropped()?,
                gap_units: self.number("gap_units")?,
                gaps: self.number("gaps")?,
            },
        })
    }
}
