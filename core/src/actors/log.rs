//! The log as a child: opens it, watches its writer thread, and opens it anew when that thread has ended.
//!
//! A writer that hangs holds a disk nobody else may write to: the child then stops giving signs of life, and the tree ends
//! the process. A partition that stopped is no reason to restart anybody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use garam_log::{EmbeddedLog, Log as _, LogConfig, LogError};
use garam_proto::{LogOffset, PartitionId};
use garam_stage::FailureKind;

use super::Slot;
use crate::supervise::{Context, Factory, Fault, factory};

/// How often the writer is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the log is opened with, each time.
#[derive(Clone)]
pub struct LogRoom {
    /// As the newest configuration has it.
    pub needs: Arc<Mutex<LogNeeds>>,
    pub slot: Slot<EmbeddedLog>,
}

/// The log as a configuration asks for it.
#[derive(Debug, Clone)]
pub struct LogNeeds {
    pub config: LogConfig,
    /// Who will read: pinned at the start before anything may be trimmed.
    pub readers: Vec<Reader>,
}

/// A flow's claim on a partition's past.
#[derive(Debug, Clone)]
pub struct Reader {
    pub partition: PartitionId,
    pub name: String,
}

impl LogRoom {
    /// Opens the log and protects what its readers still need.
    pub async fn open(&self) -> Result<Arc<EmbeddedLog>, LogError> {
        let needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let LogNeeds { config, readers } = needs;
        let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(config)).await;
        let log = opened.unwrap_or(Err(LogError::Closed))?;
        pin(&log, &readers);
        log.allow_trimming();
        Ok(log)
    }
}

/// Keeps for each reader everything that the log still holds.
pub fn pin(log: &EmbeddedLog, readers: &[Reader]) {
    for Reader { partition, name } in readers {
        let start = log.bounds(partition).map_or(LogOffset::ZERO, |bounds| bounds.start);
        log.pin(partition, name, start);
    }
}

/// The first generation watches the log that is open already; each later one opens its own.
pub fn log(room: LogRoom) -> Factory {
    factory(move |context| run(room.clone(), context))
}

async fn run(room: LogRoom, context: Context) -> Result<(), Fault> {
    let log = match room.slot.peek().filter(|_| context.generation == 1) {
        Some(log) => log,
        None => reopen(&room, &context).await?,
    };
    let mut beats = None;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = context.stopping() => return Ok(()),
            _ = look.tick() => {}
        }
        let progress = log.progress();
        if !progress.alive {
            return Err(Fault::internal("the log's writer thread has ended"));
        }
        if beats.replace(progress.beats) != Some(progress.beats) {
            context.progress.beat();
        }
    }
}

async fn reopen(room: &LogRoom, context: &Context) -> Result<Arc<EmbeddedLog>, Fault> {
    if let Some(old) = room.slot.take() {
        let _guard = context.progress.waiting("the old log to close");
        old.shutdown().await;
    }
    let opened = {
        let _guard = context.progress.waiting("recovery");
        room.open().await
    };
    let log = opened
        .map_err(|error| Fault::new(kind(&error), format!("cannot open the log: {error}")))?;
    room.slot.set(Arc::clone(&log));
    Ok(log)
}

fn kind(error: &LogError) -> Option<FailureKind> {
    Some(match error {
        LogError::Full { .. } => FailureKind::Full,
        LogError::Damaged { .. } => FailureKind::Corrupt,
        LogError::NewerFormat { .. } | LogError::Invalid { .. } => FailureKind::Config,
        LogError::Locked { .. } | LogError::Io { .. } => FailureKind::Unreachable,
        _ => FailureKind::Internal,
    })
}
