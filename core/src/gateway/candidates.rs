//! Answers an agent that lost its state: which of its origins a file could be. Changes nothing.
//!
//! The core narrows, the agent decides: only it can read the file back.

use std::cmp::Reverse;

use garam_log::{Log, LogError, OriginState};
use garam_proto::message::{self as m, Candidate};
use garam_proto::{AgentId, Descriptor, FileMatch};

/// Bytes that the candidates of one `OpenAck` may take: well below the largest header.
const OPEN_ACK_BYTES: usize = 160 * 1024;

/// Answers every query of an `Open`, in its order.
///
/// A log that cannot tell is an error, never an empty list: the agent would take a file it has shipped for a new one.
pub(super) fn answer(
    log: &dyn Log,
    agent: AgentId,
    open: &m::Open,
) -> Result<m::OpenAck, LogError> {
    let share = OPEN_ACK_BYTES / open.queries.len().max(1);
    let candidates = open.queries.iter().map(|query| likeliest(log, agent, query, share));
    Ok(m::OpenAck { number: open.number, candidates: candidates.collect::<Result<_, _>>()? })
}

/// The origins that may be the one asked for, the likeliest first, within `share` bytes. A file that has rotated for days
/// has many origins under one path; those of the same inode and birth come first, so the one that counts is among them.
fn likeliest(
    log: &dyn Log,
    agent: AgentId,
    query: &m::OpenQuery,
    share: usize,
) -> Result<Vec<Candidate>, LogError> {
    let mut found = match log.candidates(&query.stream, agent, &query.descriptor) {
        Ok(found) => found,
        // A stream that is not configured holds no origins; the claim that follows is told so.
        Err(LogError::UnknownStream { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    found.sort_by_key(|state| {
        (is_other(&state.descriptor, &query.descriptor), state.retired, Reverse(state.source_epoch))
    });
    let mut left = share;
    let mut fits = |state: &OriginState| {
        let size = candidate_bytes(state);
        let fits = size <= left || left == share;
        left = left.saturating_sub(size);
        fits
    };
    Ok(found.into_iter().take_while(|state| fits(state)).map(candidate).collect())
}

fn candidate(state: OriginState) -> Candidate {
    Candidate {
        generation: state.origin.generation,
        descriptor: state.descriptor,
        lineage: state.lineage,
        mark: state.mark,
        tail_hash: state.tail_hash,
        resume: state.resume,
    }
}

/// Whether a registered descriptor is surely not the one asked for, as far as the core can tell without the file.
fn is_other(registered: &Descriptor, asked: &Descriptor) -> bool {
    match (registered, asked) {
        (Descriptor::File(was), Descriptor::File(now)) => {
            was.compare(now, true) != FileMatch::Exact
        }
        (was, now) => was != now,
    }
}

/// About how many bytes a candidate takes in a message.
fn candidate_bytes(state: &OriginState) -> usize {
    128 + descriptor_bytes(&state.descriptor) + state.resume.as_ref().map_or(0, Vec::len)
}

/// What of a descriptor has no fixed length.
pub(super) fn descriptor_bytes(descriptor: &Descriptor) -> usize {
    match descriptor {
        Descriptor::File(file) => file.path.len(),
        Descriptor::Database { server, timeline } => server.len() + timeline.len(),
        Descriptor::Snapshot { table, first_key, low_watermark } => {
            table.len() + first_key.len() + low_watermark.len()
        }
        Descriptor::Producer { key } => key.len(),
    }
}
