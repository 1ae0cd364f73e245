//! What the engine owes every SQL destination, and what a database may say in an error.
//!
//! In: a batch, an error of the driver. Out: the broken rule, or words for an operator that show no row.

use garam_stage::StagedBatch;

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

/// The database's own message: it names table, column and constraint. Further details would show the row.
pub(crate) fn own_words(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => error.message().chars().take(300).collect(),
        None => error.to_string(),
    }
}
