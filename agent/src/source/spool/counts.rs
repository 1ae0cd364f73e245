//! What a spool counts, from the start of the process on.
//!
//! In: events of listeners and writer. Out: [`SpoolStatus`]. Promise: `received = spooled + dropped` once the queue is empty;
//! nothing is dropped without being counted under its reason.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use garam_proto::StreamName;
use serde::{Deserialize, Serialize};

use super::Spool;

#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that were read from a socket, or journal entries.
    pub(super) received: AtomicU64,
    /// Of those, the ones that are synced.
    pub(super) spooled: AtomicU64,
    /// Of those, the ones that were dropped because nothing could be taken in.
    pub(super) dropped_full: AtomicU64,
    /// Datagrams that the kernel dropped before anybody read them.
    dropped_kernel: AtomicU64,
    /// Messages that were longer than allowed, or whose sender left in the middle.
    cut: AtomicU64,
    /// Connections now.
    connections: AtomicU64,
    /// Connections that were refused because there were too many.
    refused: AtomicU64,
    /// Times that a journal had lost the place where reading was to go on.
    gaps: AtomicU64,
}

/// One spool, as `garam-agent status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    pub source: String,
    pub stream: String,
    pub received: u64,
    pub spooled: u64,
    /// Records that the core acknowledged, also of what an earlier run had spooled.
    pub shipped: u64,
    /// By reason: `spool_full` (also: no room on the disk), `kernel` (the socket's buffer was full).
    pub dropped_by: BTreeMap<String, u64>,
    pub cut: u64,
    pub connections: u64,
    pub refused_connections: u64,
    pub journal_gaps: u64,
    /// What lies on the disk, and how much may.
    pub bytes: u64,
    pub limit: u64,
    /// Nothing is taken in now.
    pub full: bool,
}

/// A connection that is open, until it is dropped.
pub struct Connected<'a>(&'a AtomicU64);

impl Counts {
    pub fn cut(&self, messages: u64) {
        add(&self.cut, messages);
    }

    pub fn kernel_dropped(&self, datagrams: u64) {
        add(&self.dropped_kernel, datagrams);
    }

    pub fn gap(&self) {
        add(&self.gaps, 1);
    }

    pub fn refuse(&self) {
        add(&self.refused, 1);
    }

    pub fn connection(&self) -> Connected<'_> {
        add(&self.connections, 1);
        Connected(&self.connections)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Spool {
    pub(in crate::source) fn status(&self, stream: &StreamName) -> SpoolStatus {
        let counts = &self.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dropped = [("spool_full", &counts.dropped_full), ("kernel", &counts.dropped_kernel)];
        SpoolStatus {
            source: self.name.to_string(),
            stream: stream.to_string(),
            received: read(&counts.received),
            spooled: read(&counts.spooled),
            shipped: 0,
            dropped_by: dropped.into_iter().map(|(why, n)| (why.to_owned(), read(n))).collect(),
            cut: read(&counts.cut),
            connections: read(&counts.connections),
            refused_connections: read(&counts.refused),
            journal_gaps: read(&counts.gaps),
            bytes: self.used(),
            limit: self.limit(),
            full: *self.full.borrow(),
        }
    }
}
