//! Where the rows of a batch come from.
//!
//! In: provenance, position and time of arrival, row by row. Out: the system columns that tell them. Promise: rows of one block
//! cost their position alone; what is the same for all of them is written once it ends, in one go.

use std::sync::Arc;

use arrow_array::builder::{StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, FixedSizeBinaryArray};
use arrow_schema::ArrowError;
use garam_stage::records::Provenance;

const ORIGIN: usize = 32;
const POSITION: usize = 16;
const VERSION: usize = 20;

/// The columns of a batch that tell where its rows come from.
pub(super) struct Places<'a> {
    run: Option<Run<'a>>,
    host: StringBuilder,
    path: StringBuilder,
    origin: Vec<u8>,
    position: Vec<u8>,
    version: Vec<u8>,
    ingest_time: TimestampMicrosecondBuilder,
}

/// Rows in a row of which only the position differs.
#[derive(Debug, Clone, Copy)]
struct Run<'a> {
    provenance: &'a Provenance,
    ingest_time: i64,
    rows: usize,
}

/// The finished columns.
pub(super) struct Arrays {
    pub(super) host: ArrayRef,
    pub(super) path: ArrayRef,
    pub(super) origin: ArrayRef,
    pub(super) position: ArrayRef,
    pub(super) version: ArrayRef,
    pub(super) ingest_time: ArrayRef,
}

impl<'a> Places<'a> {
    pub(super) fn new(rows: usize, ingest_time: TimestampMicrosecondBuilder) -> Self {
        Self {
            run: None,
            host: StringBuilder::with_capacity(rows, rows * 16),
            path: StringBuilder::with_capacity(rows, rows * 32),
            origin: Vec::with_capacity(rows * ORIGIN),
            position: Vec::with_capacity(rows * POSITION),
            version: Vec::with_capacity(rows * VERSION),
            ingest_time,
        }
    }

    pub(super) fn append(&mut self, provenance: &'a Provenance, position: u128, ingest_time: i64) {
        match &mut self.run {
            Some(run) if run.goes_on(provenance, ingest_time) => run.rows += 1,
            _ => {
                self.end_run();
                self.run = Some(Run { provenance, ingest_time, rows: 1 });
            }
        }
        let position = position.to_be_bytes();
        let mut version = [0; VERSION];
        let (epoch, order) = version.split_at_mut(VERSION - POSITION);
        epoch.copy_from_slice(&provenance.source_epoch.to_be_bytes());
        order.copy_from_slice(&position);
        self.position.extend_from_slice(&position);
        self.version.extend_from_slice(&version);
    }

    fn end_run(&mut self) {
        let Some(Run { provenance, ingest_time, rows }) = self.run.take() else { return };
        self.host.append_value_n(&provenance.host, rows);
        self.path.append_value_n(&provenance.path, rows);
        let mut origin = [0; ORIGIN];
        let (agent, generation) = origin.split_at_mut(ORIGIN / 2);
        agent.copy_from_slice(&provenance.origin.agent.0);
        generation.copy_from_slice(&provenance.origin.generation.0);
        self.origin.extend_from_slice(&origin.repeat(rows));
        self.ingest_time.append_value_n(ingest_time, rows);
    }

    pub(super) fn finish(mut self) -> Result<Arrays, ArrowError> {
        self.end_run();
        Ok(Arrays {
            host: Arc::new(self.host.finish()),
            path: Arc::new(self.path.finish()),
            origin: binary(ORIGIN, self.origin)?,
            position: binary(POSITION, self.position)?,
            version: binary(VERSION, self.version)?,
            ingest_time: Arc::new(self.ingest_time.finish()),
        })
    }
}

impl Run<'_> {
    /// A block's rows share one provenance, so it is the same thing, not an equal one.
    fn goes_on(&self, provenance: &Provenance, ingest_time: i64) -> bool {
        std::ptr::eq(self.provenance, provenance) && self.ingest_time == ingest_time
    }
}

fn binary(width: usize, bytes: Vec<u8>) -> Result<ArrayRef, ArrowError> {
    let width = i32::try_from(width).map_err(|error| ArrowError::CastError(error.to_string()))?;
    Ok(Arc::new(FixedSizeBinaryArray::try_new(width, bytes.into(), None)?))
}
