//! Finds the records behind failures that name none, and puts them aside, so that the others go on.
//!
//! In: a range that failed twice. Out: the same range delivered, its poison in the quarantine with reason `Poison`.
//! How: what makes *refining* fail is found by halving without any write, since refining is pure. What makes a *write*
//! fail is found by halving the range: each half is written and the cursor moves; inside one entry, where no cursor can
//! stand, by rehearsing halves of its rows, which commits nothing. A destination that cannot rehearse puts the rows of
//! that one entry aside.
//! Not here: counting attempts before it comes to this (`deliver`).

use garam_stage::{Failure, FailureKind, QuarantineReason, RecordRef, Refined, StagedBatch};

use crate::binding::Binding;
use crate::decode::Piece;
use crate::deliver::{Deliverer, Halt};
use crate::staging::{stage_isolating, without};

impl Deliverer<'_> {
    /// Delivers a suspicious range part by part, in order.
    pub(crate) async fn isolate(&mut self, pieces: &[Piece]) -> Result<(), Halt> {
        let mut ranges = vec![pieces];
        while let Some(range) = ranges.pop() {
            let refined = stage_isolating(self.context, range, &self.fresh).await?;
            match self.offer(range, refined).await {
                Ok(()) => {}
                Err(Halt::Content(failure)) => {
                    self.count_attempt(&failure).await?;
                    if range.len() == 1 {
                        self.isolate_rows(range, failure).await?;
                    } else {
                        let (left, right) = range.split_at(range.len() / 2);
                        ranges.extend([right, left]);
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// One entry whose rows cannot be written.
    async fn isolate_rows(&mut self, entry: &[Piece], failure: Failure) -> Result<(), Halt> {
        let refined = stage_isolating(self.context, entry, &self.fresh).await?;
        let poison = self.rehearse_parts(entry, &refined).await?;
        if poison.is_empty() {
            // Each part can be written, all together cannot: no record can be blamed.
            return Err(failure.into());
        }
        let detail = failure.to_string();
        let exhibit = |&at: &RecordRef| self.exhibit(entry, at, QuarantineReason::Poison, &detail);
        let exhibits = poison.iter().map(exhibit).collect::<Result<Vec<_>, _>>()?;
        self.put_aside(exhibits).await?;
        let rest = without(refined, &self.fresh)?;
        match self.offer(entry, rest).await {
            Err(Halt::Content(failure)) => Err(failure.into()),
            other => other,
        }
    }

    async fn rehearse_parts(
        &mut self,
        entry: &[Piece],
        refined: &Refined,
    ) -> Result<Vec<RecordRef>, Halt> {
        let mut records = refined.sources.clone();
        records.dedup();
        let mut poison = Vec::new();
        let mut parts = vec![records.as_slice()];
        while let Some(part) = parts.pop() {
            let batch = self.only(entry, refined, part)?;
            match self.destination.rehearse(&batch).await {
                Ok(Some(_)) => {}
                Ok(None) => poison.extend_from_slice(part),
                Err(failure) if failure.kind != FailureKind::Data => {
                    return Err(self.halt(failure, batch.to.next));
                }
                Err(_) if part.len() == 1 => poison.extend_from_slice(part),
                Err(_) => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
            }
        }
        Ok(poison)
    }

    /// A batch of the rows of these records alone. Never committed, so its counters need not balance.
    fn only(
        &self,
        entry: &[Piece],
        refined: &Refined,
        part: &[RecordRef],
    ) -> Result<StagedBatch, Halt> {
        let mut others = Binding::default();
        let outside = |at: &&RecordRef| part.binary_search(at).is_err();
        refined.sources.iter().filter(outside).for_each(|&at| others.add(at));
        let to = self.cursor_behind(entry, refined);
        let Refined { rows, sources, .. } = without(refined.clone(), &others)?;
        Ok(StagedBatch { rows, sources, from: self.stored.clone(), to })
    }
}
