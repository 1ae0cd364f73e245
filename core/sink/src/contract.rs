//! What the engine owes every SQL destination, and what a database may say in an error.
//!
//! In: a batch, an error of the driver. Out: the broken rule, or words for an operator that show no row.

use std::collections::BTreeMap;

use garam_stage::{Cursor, RecordRef, StagedBatch};

/// Which rule of [`garam_stage::Destination`] a batch breaks.
pub(crate) fn broken_rule(batch: &StagedBatch) -> Option<&'static str> {
    if batch.from.key != batch.to.key {
        Some("it begins and ends at cursors of different keys")
    } else if batch.from.epoch != batch.to.epoch {
        Some("it changes the epoch, which only a take-over may")
    } else if batch.sources.len() != batch.rows.num_rows() {
        Some("rows and sources differ in number")
    } else {
        None
    }
}

/// The cursor to store when these rows changed nothing, for these reasons: a record of which no row changed anything is not
/// delivered. `None`: the batch says it delivers fewer records than it has.
pub(crate) fn cursor_without(
    batch: &StagedBatch,
    dropped: &BTreeMap<usize, &'static str>,
) -> Option<Cursor> {
    let mut records: BTreeMap<&RecordRef, Option<&'static str>> = BTreeMap::new();
    for (row, record) in batch.sources.iter().enumerate() {
        let reason = dropped.get(&row).copied();
        let known = records.entry(record).or_insert(reason);
        *known = known.and(reason);
    }
    let mut cursor = batch.to.clone();
    let counters = &mut cursor.counters;
    for reason in records.into_values().flatten() {
        counters.delivered = counters.delivered.checked_sub(1)?;
        *counters.dropped.entry(reason.into()).or_default() += 1;
    }
    Some(cursor)
}

/// The database's own message: it names table, column and constraint. Further details would show the row.
pub(crate) fn own_words(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => error.message().chars().take(300).collect(),
        None => error.to_string(),
    }
}
