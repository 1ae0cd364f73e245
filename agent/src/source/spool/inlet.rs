//! The way into a spool, for whoever listens.
//!
//! In: batches of whole lines. Out: the same in the writer's queue, which is short. Promise: [`Inlet::put`] waits while the
//! spool is full, so that whoever sends waits too; [`Inlet::offer`] does not, and counts what it drops.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Spool;
use super::counts::add;

/// Lines, each with its end.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub messages: u64,
}

/// Clones lead into the same spool.
#[derive(Debug, Clone)]
pub struct Inlet {
    pub spool: Arc<Spool>,
    pub(super) queue: mpsc::Sender<Batch>,
}

impl Batch {
    /// Batches are handed on when they have about this size.
    pub const ENOUGH: usize = 64 * 1024;

    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }
}

impl Inlet {
    /// Waits until there is room.
    pub async fn put(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let counts = &self.spool.counts;
        add(&counts.received, batch.messages);
        // The writer ends after everybody who holds an inlet.
        self.queue.send(batch).await.ok();
    }

    /// Waits for the writer, but not for room.
    pub async fn offer(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let counts = &self.spool.counts;
        add(&counts.received, batch.messages);
        let mut full = self.spool.full.subscribe();
        let permit = tokio::select! {
            biased;
            _ = full.wait_for(|full| *full) => None,
            permit = self.queue.reserve() => permit.ok(),
        };
        match permit {
            Some(permit) => permit.send(batch),
            None => add(&counts.dropped_full, batch.messages),
        }
    }
}
