//! What a range adds to the counters.
//!
//! In: pieces, what refining made of them, what was put aside in this run. Out: the counters of the cursor behind them.
//! Each kind is counted by itself, so that the balance is a check and not a definition.

use garam_stage::{Counters, Refined};

use crate::binding::Binding;
use crate::decode::{Content, Piece};

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

fn put_aside(piece: &Piece, fresh: &Binding) -> u64 {
    match &piece.content {
        Content::Undecodable(whole) if fresh.masks_block(piece.offset) => whole.records.into(),
        Content::Block(_) => fresh.singles(piece.offset),
        Content::Quiet | Content::Undecodable(_) => 0,
    }
}
