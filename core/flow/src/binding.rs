//! A set of records that are not to be delivered, because a durable quarantine entry names them.
//!
//! In: names from quarantine entries. Out: whether a record is masked. A name with index [`WHOLE_BLOCK`] masks every
//! record of its entry; it sorts behind all others of that entry.
//! Not here: reading and writing the entries (`quarantine`).

use std::collections::BTreeSet;

use garam_proto::LogOffset;
use garam_stage::RecordRef;
use garam_stage::quarantine::WHOLE_BLOCK;

/// Names of quarantined records that no cursor has passed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Binding {
    names: BTreeSet<RecordRef>,
}

impl Binding {
    pub(crate) fn add(&mut self, at: RecordRef) {
        self.names.insert(at);
    }

    /// Whether the entry is named as a whole.
    pub(crate) fn masks_block(&self, offset: LogOffset) -> bool {
        self.names.contains(&RecordRef { offset, index: WHOLE_BLOCK })
    }

    /// Whether the record is named, alone or with its block.
    pub(crate) fn masks(&self, at: RecordRef) -> bool {
        self.names.contains(&at) || self.masks_block(at.offset)
    }

    /// How many records of the entry are named one by one.
    pub(crate) fn singles(&self, offset: LogOffset) -> u64 {
        let first = RecordRef { offset, index: 0 };
        let whole = RecordRef { offset, index: WHOLE_BLOCK };
        self.names.range(first..whole).count() as u64
    }

    /// Drops the names that a cursor at `next` has passed: they are counted.
    pub(crate) fn forget_below(&mut self, next: LogOffset) {
        self.names = self.names.split_off(&RecordRef { offset: next, index: 0 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
