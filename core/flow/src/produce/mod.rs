//! A stream as a destination: rows become records of another stream, in the partition that their key says.
//!
//! ```text
//! input p, offset 7   rows 7.0 7.1 7.2          position of a row = (offset + 1) 64 bits | index 32 | ordinal 32
//!                        │   │   └──────────► output 0   origin (pipeline, p, life of p, 0)    … | Block [.., 7.2] |
//!                        └───┴──────────────► output 1   origin (pipeline, p, life of p, 1)    … | Block [.., 7.1] |
//!                              then, last ──► output 0   origin (pipeline, p)                  … | Advance: cursor 8 |
//! ```
//!
//! In: batches of one input partition. Out: blocks of JSON records in all partitions of a stream, each with the plan that
//! made them, then the cursor, as what one more origin, the register, says about resuming. Promise: the register moves only
//! after all rows are durable; what a crash leaves behind the register is made again and, being below its origin's mark, not
//! appended again. That needs the same plan: under another one a batch that was cut short is refused ([`CutShort`]), and whoever runs
//! the flow has the old plan finish it. An older writer that still lives can add nothing once the claims of its successor are durable.
//! Not here: what a record means to those who read the stream (its contract).
//!
//! Reading order: here → [`places`] (origins and positions) → [`cut`] (rows into blocks) → [`json`] (a row as text) → [`register`] (where the cursor is kept).

mod cut;
mod cut_short;
mod json;
mod places;
mod register;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use garam_log::Log;
use garam_proto::{Incarnation, LogOffset, SessionId, StreamName};
use garam_stage::{
    Cursor, CursorKey, Destination, Durability, Failure, FailureKind, Outcome, PlanId, StagedBatch,
};

use self::cut::{Layout, Marks};
pub use self::cut_short::CutShort;
use self::places::{Part, first_of, lineage, offset_of, origin};
pub use self::places::{producer_origin, register_origin};
use crate::error::FlowError;
use crate::producer::{NotAppended, Producer, new_session, own_claim};

/// Which stream, and by which columns its records are placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTarget {
    pub stream: StreamName,
    /// Records with equal values here lie in one partition, in the order in which they came; empty: with equal origins.
    pub key: Vec<String>,
}

impl StreamTarget {
    /// Whether rows of this schema can become records, and be placed.
    pub fn check(&self, schema: &SchemaRef) -> Result<(), Failure> {
        Layout::of(schema, &self.key).map(drop)
    }
}

/// Writes the rows of one input partition into a stream of the log.
pub struct StreamDestination {
    log: Arc<dyn Log>,
    target: StreamTarget,
    schema: SchemaRef,
    now_us: fn() -> i64,
    layout: Option<Arc<Layout>>,
    /// `None` until it is taken over, and again while a write is under way: one that ended early is no owner any more.
    held: Option<Held>,
}

/// What this writer has claimed.
struct Held {
    key: CursorKey,
    session: SessionId,
    register: Producer,
    /// As the register has it.
    cursor: Option<Cursor>,
    outputs: Option<Outputs>,
}

/// The partitions of the stream, for one life of the input.
struct Outputs {
    life: Incarnation,
    each: Vec<Output>,
}

struct Output {
    producer: Producer,
    /// By which plan its newest block was made.
    plan: Option<PlanId>,
}

impl StreamDestination {
    pub fn new(
        log: Arc<dyn Log>,
        target: StreamTarget,
        schema: SchemaRef,
        now_us: fn() -> i64,
    ) -> Self {
        Self { log, target, schema, now_us, layout: None, held: None }
    }

    fn failed(&self, doing: &'static str, error: NotAppended) -> Failure {
        let stream = &self.target.stream;
        match error {
            NotAppended::Log(source) => FlowError::log(doing)(source),
            NotAppended::Stale => Failure::new(
                FailureKind::Fenced,
                format!("another writer has claimed this pipeline's place in stream {stream}"),
            ),
            NotAppended::Mark { expected, found } => Failure::new(
                FailureKind::Unknown,
                format!("stream {stream} stands at {found} where this writer put {expected}"),
            ),
        }
    }

    async fn claim(
        &self,
        key: &CursorKey,
        session: SessionId,
        part: Part,
    ) -> Result<(Producer, Option<Vec<u8>>), Failure> {
        let partitions = self.partitions()?;
        let origin = origin(key, part);
        let lineage = lineage(origin, part.output(), partitions);
        let stream = self.target.stream.clone();
        let claim = own_claim(stream, origin, "pipeline", lineage, session);
        Producer::claim(&*self.log, claim).await.map_err(FlowError::log(CLAIMING))
    }

