//! Which files hold a descriptor: the ones used last, within a budget.
//!
//! In: every use of a file. Out: whom to close when there are too many. Promise: never more than the budget, as long as
//! somebody can be parked; a file without a name is never parked, and one with unread bytes only after every idle one.
//! Not here: what parking does ([`super::plain`]).

use std::collections::{BTreeMap, HashMap};

use crate::source::Handle;

/// Files looked at in search of an idle one before any with a name is taken.
const LOOKED_AT: usize = 64;

#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    next: u64,
    order: BTreeMap<u64, Handle>,
    used: HashMap<Handle, u64>,
}

/// What becomes of a file that might be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    Idle,
    /// Unread bytes, but a name to find it by.
    Named,
    /// Closing it would lose it.
    Needed,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), next: 0, order: BTreeMap::new(), used: HashMap::new() }
    }

    /// The file is open and was used now.
    pub(super) fn touch(&mut self, handle: Handle) {
        self.remove(handle);
        self.order.insert(self.next, handle);
        self.used.insert(handle, self.next);
        self.next += 1;
    }

    pub(super) fn remove(&mut self, handle: Handle) {
        if let Some(at) = self.used.remove(&handle) {
            self.order.remove(&at);
        }
    }

    /// Who shall be parked so that one more may be opened; the caller asks again until nobody.
    pub(super) fn surplus(&self, worth: impl Fn(Handle) -> Worth) -> Option<Handle> {
        if self.order.len() < self.limit {
            return None;
        }
        let idle =
            self.order.values().take(LOOKED_AT).find(|handle| worth(**handle) == Worth::Idle);
        let named = || self.order.values().find(|handle| worth(**handle) != Worth::Needed);
        idle.or_else(named).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_idle_file_goes_first_and_one_without_a_name_never() {
        let mut budget = Budget::new(4);
        for number in 0..4 {
            assert_eq!(budget.surplus(|_| Worth::Idle), None);
            budget.touch(Handle(number));
        }
        budget.touch(Handle(0));
        assert_eq!(budget.surplus(|_| Worth::Idle), Some(Handle(1)));
        let worth = |handle: Handle| match handle.0 {
            1 => Worth::Needed,
            2 => Worth::Named,
            _ => Worth::Idle,
        };
        assert_eq!(
            budget.surplus(worth),
            Some(Handle(3)),
            "an idle one before one with unread bytes"
        );
        budget.remove(Handle(3));
        budget.remove(Handle(0));
        assert_eq!(budget.surplus(worth), None);
        let mut budget = Budget::new(1);
        budget.touch(Handle(1));
        assert_eq!(budget.surplus(worth), None);
    }
}
