//! Puts records aside: whole, with their reason, durable, once each.
//!
//! In: blocks that do not decode, records that refining found bad, rows that the destination refused, poison. Out:
//! quarantine entries that are on stable storage, and the same names in `fresh`, so that whatever is staged next for this
//! range leaves them out.
//! Promise: nothing is put aside twice in one run (what an earlier run put aside never reaches this file).
//! Not here: the stream they go to (`quarantine`).

use garam_stage::quarantine::WHOLE_BLOCK;
use garam_stage::{QuarantineReason, QuarantinedRecord, RecordRef, Refined, Refusal};

use crate::decode::{Content, Piece};
use crate::deliver::{Deliverer, Halt, broken};
use crate::error::FlowError;
use crate::quarantine::Exhibit;

/// The longest explanation kept with a record, in bytes.
const DETAIL_MAX: usize = 512;

impl Deliverer<'_> {
    pub(crate) async fn put_aside_bad(
        &mut self,
        pieces: &[Piece],
        refined: &Refined,
    ) -> Result<(), Halt> {
        let mut exhibits = Vec::new();
        for piece in pieces {
            if let Content::Undecodable(whole) = &piece.content
                && !self.fresh.masks_block(piece.offset)
            {
                let reason = QuarantineReason::Undecodable;
                exhibits.push(self.exhibit(pieces, piece.at(WHOLE_BLOCK), reason, &whole.why)?);
            }
        }
        for bad in &refined.bad {
            exhibits.push(self.exhibit(pieces, bad.at, bad.reason, &bad.detail)?);
        }
        self.put_aside(exhibits).await
    }

    pub(crate) async fn put_aside_refused(
        &mut self,
        pieces: &[Piece],
        refused: &Refined,
        refusals: &[Refusal],
    ) -> Result<(), Halt> {
        if refusals.is_empty() {
            return Err(broken("it refused a batch without naming a row"));
        }
        let mut exhibits = Vec::new();
        for Refusal { row, detail } in refusals {
            let Some(&at) = refused.sources.get(*row) else {
                return Err(broken("it refused a row that was not in the batch"));
            };
            exhibits.push(self.exhibit(pieces, at, QuarantineReason::Refused, detail)?);
        }
        self.put_aside(exhibits).await
    }

    /// Durable in the quarantine, once each, in log order; masked from here on.
    pub(crate) async fn put_aside(&mut self, mut exhibits: Vec<Exhibit>) -> Result<(), Halt> {
        exhibits.sort_by_key(|exhibit| exhibit.record.at());
        exhibits.dedup_by_key(|exhibit| exhibit.record.at());
        if exhibits.is_empty() {
            return Ok(());
        }
        self.quarantine.put(&exhibits).await?;
        for Exhibit { record, .. } in &exhibits {
            self.fresh.add(record.at());
            if record.reason == QuarantineReason::Undecodable {
                (self.context.hooks.undecodable)(record);
            }
        }
        tracing::debug!(input = %self.context.config.input, records = exhibits.len(), "put aside");
        Ok(())
    }

    /// A record with everything that is needed to show it, export it and requeue it.
    pub(crate) fn exhibit(
        &self,
        pieces: &[Piece],
        at: RecordRef,
        reason: QuarantineReason,
        detail: &str,
    ) -> Result<Exhibit, FlowError> {
        let unknown = || FlowError::Refiner { why: format!("it names unknown record {at:?}") };
        let index = pieces.binary_search_by_key(&at.offset, |piece| piece.offset);
        let piece = index.ok().and_then(|index| pieces.get(index)).ok_or_else(unknown)?;
        let (header, provenance, bytes, position, records) = match &piece.content {
            Content::Block(block) => {
                let index = block.records.binary_search_by_key(&at.index, |record| record.index);
                let record = index.ok().and_then(|index| block.records.get(index));
                let record = record.ok_or_else(unknown)?;
                (&block.header, &block.provenance, &record.bytes, record.position, 1)
            }
            Content::Undecodable(whole) => {
                let position = whole.header.from;
                (&whole.header, &whole.provenance, &whole.payload, position, whole.records)
            }
            Content::Quiet => return Err(unknown()),
        };
        let input = &self.context.config.input;
        let record = QuarantinedRecord {
            stream: input.stream.clone(),
            partition: input.index,
            incarnation: self.stored.incarnation,
            offset: at.offset.0,
            index: at.index,
            reason,
            detail: cut(detail).into(),
            records,
            origin: header.origin,
            position,
            source_epoch: provenance.source_epoch,
            ingest_time_us: header.ingest_time_us,
            host: provenance.host.clone(),
            path: provenance.path.clone(),
            time_us: (self.context.hooks.now_us)(),
            bytes_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        Ok(Exhibit { record, bytes: bytes.clone() })
    }
}

impl Piece {
    fn at(&self, index: u32) -> RecordRef {
        RecordRef { offset: self.offset, index }
    }
}

fn cut(detail: &str) -> &str {
    let mut end = detail.len().min(DETAIL_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.get(..end).unwrap_or_default()
}