    fn partitions(&self) -> Result<u32, Failure> {
        self.log.partitions(&self.target.stream).map_err(FlowError::log("find the output stream"))
    }

    /// Claims every partition for a life of the input. Behind the claims no older writer can add anything, so their marks
    /// are final.
    async fn outputs(
        &self,
        key: &CursorKey,
        session: SessionId,
        life: Incarnation,
    ) -> Result<Outputs, Failure> {
        let mut each = Vec::new();
        for index in 0..self.partitions()? {
            let part = Part::Rows { life, index };
            let (producer, resume) = self.claim(key, session, part).await?;
            each.push(Output { producer, plan: resume.as_deref().and_then(register::plan) });
        }
        Ok(Outputs { life, each })
    }

    fn layout(&mut self) -> Result<Arc<Layout>, Failure> {
        if let Some(layout) = &self.layout {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::of(&self.schema, &self.target.key)?);
        self.layout = Some(Arc::clone(&layout));
        Ok(layout)
    }

    /// Writes rows, then the cursor. Once it has begun to, an error leaves nothing held.
    async fn put(&mut self, mut held: Held, batch: &StagedBatch) -> Result<Outcome, Failure> {
        let Some(cursor) = &held.cursor else { return Err(not_owned()) };
        let stands = |cursor: &Cursor| (cursor.next, cursor.epoch, cursor.incarnation);
        if held.key != batch.from.key || stands(cursor) != stands(&batch.from) {
            return Err(not_owned());
        }
        let mut outputs = match held.outputs.take() {
            Some(outputs) if outputs.life == batch.from.incarnation => outputs,
            _ => self.outputs(&held.key, held.session, batch.from.incarnation).await?,
        };
        if let Err(refused) = self.check_cut(&outputs, batch) {
            // Nothing is begun: the operator's decision is carried out by the same owner.
            held.outputs = Some(outputs);
            self.held = Some(held);
            return Err(refused);
        }
        if outputs.life != batch.to.incarnation {
            outputs = self.outputs(&held.key, held.session, batch.to.incarnation).await?;
        }
        if let Err(refused) = self.append_rows(&mut outputs, batch).await? {
            held.outputs = Some(outputs);
            self.held = Some(held);
            return Ok(refused);
        }
        self.store(&mut held, batch.to.clone()).await?;
        held.outputs = Some(outputs);
        self.held = Some(held);
        Ok(Outcome::Written { durability: Durability::Durable, cursor: batch.to.clone() })
    }

    /// What a crash left behind the cursor must be made again by its own plan, in the same life of the input, or be given up.
    fn check_cut(&self, outputs: &Outputs, batch: &StagedBatch) -> Result<(), Failure> {
        let (from, to) = (&batch.from, &batch.to);
        if to.incarnation != from.incarnation {
            return match outputs.cut_short(from.next) {
                Some(end) if to.next < end => Err(self.cut_in_another_life(from.next, end)),
                _ => Ok(()),
            };
        }
        if is_decision(batch) { Ok(()) } else { self.check_plan(outputs, from.next, to.plan) }
    }

    fn check_plan(&self, outputs: &Outputs, next: LogOffset, now: PlanId) -> Result<(), Failure> {
        match (outputs.cut_short(next), outputs.other_plan(next, now)) {
            (Some(end), Some(made_by)) => {
                let stream = self.target.stream.clone();
                Err(CutShort { stream, next, end, made_by, now }.into())
            }
            _ => Ok(()),
        }
    }

    fn cut_in_another_life(&self, next: LogOffset, end: LogOffset) -> Failure {
        let stream = &self.target.stream;
        let text = format!(
            "from offset {next} up to {end} some records are in stream {stream} already, and a stream takes nothing back; \
             nothing was changed: choose `garam resume PIPELINE --accept-gap`"
        );
        Failure::new(FailureKind::Cursor, text)
    }

    /// Appends what is not there yet; returns once all of it is durable, or which rows can never be.
    async fn append_rows(
        &mut self,
        outputs: &mut Outputs,
        batch: &StagedBatch,
    ) -> Result<Result<(), Outcome>, Failure> {
        if batch.sources.is_empty() {
            return Ok(Ok(()));
        }
        let (layout, marks) = (self.layout()?, outputs.marks());
        let (rows, sources) = (batch.rows.clone(), batch.sources.clone());
        let cutting = tokio::task::spawn_blocking(move || layout.cut(&rows, &sources, &marks));
        let worker = |source| FlowError::Worker { doing: "making records of rows", source };
        let blocks = match cutting.await.map_err(worker)?? {
            Ok(blocks) => blocks,
            Err(refusals) => return Ok(Err(Outcome::Refused { rows: refusals })),
        };
        let mut waiting = Vec::new();
        for (index, packed) in blocks {
            let Some(output) = outputs.each.get_mut(index) else { continue };
            let resume = Some(register::of_plan(batch.to.plan));
            let pending = output.producer.append(&*self.log, packed, resume, (self.now_us)()).await;
            output.plan = Some(batch.to.plan);
            waiting.push(pending.map_err(|error| self.failed(APPENDING, error))?);
        }
        for pending in waiting {
            pending.wait().await.map_err(|error| self.failed(APPENDING, error))?;
        }
        Ok(Ok(()))
    }

