//! What a range adds to the counters, and whether the books balance.
//!
//! In: pieces, what refining made of them, what was put aside in this run. Out: the counters of the cursor behind them.
//! Each kind is counted by itself, so that the balance is a check and not a definition.

use garam_stage::{Counters, Cursor, Refined};

use crate::binding::Binding;
use crate::decode::{Content, Piece};
use crate::error::FlowError;

/// Counters behind `pieces`, as if every row were delivered.
pub(crate) fn tally(
    before: &Counters,
    pieces: &[Piece],
    staged: &Refined,
    fresh: &Binding,
) -> Counters {
    let mut counters = before.clone();
    for piece in pieces {
        counters.records_in += piece.records_in;
        counters.quarantined += piece.bound + put_aside(piece, fresh);
        if let Some(units) = piece.gap_units {
            counters.gap_units = counters.gap_units.saturating_add(units);
            counters.gaps += 1;
        }
    }
    let mut delivered = staged.sources.clone();
    delivered.dedup();
    counters.delivered += delivered.len() as u64;
    for (_, reason) in &staged.dropped {
        *counters.dropped.entry(reason.name().into()).or_default() += 1;
    }
    counters
}

/// Whether every record that came in is accounted for.
pub(crate) fn check_balance(cursor: &Cursor) -> Result<(), FlowError> {
    let counters = &cursor.counters;
    if counters.balanced() {
        return Ok(());
    }
    Err(FlowError::Unbalanced {
        next: cursor.next,
        records_in: counters.records_in,
        delivered: counters.delivered,
        quarantined: counters.quarantined,
        dropped: counters.dropped_total(),
    })
}

/// A destination may move records from delivered to dropped, nothing else.
pub(crate) fn check_stored(offered: &Cursor, stored: &Cursor) -> Result<(), FlowError> {
    let counters = stored.counters.clone();
    let expected = Cursor { counters, ..offered.clone() };
    let (theirs, ours) = (&stored.counters, &offered.counters);
    let same_sums = (theirs.records_in, theirs.quarantined, theirs.gap_units, theirs.gaps)
        == (ours.records_in, ours.quarantined, ours.gap_units, ours.gaps);
    if expected == *stored && same_sums && theirs.balanced() {
        return Ok(());
    }
    let why = format!("it was offered {offered:?} and says it stored {stored:?}");
    Err(FlowError::Destination { why })
}

fn put_aside(piece: &Piece, fresh: &Binding) -> u64 {
    match &piece.content {
        Content::Undecodable(whole) if fresh.masks_block(piece.offset) => whole.records.into(),
        Content::Block(_) => fresh.singles(piece.offset),
        Content::Quiet | Content::Undecodable(_) => 0,
    }
}
