//! How much a cut-off reader will not see: the units of every entry that went while it was away.
//!
//! In: segments about to be removed, in order. Out: the units (bytes of files, events of databases) from any offset to the
//! log's start. Promise: counted from the headers before the entries go, once however often a removal is tried. The first
//! [`MOST_STEPS`] entries are kept apart, because the reader's cursor may stand a batch further than its pin said; what
//! follows them is one sum. Not here: when segments go, and the file (`mod`).

use bincode::{Decode, Encode};
use garam_disk::Fs;
use garam_proto::LogOffset;

use crate::embedded::entry;
use crate::embedded::segment::{self, SegmentError};
use crate::embedded::shared::SegmentInfo;
use crate::fold::Record;

/// About 20 KiB a reader.
const MOST_STEPS: usize = 1024;

/// Consecutive entries that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Step {
    from: u64,
    to: u64,
    units: u64,
}

/// The steps of one reader, without holes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct GivenUp(Vec<Step>);

impl GivenUp {
    /// Adds what of a segment lies at or above `at` and was not counted before.
    pub(crate) fn add(&mut self, at: LogOffset, segment: &[Step]) {
        let counted_to = self.0.last().map_or(at.0, |last| last.to);
        for step in segment.iter().filter(|step| step.from >= counted_to) {
            let all_kept = self.0.len() < MOST_STEPS;
            match self.0.last_mut() {
                Some(last) if !all_kept => {
                    last.to = step.to;
                    last.units = last.units.saturating_add(step.units);
                }
                _ => self.0.push(*step),
            }
        }
    }

    /// The units of the entries in `[from, to)`. `None`: they were not all counted.
    pub(crate) fn units(&self, from: LogOffset, to: LogOffset) -> Option<u64> {
        let first = self.0.first().filter(|first| first.from <= from.0)?;
        let last = self.0.last().filter(|last| last.to >= to.0)?;
        debug_assert!(first.from < last.to, "steps are not empty");
        let missed = self.0.iter().filter(|step| step.to > from.0 && step.from < to.0);
        Some(missed.fold(0, |sum, step| sum.saturating_add(step.units)))
    }
}

/// The entries of a segment that ends at offset `end`, one step each. Entries that cannot be read any more count as one
/// unit each.
pub(crate) fn steps(fs: &dyn Fs, info: &SegmentInfo, end: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Err(error) = read_steps(fs, info, &mut steps) {
        tracing::warn!(file = %info.path.display(), %error,
            "a segment that is given up cannot be read: its entries count as one unit each");
    }
    let read_to = steps.last().map_or(info.base, |last: &Step| last.to);
    steps.extend((read_to..end).map(|offset| Step { from: offset, to: offset + 1, units: 1 }));
    steps
}

fn read_steps(fs: &dyn Fs, info: &SegmentInfo, steps: &mut Vec<Step>) -> Result<(), SegmentError> {
    let mut walk = segment::open(fs, &info.path, Some(info.bytes))?.walk;
    while let Some(found) = walk.step(info.bytes, false)? {
        let at = found.at;
        let record = entry::decode(found.prefix.kind, &found.header, found.prefix.payload_len)
            .map_err(|why| SegmentError::Broken { at, why })?;
        let from = found.prefix.offset;
        steps.push(Step { from, to: from + 1, units: units_of(record) });
    }
    Ok(())
}

fn units_of(record: Record) -> u64 {
    let units = match record {
        Record::Block(block) => block.to.saturating_sub(block.from),
        Record::Gap(gap) => gap.to.saturating_sub(gap.from),
        Record::Loss(loss) => loss.after.mark.saturating_sub(loss.from),
        Record::Claim(_) | Record::Advance(_) | Record::Retire(_) => 0,
    };
    u64::try_from(units).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(offsets: std::ops::Range<u64>) -> Vec<Step> {
        offsets.map(|at| Step { from: at, to: at + 1, units: 10 + at }).collect()
    }

    fn units(given_up: &GivenUp, from: u64, to: u64) -> Option<u64> {
        given_up.units(LogOffset(from), LogOffset(to))
    }

    #[test]
    fn what_lies_between_the_cursor_and_the_start_is_summed() {
        let mut given_up = GivenUp::default();
        assert_eq!(units(&given_up, 0, 1), None, "nothing is counted yet");
        given_up.add(LogOffset(3), &entries(0..5));
        assert_eq!(units(&given_up, 3, 5), Some(13 + 14));
        assert_eq!(units(&given_up, 4, 5), Some(14), "the cursor stood further than the pin");
        assert_eq!(units(&given_up, 3, 4), Some(13), "the last removal did not happen");
        assert_eq!(units(&given_up, 2, 5), None, "a cursor that was moved back");
        assert_eq!(units(&given_up, 3, 6), None, "something went uncounted");
    }

    #[test]
    fn a_removal_that_is_tried_again_counts_once() {
        let mut given_up = GivenUp::default();
        given_up.add(LogOffset(0), &entries(0..5));
        given_up.add(LogOffset(0), &entries(0..5));
        given_up.add(LogOffset(0), &entries(5..6));
        assert_eq!(units(&given_up, 0, 6), Some(10 + 11 + 12 + 13 + 14 + 15));
    }

    #[test]
    fn beyond_the_first_steps_there_is_one_sum() {
        let most = MOST_STEPS as u64;
        let mut given_up = GivenUp::default();
        given_up.add(LogOffset(0), &entries(0..most + 100));
        given_up.add(LogOffset(0), &entries(most + 100..most + 200));
        assert_eq!(given_up.0.len(), MOST_STEPS);
        let sum = |from: u64| (from..most + 200).map(|at| 10 + at).sum::<u64>();
        assert_eq!(units(&given_up, 0, most + 200), Some(sum(0)));
        assert_eq!(units(&given_up, most - 2, most + 200), Some(sum(most - 2)));
    }
}