    /// Moves the register.
    async fn store(&self, held: &mut Held, cursor: Cursor) -> Result<(), Failure> {
        let bytes = register::encode(&cursor).map_err(FlowError::from)?;
        let to = held.register.mark + 1;
        let pending = held.register.advance(&*self.log, to, bytes).await;
        let pending = pending.map_err(|error| self.failed(STORING, error))?;
        pending.wait().await.map_err(|error| self.failed(STORING, error))?;
        held.cursor = Some(cursor);
        Ok(())
    }
}

const CLAIMING: &str = "claim this pipeline's place in its output stream";
const APPENDING: &str = "append to the output stream";
const STORING: &str = "store the cursor in the output stream";

#[async_trait]
impl Destination for StreamDestination {
    async fn prepare(&mut self) -> Result<(), Failure> {
        self.layout()?;
        self.partitions().map(drop)
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        self.held = None;
        let session = new_session().map_err(FlowError::Random)?;
        let (register, resume) = self.claim(key, session, Part::Register).await?;
        let mut cursor = resume.as_deref().map(|bytes| stored_cursor(key, bytes)).transpose()?;
        if let Some(cursor) = &mut cursor {
            cursor.epoch = cursor.epoch.max(epoch_floor) + 1;
        }
        let outputs = match &cursor {
            Some(cursor) => Some(self.outputs(key, session, cursor.incarnation).await?),
            None => None,
        };
        let found = cursor.clone();
        self.held = Some(Held { key: key.clone(), session, register, cursor, outputs });
        Ok(found)
    }

    fn admits(&self, cursor: &Cursor, plan: PlanId) -> Result<(), Failure> {
        let outputs = self.held.as_ref().and_then(|held| held.outputs.as_ref());
        let outputs = outputs.filter(|outputs| outputs.life == cursor.incarnation);
        outputs.map_or(Ok(()), |outputs| self.check_plan(outputs, cursor.next, plan))
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        let mut held = self.held.take().ok_or_else(not_owned)?;
        if held.cursor.is_some() || held.key != cursor.key {
            return Err(not_owned());
        }
        self.store(&mut held, cursor.clone()).await?;
        self.held = Some(held);
        Ok(())
    }

    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure> {
        let held = self.held.take().ok_or_else(not_owned)?;
        self.put(held, batch).await
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

impl Outputs {
    fn marks(&self) -> Marks {
        Marks(self.each.iter().map(|output| output.producer.mark).collect())
    }

    /// Behind the last input entry whose rows are there although the cursor has not passed it.
    fn cut_short(&self, next: LogOffset) -> Option<LogOffset> {
        let newest = self.each.iter().map(|output| output.producer.mark).max()?;
        (newest > first_of(next)).then(|| offset_of(newest - 1).next())
    }

    fn other_plan(&self, next: LogOffset, plan: PlanId) -> Option<PlanId> {
        let ahead = self.each.iter().filter(|output| output.producer.mark > first_of(next));
        ahead.filter_map(|output| output.plan).find(|made_by| *made_by != plan)
    }
}

/// The cursor, from what the register's origin says about resuming.
pub fn stored_cursor(key: &CursorKey, resume: &[u8]) -> Result<Cursor, Failure> {
    register::decode(key, resume).map_err(|why| {
        Failure::new(
            FailureKind::Corrupt,
            format!("a cursor in an output stream cannot be read: {why}"),
        )
    })
}

/// An operator moves the cursor: nothing is delivered, it goes back or a gap is counted.
fn is_decision(batch: &StagedBatch) -> bool {
    let (from, to) = (&batch.from.counters, &batch.to.counters);
    let delivers = from.delivered != to.delivered || from.dropped != to.dropped;
    !delivers && (batch.to.next <= batch.from.next || to.gaps > from.gaps)
}

fn not_owned() -> Failure {
    Failure::new(
        FailureKind::Fenced,
        "the cursor is not this writer's: it must be taken over first",
    )
}
