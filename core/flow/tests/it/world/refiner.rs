//! A refiner whose verdict is the record's first word, and for some words also the life it is asked in: the definition
//! changed between crash and replay.

use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use garam_stage::{
    BadRecord, DropReason, Failure, QuarantineReason, RawBlock, RecordRef, Refined, Refiner,
};

pub(crate) struct FakeRefiner {
    pub(crate) life: u64,
    /// What was wrong with the contract is mended.
    pub(crate) mended: bool,
}

impl Refiner for FakeRefiner {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]))
    }

    fn refine(&self, blocks: &[RawBlock]) -> Result<Refined, Failure> {
        let (mut rows, mut sources, mut bad, mut dropped) = (vec![], vec![], vec![], vec![]);
        let odd = self.life % 2 == 1;
        for block in blocks {
            for record in &block.records {
                let at = RecordRef { offset: block.offset, index: record.index };
                let text = std::str::from_utf8(&record.bytes).unwrap();
                let put_aside =
                    BadRecord { at, reason: QuarantineReason::Syntax, detail: text.into() };
                match text.split('#').next().unwrap() {
                    "bad" => bad.push(put_aside),
                    "later" if !self.mended => bad.push(put_aside),
                    "flip" if odd => bad.push(put_aside),
                    "flop" if !odd => bad.push(put_aside),
                    "drop" => dropped.push((at, DropReason::Filtered)),
                    "skip" if odd => dropped.push((at, DropReason::Filtered)),
                    "panic" => panic!("a record made refining panic"),
                    _ => {
                        rows.push(text.to_owned());
                        sources.push(at);
                    }
                }
            }
        }
        let rows = StringArray::from(rows);
        let rows = RecordBatch::try_new(self.schema(), vec![Arc::new(rows)]).unwrap();
        Ok(Refined { rows, sources, bad, dropped })
    }
}
