//! What the writer thread is asked, and how it answers: in the order of the requests, after the sync they wait for.
//!
//! Each request carries a byte permit of the queue's bound; it is released when the request is answered or dropped.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::config::StreamConfig;
use crate::api::{Append, Appended, Claim, Claimed, LogError};

pub(crate) type Answered<T> = oneshot::Sender<Result<T, LogError>>;

pub(crate) struct Queued {
    pub request: Request,
    pub permit: OwnedSemaphorePermit,
    /// What the request counts for in a group commit.
    pub bytes: usize,
}

pub(crate) enum Request {
    Append { partition: usize, append: Append, answer: Answered<Appended> },
    Claim { claim: Box<Claim>, answer: Answered<Claimed> },
    AddStream { config: StreamConfig, answer: Answered<()> },
    ChangeStream { config: StreamConfig, answer: Answered<()> },
}

/// A request that was decided and waits for the sync.
pub(crate) enum Waiting {
    Append {
        partition: usize,
        result: Result<Appended, LogError>,
        answer: Answered<Appended>,
    },
    Claim {
        partition: usize,
        result: Result<Claimed, LogError>,
        answer: Answered<Claimed>,
    },
    /// A stream was added or changed. Answered from the state after the sync.
    Stream {
        result: Result<(), LogError>,
        answer: Answered<()>,
    },
}

/// Answers; whoever no longer waits has dropped the ticket, and nothing depends on it.
pub(crate) fn answer<T>(to: Answered<T>, result: Result<T, LogError>) {
    drop(to.send(result));
}
