//! The bytes that batches in flight may hold, shared by any number of flows.
//!
//! In: how large a batch's entries are. Out: a permit that travels inside the batch and is released with it.
//! Promise: no deadlock. Only the reader waits, and only with an empty hand; what was admitted is delivered without
//! asking again. An entry larger than the whole budget takes all of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound on raw and compressed bytes between log and destination.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// `bytes`: at least one, at most 4 GiB - 1.
    pub fn new(bytes: u32) -> Self {
        let total = bytes.max(1);
        Self { semaphore: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for room. `None` only after the budget was closed, which nobody does.
    pub(crate) async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).acquire_many_owned(self.clamp(bytes)).await.ok()
    }

    /// Room if there is some now.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_many_owned(self.clamp(bytes)).ok()
    }

    fn clamp(&self, bytes: u64) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
    }
}

impl Default for Budget {
    /// 32 MiB: three batches in flight with their compressed form.
    fn default() -> Self {
        Self::new(32 * 1024 * 1024)
    }
}
