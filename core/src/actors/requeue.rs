//! Two children of a pipeline's branch: the carrier of requests to its quarantine, and the lane that delivers again.
//!
//! The carrier looks for requests that are not done, at the start and then every second, carries them out in order, and says
//! from where on the quarantine is needed. It also looks whether the pipeline is paused, and has cursors moved back (`replay`). The lane begins once there is something in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use garam_flow::{Name, Oldest, Request, RequestId, carry_out, oldest_waiting, quarantine_stream};
use garam_log::{EmbeddedLog, Log as _};
use garam_meta::{Meta, RequestRecord};
use garam_proto::{LogOffset, PartitionId, PipelineId, StreamName};
use garam_stage::{Failure, FailureKind};

use super::Slot;
use super::gate::Gate;
use super::pipeline::{FlowRoom, SignsOfLife, run_flow};
use super::replay::{self, REPLAY};
use crate::config::Target;
use crate::supervise::{Context, Factory, Fault, factory};

/// How often the carrier looks for requests, and the lane for its first entry.
const LOOK: Duration = Duration::from_secs(1);

/// At most one part in so many of the time is spent on reading the quarantine.
const SHARE: u32 = 50;

/// The front of a quarantine, for whoever looks.
#[derive(Debug, Default)]
pub struct Front {
    waiting: AtomicU64,
    since_us: AtomicI64,
}

/// What a carrier is made of.
#[derive(Clone)]
pub struct CarrierRoom {
    pub pipeline: PipelineId,
    pub meta: Arc<Meta>,
    pub log: Slot<EmbeddedLog>,
    pub front: Arc<Front>,
    pub gate: Arc<Gate>,
    /// Where the pipeline reads and delivers.
    pub input: StreamName,
    pub to: Target,
    /// Where the log lies, for a destination that is a stream of it.
    pub log_dir: PathBuf,
    /// The name under which it pins the quarantine.
    pub pin: &'static str,
}

pub fn carrier(room: CarrierRoom) -> Factory {
    factory(move |context| carry(room.clone(), context))
}

/// The flow of a requeue lane.
pub fn lane(room: FlowRoom) -> Factory {
    factory(move |context| run_lane(room.clone(), context))
}

impl Front {
    /// Records that wait, and since when the oldest does, microseconds since the epoch.
    pub fn waiting(&self) -> (u64, Option<i64>) {
        let since = self.since_us.load(Ordering::Relaxed);
        (self.waiting.load(Ordering::Relaxed), (since != 0).then_some(since))
    }

    fn set(&self, oldest: &Oldest) {
        self.waiting.store(oldest.waiting, Ordering::Relaxed);
        self.since_us.store(oldest.waits_since_us.unwrap_or(0), Ordering::Relaxed);
    }
}

async fn carry(room: CarrierRoom, context: Context) -> Result<(), Fault> {
    let log = room.log.wait(&context.progress, "the log").await;
    let signs = SignsOfLife::of(&context.progress);
    let at = PartitionId { stream: quarantine_stream(room.pipeline), index: 0 };
    let (mut seen, mut next_look) = (None, tokio::time::Instant::now());
    loop {
        room.gate.set(room.meta.paused(room.pipeline).await.map_err(Failure::from)?);
        let requests = room.meta.requests().await.map_err(Failure::from)?;
        let mut open = requests;
        open.retain(|request| request.pipeline == room.pipeline && request.done.is_none());
        for record in open {
            if record.what == REPLAY {
                if !replay::carry_out(&room, &record, &context).await? {
                    return Ok(());
                }
                continue;
            }
            let request = request(&record)?;
            let done = carry_out(&*log, &request, &signs, wall_clock_us).await?;
            let stored = room.meta.done(record.id, done.taken, done.unfit, done.is_void).await;
            stored.map_err(Failure::from)?;
            seen = None;
        }
        let end = log.bounds(&at).map_or(LogOffset::ZERO, |bounds| bounds.end);
        let begun = tokio::time::Instant::now();
        if seen.is_none() || (seen != Some(end) && begun >= next_look) {
            let oldest = oldest_waiting(&*log, room.pipeline, &[], &signs).await?;
            log.pin(&at, room.pin, oldest.needed_from);
            room.front.set(&oldest);
            seen = Some(end);
            // All of it is read, so a quarantine that grows is not read all the time.
            next_look = begun + begun.elapsed() * SHARE;
        }
        let _guard = context.progress.waiting("requests");
        tokio::select! {
            () = context.stopping() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn run_lane(room: FlowRoom, context: Context) -> Result<(), Fault> {
    let log = room.log.wait(&context.progress, "the log").await;
    while log.bounds(&room.config.input).is_ok_and(|bounds| bounds.end == LogOffset::ZERO) {
        let _guard = context.progress.waiting("a requeue");
        tokio::select! {
            () = context.stopping() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    run_flow(room, context).await
}

/// A request as the engine understands it.
pub fn request(record: &RequestRecord) -> Result<Request, Failure> {
    let broken = |why: String| {
        Failure::new(FailureKind::Config, format!("request {} cannot be read: {why}", record.id))
    };
    let names = record.names.iter().map(|name| name.parse::<Name>());
    Ok(Request {
        id: RequestId(*record.id.as_bytes()),
        pipeline: record.pipeline,
        what: record.what.parse().map_err(broken)?,
        reason: record.reason.as_ref().map(|r| r.parse()).transpose().map_err(broken)?,
        names: names.collect::<Result<_, _>>().map_err(broken)?,
        until: record.until,
        incarnation: record.incarnation,
    })
}

fn wall_clock_us() -> i64 {
    crate::gateway::wall_clock_us()
}
