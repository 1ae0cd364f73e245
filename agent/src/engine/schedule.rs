//! When each origin is visited next: one time per origin, whoever asked last.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::origin::Id;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    queue: BTreeSet<(Instant, Id)>,
    due: HashMap<Id, Instant>,
}

impl Schedule {
    /// Visits the origin then, and not when it was planned before.
    pub(super) fn set(&mut self, id: Id, at: Instant) {
        self.remove(id);
        self.due.insert(id, at);
        self.queue.insert((at, id));
    }

    pub(super) fn remove(&mut self, id: Id) {
        if let Some(at) = self.due.remove(&id) {
            self.queue.remove(&(at, id));
        }
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.due.clear();
    }

    /// Those whose time has come, in the order of their times, at most so many. The rest stay due.
    pub(super) fn due(&self, now: Instant, most: usize) -> Vec<Id> {
        self.queue.range(..=(now, Id(u64::MAX))).take(most).map(|&(_, id)| id).collect()
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_origin_has_one_place_in_the_queue() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut schedule = Schedule::default();
        schedule.set(Id(1), later);
        schedule.set(Id(2), now);
        schedule.set(Id(1), now);
        assert_eq!(schedule.due(now, 9), [Id(1), Id(2)]);
        assert_eq!(schedule.due(now, 1), [Id(1)]);
        schedule.remove(Id(1));
        schedule.remove(Id(2));
        assert_eq!(schedule.first(), None);
    }
}
