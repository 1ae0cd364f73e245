//! The origins of one connection: what a session and its answers both know of a slot.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use garam_log::Claim as LogClaim;
use garam_proto::PartitionId;

/// An origin on this connection.
pub(super) struct Slot {
    pub(super) claim: LogClaim,
    /// Set once the claim is durable.
    pub(super) partition: OnceLock<PartitionId>,
    /// The number of the last answer about this slot.
    pub(super) answer: AtomicU64,
}

pub(super) type Slots = Arc<Mutex<HashMap<u32, Arc<Slot>>>>;

pub(super) fn lock(slots: &Slots) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Slot>>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}
