//! Cuts batches out of the log: whole entries, in order, within bounds of rows, bytes and time.
//!
//! In: a [`LogReader`]. Out: [`Batch`]es with their byte permits, prepared and sent on in order.
//! Promise: a drained log is delivered after at most `linger`; a busy one in batches as large as the bounds allow. An
//! error of the log comes behind everything that was read before it, so that what is readable gets delivered.
//! Not here: what entries hold (`decode`).

use std::sync::Arc;

use garam_log::{Entry, EntryBody, LogError, LogReader};
use garam_proto::LogOffset;
use garam_stage::Failure;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::binding::Binding;
use crate::engine::Context;
use crate::error::FlowError;
use crate::staging::{Prepared, prepare};
use crate::stats::Waiting;

/// Entries that will be delivered together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    rows: u64,
    bytes: u64,
}

/// What reads ahead of delivery.
pub(crate) struct Cutter<'a> {
    context: &'a Context,
    reader: Box<dyn LogReader>,
    stop: watch::Receiver<bool>,
    /// Behind what was read.
    next: LogOffset,
    /// Read, but not fitting into the batch before.
    held: Option<Entry>,
    /// Met behind the batch before.
    failed: Option<LogError>,
}

impl<'a> Cutter<'a> {
    pub(crate) fn new(
        context: &'a Context,
        reader: Box<dyn LogReader>,
        from: LogOffset,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { context, reader, stop, next: from, held: None, failed: None }
    }

    /// Cuts, prepares and sends batches until asked to stop, until there shall be no more, or until the log fails, which is
    /// sent as the last item.
    pub(crate) async fn run(
        mut self,
        binding: Arc<Binding>,
        batches: mpsc::Sender<Result<Prepared, Failure>>,
    ) {
        loop {
            let prepared = match self.cut().await {
                Ok(Some(batch)) => prepare(self.context, batch, &binding).await,
                Ok(None) => return,
                Err(error) => Err(FlowError::log("read the log")(error)),
            };
            let last = prepared.is_err();
            if batches.send(prepared).await.is_err() || last {
                return;
            }
            self.context.hooks.progress.beat();
        }
    }

    /// The next batch; `None` when asked to stop, or when there shall be no more.
    async fn cut(&mut self) -> Result<Option<Batch>, LogError> {
        let Some((first, permit)) = self.first().await? else { return Ok(None) };
        let limits = &self.context.config.limits;
        let begun = Instant::now();
        let mut batch = Batch::default();
        batch.push(first, permit);
        while begun.elapsed() < limits.max_wait && !self.is_at_end() {
            let entry = match self.more(begun + limits.linger).await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let size = self.size(&entry);
            let rows = batch.rows + rows(&entry);
            let fits = rows <= limits.max_rows && batch.bytes + size <= limits.max_bytes;
            let permit = if fits { self.context.hooks.budget.try_take(size) } else { None };
            let Some(permit) = permit else {
                self.held = Some(entry);
                break;
            };
            batch.push(Weighed { entry, size }, permit);
        }
        Ok(Some(batch))
    }

    /// Waits for an entry and for room in the budget.
    async fn first(&mut self) -> Result<Option<(Weighed, OwnedSemaphorePermit)>, LogError> {
        if *self.stop.borrow() {
            return Ok(None);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let stats = &self.context.hooks.stats;
        let entry = match self.held.take() {
            Some(entry) => entry,
            None if self.is_at_end() => return Ok(None),
            None => {
                stats.reader_waits(Some(Waiting::Entries));
                tokio::select! {
                    biased;
                    () = stopped(&mut self.stop) => return Ok(None),
                    entry = self.reader.next() => self.read(entry?),
                }
            }
        };
        stats.reader_waits(Some(Waiting::Budget));
        let size = self.size(&entry);
        let permit = tokio::select! {
            biased;
            () = stopped(&mut self.stop) => return Ok(None),
            permit = self.context.hooks.budget.take(size) => permit,
        };
        stats.reader_waits(None);
        Ok(permit.map(|permit| (Weighed { entry, size }, permit)))
    }

    /// The next entry, waiting for it until the deadline if the log is drained.
    async fn more(&mut self, deadline: Instant) -> Result<Option<Entry>, LogError> {
        let entry = match self.reader.try_next().await? {
            Some(entry) => Some(entry),
            None => timeout_at(deadline, self.reader.next()).await.ok().transpose()?,
        };
        Ok(entry.map(|entry| self.read(entry)))
    }

    fn read(&mut self, entry: Entry) -> Entry {
        self.next = entry.offset.next();
        entry
    }

    fn is_at_end(&self) -> bool {
        self.context.config.until.is_some_and(|until| self.next >= until)
    }

    /// Bytes an entry takes in memory, compressed and raw; the raw length is a claim, which decoding caps.
    fn size(&self, entry: &Entry) -> u64 {
        match &entry.body {
            EntryBody::Block { header, payload } => {
                let raw = header.raw_len.min(self.context.config.limits.decode.max_raw);
                payload.len() as u64 + u64::from(raw)
            }
            _ => 0,
        }
    }
}

struct Weighed {
    entry: Entry,
    size: u64,
}

impl Batch {
    fn push(&mut self, Weighed { entry, size }: Weighed, permit: OwnedSemaphorePermit) {
        self.rows += rows(&entry);
        self.bytes += size;
        self.entries.push(entry);
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
    }
}

/// Resolves when asked to stop, also when whoever could ask is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|&stop| stop).await.map(drop).unwrap_or_default();
}

fn rows(entry: &Entry) -> u64 {
    match &entry.body {
        EntryBody::Block { header, .. } => u64::from(header.records),
        _ => 0,
    }
}
