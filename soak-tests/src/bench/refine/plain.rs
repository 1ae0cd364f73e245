//! DataFusion as anybody would use it: arrow-json's reader, then the same SQL.
//!
//! In: the bytes of the same blocks, uncompressed: decompression, checksums, the contract's checks and provenance are ours alone.
//! Out: rows. Two ways: *once*, one plan over a stream of batches, its table of users built once; *anew*, a plan for each batch,
//! as a program without a planner of its own would do it. One partition, on the caller's thread.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_json::reader::Decoder;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures_util::{StreamExt as _, stream};
use tokio::runtime::Runtime;

use super::records::{PLAIN_SQL, Shipped};
use super::{Pass, RECORDS, own};

/// DataFusion on this thread.
pub(super) struct Plain {
    runtime: Runtime,
    schema: SchemaRef,
    users: RecordBatch,
}

/// arrow-json alone.
pub(super) struct Json {
    schema: SchemaRef,
}

/// One plan for all batches.
pub(super) struct Once(pub(super) Plain);

/// One plan for each batch.
pub(super) struct Anew(pub(super) Plain);

impl Plain {
    pub(super) fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Self { runtime, schema: own::schema()?, users: own::users()? })
    }

    fn context(&self, rows: usize) -> anyhow::Result<SessionContext> {
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(rows);
        let context = SessionContext::new_with_config(config);
        context.register_batch("users", self.users.clone())?;
        Ok(context)
    }

    fn planned(
        &self,
        blocks: &[Shipped],
        per_batch: usize,
    ) -> anyhow::Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
        let context = self.context(per_batch * RECORDS as usize)?;
        let batches = blocks.chunks(per_batch).map(|blocks| raw(blocks)).collect();
        let source = Source {
            schema: Arc::clone(&self.schema),
            rows: per_batch * RECORDS as usize,
            batches: Mutex::new(batches),
        };
        let table = StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::new(source)])?;
        context.register_table("input", Arc::new(table))?;
        let plan = self
            .runtime
            .block_on(async { context.sql(PLAIN_SQL).await?.create_physical_plan().await })?;
        Ok((plan, context.task_ctx()))
    }

    /// All rows of one plan.
    pub(super) fn rows(
        &self,
        blocks: &[Shipped],
        per_batch: usize,
    ) -> anyhow::Result<Vec<RecordBatch>> {
        let (plan, context) = self.planned(blocks, per_batch)?;
        Ok(self.runtime.block_on(datafusion::physical_plan::collect(plan, context))?)
    }
}

impl super::Side for Json {
    fn pass<'a>(&'a self, blocks: &'a [Shipped], per_batch: usize) -> anyhow::Result<Pass<'a>> {
        Ok(Box::new(move || {
            let mut decoder = decoder(&self.schema, per_batch * RECORDS as usize)?;
            let mut rows = 0;
            for blocks in blocks.chunks(per_batch) {
                rows += parse(&mut decoder, blocks.iter().map(|block| &block.raw))?.num_rows();
            }
            Ok(rows)
        }))
    }
}

impl Json {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { schema: own::schema()? })
    }
}

impl super::Side for Once {
    fn pass<'a>(&'a self, blocks: &'a [Shipped], per_batch: usize) -> anyhow::Result<Pass<'a>> {
        let (plan, context) = self.0.planned(blocks, per_batch)?;
        Ok(Box::new(move || {
            let mut batches = execute_stream(plan, context)?;
            self.0.runtime.block_on(async {
                let mut rows = 0;
                while let Some(batch) = batches.next().await {
                    rows += batch?.num_rows();
                }
                Ok(rows)
            })
        }))
    }
}

impl super::Side for Anew {
    fn pass<'a>(&'a self, blocks: &'a [Shipped], per_batch: usize) -> anyhow::Result<Pass<'a>> {
        let context = self.0.context(per_batch * RECORDS as usize)?;
        Ok(Box::new(move || {
            let mut decoder = decoder(&self.0.schema, per_batch * RECORDS as usize)?;
            let mut rows = 0;
            for blocks in blocks.chunks(per_batch) {
                let batch = parse(&mut decoder, blocks.iter().map(|block| &block.raw))?;
                let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
                context.register_table("input", Arc::new(table))?;
                let query = async { context.sql(PLAIN_SQL).await?.collect().await };
                let batches = self.0.runtime.block_on(query)?;
                rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                context.deregister_table("input")?;
            }
            Ok(rows)
        }))
    }
}

/// Batches that are parsed when they are asked for.
struct Source {
    schema: SchemaRef,
    rows: usize,
    batches: Mutex<Vec<Vec<Bytes>>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl PartitionStream for Source {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches =
            std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner));
        let mut decoder = decoder(&self.schema, self.rows);
        let parsed = batches.into_iter().map(move |batch| match &mut decoder {
            Ok(decoder) => parse(decoder, batch.iter()).map_err(|error| external(&error)),
            Err(error) => Err(external(error)),
        });
        let (schema, parsed) = (Arc::clone(&self.schema), stream::iter(parsed));
        Box::pin(RecordBatchStreamAdapter::new(schema, parsed))
    }
}

fn external(error: &anyhow::Error) -> DataFusionError {
    DataFusionError::Execution(format!("{error:#}"))
}

fn raw(blocks: &[Shipped]) -> Vec<Bytes> {
    blocks.iter().map(|block| block.raw.clone()).collect()
}

fn decoder(schema: &SchemaRef, rows: usize) -> anyhow::Result<Decoder> {
    Ok(ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows).build_decoder()?)
}

fn parse<'a>(
    decoder: &mut Decoder,
    parts: impl Iterator<Item = &'a Bytes>,
) -> anyhow::Result<RecordBatch> {
    for part in parts {
        let read = decoder.decode(part)?;
        anyhow::ensure!(read == part.len(), "arrow-json stopped after {read} bytes");
    }
    decoder.flush()?.context("arrow-json gave no batch")
}
