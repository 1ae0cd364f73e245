//! Which shard takes which of a key's 1 024 slots.
//!
//! In: names of shards, in order. Out: a map of even ranges, one behind the other. Promise: every slot has one shard, and the
//! first slot is the first shard's; the map of the same names is the same for ever. Not here: where it is kept (`meta`), what a
//! slot is ([`crate::slots`]).

use crate::cursor::SlotRange;

/// The shard that a destination's own address and table are.
pub const MAIN_SHARD: &str = "main";

/// How many slots there are.
const SLOTS: usize = 1024;

/// Slots that one writer writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotPart {
    pub slots: SlotRange,
    pub shard: String,
}

/// All slots, in order. A cursor names the epoch of the map that its rows were placed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    pub epoch: u32,
    pub parts: Vec<SlotPart>,
}

impl SlotMap {
    /// Equal shares, in the order of the names; at most one for each slot.
    pub fn even<S: AsRef<str>>(epoch: u32, shards: &[S]) -> Self {
        let count = shards.len().clamp(1, SLOTS);
        let first = |i: usize| i * SLOTS / count;
        let range = |i: usize| SlotRange {
            first: u16::try_from(first(i)).unwrap_or(u16::MAX),
            last: u16::try_from(first(i + 1) - 1).unwrap_or(u16::MAX),
        };
        let part = |(i, shard): (usize, &S)| SlotPart {
            slots: range(i),
            shard: shard.as_ref().to_owned(),
        };
        Self { epoch, parts: shards.iter().take(SLOTS).enumerate().map(part).collect() }
    }

    /// The shards, in order.
    pub fn shards(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.shard.as_str()).collect()
    }

    /// The number of the part that a slot lies in.
    pub fn part_of(&self, slot: u16) -> usize {
        self.parts.partition_point(|part| part.slots.last < slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_shard() {
        for count in [1, 2, 3, 7, 1024] {
            let names: Vec<String> = (0..count).map(|i| format!("s{i}")).collect();
            let map = SlotMap::even(1, &names);
            let mut next = 0;
            for part in &map.parts {
                assert_eq!(part.slots.first, next);
                next = part.slots.last + 1;
            }
            assert_eq!(next, 1024);
            for slot in 0..1024 {
                let SlotRange { first, last } = map.parts[map.part_of(slot)].slots;
                assert!((first..=last).contains(&slot));
            }
        }
    }

    #[test]
    fn a_map_does_not_change() {
        let map = SlotMap::even(1, &["main", "b", "c"]);
        let lines =
            map.parts.iter().map(|p| format!("{} {}-{}", p.shard, p.slots.first, p.slots.last));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines, ["main 0-340", "b 341-681", "c 682-1023"]);
    }
}
