//! The embedded log: segments on the local disk, one writer thread, any number of readers.
//!
//! In: requests of the [`Log`] trait. Out: durable entries. Everything that blocks happens on the writer thread or on a
//! bounded number of blocking tasks.
//!
//! ```text
//! claim, append ──► bounded queue ──► writer thread: decide (fold) ─► write ─► fdatasync ─► publish ─► answer
//!                                                                                            │ durable end (watch)
//! <dir>/LOCK  CLOCK  RESERVE                                                                 ▼
//! <dir>/<stream>/<partition>/<base>.seg  ◄──────────────────────────────── readers: pread below the durable end
//! ```
//!
//! Not here: the rules of the fold (`crate::fold`), looking into a folder without opening it (`crate::inspect`).

#[cfg(debug_assertions)]
mod canary;
mod claims;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod create;
mod detach;
pub(crate) mod directory;
pub(crate) mod entry;
mod partition;
pub(crate) mod reader;
pub(crate) mod recovery;
mod registry;
mod request;
mod reserve;
mod retention;
pub(crate) mod segment;
pub(crate) mod shared;
mod space;
mod stats;
mod streams;
pub(crate) mod walk;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use garam_disk::{Fs, RealFs};
use garam_proto::{AgentId, Descriptor, LogOffset, PartitionId, StreamName};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use clock::{RealTime, Time};
pub use config::{LogConfig, OnFull, StreamConfig};
pub use stats::{PartitionStats, Progress, State};

use crate::api::{
    Ancestor, Append, AppendBody, Appended, Bounds, Claim, Claimed, Fingerprint, Log, LogError,
    LogReader, OriginState, Ticket,
};
use crate::offline::versions;
use clock::{LogClock, Saved};
use directory::Directory;
use reader::Reader;
use request::{Answered, Queued, Request};
use reserve::Reserve;
use shared::held;
use writer::Writer;

/// Requests that may wait, whatever their size.
const QUEUE_LEN: usize = 4096;
/// What a request weighs beside its payload.
const REQUEST_WEIGHT: usize = 512;
/// Readers that may be on their way to their first entry at the same time.
const OPENING: usize = 4;

/// What the log stands on; tests replace parts of it.
#[derive(Clone)]
pub struct Env {
    pub fs: Arc<dyn Fs>,
    pub time: Arc<dyn Time>,
    pub random: fn(&mut [u8]) -> std::io::Result<()>,
}

impl Default for Env {
    fn default() -> Self {
        Self { fs: Arc::new(RealFs), time: Arc::new(RealTime::default()), random: system_random }
    }
}

impl Env {
    pub(crate) fn random_u64(&self) -> std::io::Result<u64> {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The log of one folder, open and locked.
pub struct EmbeddedLog {
    env: Env,
    directory: Arc<Directory>,
    /// `None` once the log is closing.
    queue: Mutex<Option<mpsc::Sender<Queued>>>,
    /// Bytes of requests that may wait.
    room: Arc<Semaphore>,
    queue_bytes: u32,
    opening: Semaphore,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedLog {
    /// Locks the folder, recovers every configured partition and starts the writer thread. Blocks meanwhile: call it on
    /// a thread that may.
    pub fn open(config: LogConfig) -> Result<Arc<Self>, LogError> {
        Self::open_with(config, Env::default())
    }

    /// [`EmbeddedLog::open`] on a file system, clock and randomness of the caller's.
    pub fn open_with(config: LogConfig, env: Env) -> Result<Arc<Self>, LogError> {
        config.check()?;
        let dir = &config.dir;
        // Before the lock, which would be the first change to a folder that is not this build's.
        versions::check_versions_with(&env, dir)?;
        env.fs.create_dir(dir).map_err(|e| recovery::io("create", dir, e))?;
        let lock_path = dir.join("LOCK");
        let lock = env.fs.lock(&lock_path).map_err(|e| recovery::io("lock", &lock_path, e))?;
        let lock = lock.ok_or_else(|| LogError::Locked { path: dir.display().to_string() })?;
        for stream in &config.streams {
            streams::check_disk(&env, &config, stream)?;
        }
        let newest_ms = streams::newest_clock_ms(&env, dir)?;
        let clock = LogClock::resume(Saved::load(&*env.fs, dir), newest_ms, &*env.time);
        let directory = Arc::new(Directory::default());
        let queue_bytes = config.queue_bytes;
        let mut writer = Writer {
            env: env.clone(),
            directory: directory.clone(),
            clock,
            streams: Vec::new(),
            stream_numbers: HashMap::new(),
            partitions: Vec::new(),
            registry: registry::Registry::default(),
            dirty: Vec::new(),
            reserve: Reserve::find(&*env.fs, dir, config.reserve),
            clock_saved_ms: clock.now_ms(&*env.time),
            _lock: lock,
            config,
        };
        for stream in writer.config.streams.clone() {
            writer.add_stream(stream)?;
        }
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        let thread = spawn(writer, receiver)?;
        Ok(Arc::new(Self {
            env,
            directory,
            queue: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            opening: Semaphore::new(OPENING),
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Opens a stream that the configuration does not name (a pipeline's quarantine). The same again is no change.
    pub async fn add_stream(&self, config: StreamConfig) -> Result<(), LogError> {
        let answer = |answer| Request::AddStream { config, answer };
        self.enqueue(0, answer).await?.wait().await
    }

    /// Gives an open stream other limits, from the next upkeep on. Its number of partitions stays.
    pub async fn change_stream(&self, config: StreamConfig) -> Result<(), LogError> {
        let answer = |answer| Request::ChangeStream { config, answer };
        self.enqueue(0, answer).await?.wait().await
    }

    /// The configured streams and those added, by name, with their number of partitions.
    pub fn streams(&self) -> Vec<(StreamName, u32)> {
        let all = self.directory.all();
        all.iter().map(|stream| (stream.config.name.clone(), stream.config.partitions)).collect()
    }

    /// From now on segments may be removed. Pins do not survive a restart, so the core calls this once every pipeline it
    /// knows has set its own; until then the log only grows (and a full stream holds). A stream that is added later is
    /// trimmed once it has had a pin.
    pub fn allow_trimming(&self) {
        self.directory.allow_trimming();
    }

    /// How every partition is doing, by stream and index.
    pub fn stats(&self) -> Vec<PartitionStats> {
        let all = self.directory.all();
        all.iter().flat_map(|stream| &stream.partitions).map(|p| PartitionStats::of(p)).collect()
    }

    /// The writer thread's sign of life: one that is busy for too long is stuck, and only ending the process helps.
    pub fn progress(&self) -> Progress {
        Progress {
            beats: self.directory.heart.beats(),
            busy_for: self.directory.heart.busy_for(&*self.env.time),
            alive: held(&self.thread).as_ref().is_some_and(|thread| !thread.is_finished()),
        }
    }

    /// Takes no more requests, finishes those in the queue, and releases the folder.
    pub async fn shutdown(&self) {
        held(&self.queue).take();
        let Some(thread) = held(&self.thread).take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        if !joined.unwrap_or(false) {
            tracing::error!("log writer panicked; what it had acknowledged is durable");
        }
    }

    async fn enqueue<T>(
        &self,
        payload: usize,
        request: impl FnOnce(Answered<T>) -> Request,
    ) -> Result<Ticket<T>, LogError> {
        let bytes = payload.saturating_add(REQUEST_WEIGHT);
        let weight = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.queue_bytes);
        let queue = held(&self.queue).clone().ok_or(LogError::Closed)?;
        let permit = self.room.clone().acquire_many_owned(weight).await;
        let permit = permit.map_err(|_| LogError::Closed)?;
        let (answer, ticket) = oneshot::channel();
        let queued = Queued { request: request(answer), permit, bytes };
        queue.send(queued).await.map_err(|_| LogError::Closed)?;
        Ok(Ticket(ticket))
    }

    /// Walks to an offset on a blocking thread, a few at a time.
    async fn open_reader(&self, at: &PartitionId, from: LogOffset) -> Result<Reader, LogError> {
        let shared = self.directory.partition(at)?;
        let _turn = self.opening.acquire().await.map_err(|_| LogError::Closed)?;
        let fs = self.env.fs.clone();
        let opened = tokio::task::spawn_blocking(move || Reader::open(fs, shared, from)).await;
        opened.unwrap_or(Err(LogError::Closed))
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    fn partitions(&self, stream: &StreamName) -> Result<u32, LogError> {
        Ok(self.directory.stream(stream)?.config.partitions)
    }

    /// A partition that cannot tell its origins makes the answer an error, not an empty list: an agent that is told
    /// "nothing" would send everything again as something new.
    fn candidates(
        &self,
        stream: &StreamName,
        agent: AgentId,
        descriptor: &Descriptor,
    ) -> Result<Vec<OriginState>, LogError> {
        let mut found = Vec::new();
        for partition in &self.directory.stream(stream)?.partitions {
            if let Some(fault) = partition.fault() {
                return Err(fault);
            }
            found.extend(partition.origins_of(agent, |state| may_be(state, descriptor)));
        }
        Ok(found)
    }

    async fn claim(&self, claim: Claim) -> Result<Ticket<Claimed>, LogError> {
        self.directory.stream(&claim.stream)?;
        self.enqueue(0, |answer| Request::Claim { claim: Box::new(claim), answer }).await
    }

    async fn append(&self, at: &PartitionId, append: Append) -> Result<Ticket<Appended>, LogError> {
        let partition = self.directory.partition(at)?.number;
        let payload = check_block(&append)?.len();
        self.enqueue(payload, |answer| Request::Append { partition, append, answer }).await
    }

    fn bounds(&self, at: &PartitionId) -> Result<Bounds, LogError> {
        self.directory.partition(at)?.known_bounds()
    }

    fn ancestors(&self, at: &PartitionId) -> Result<Vec<Ancestor>, LogError> {
        Ok(self.directory.partition(at)?.ancestors.clone())
    }

    async fn fingerprint(
        &self,
        at: &PartitionId,
        offset: LogOffset,
    ) -> Result<Fingerprint, LogError> {
        Ok(self.open_reader(at, offset).await?.fingerprint())
    }

    async fn reader(
        &self,
        at: &PartitionId,
        from: LogOffset,
    ) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(self.open_reader(at, from).await?))
    }

    fn pin(&self, at: &PartitionId, reader: &str, next: LogOffset) {
        if let Ok(partition) = self.directory.partition(at) {
            partition.pin(reader, next);
        }
    }

    fn unpin(&self, at: &PartitionId, reader: &str) {
        if let Ok(partition) = self.directory.partition(at) {
            partition.unpin(reader);
        }
    }

    fn detached(&self, at: &PartitionId, reader: &str) -> Option<LogOffset> {
        let partition = self.directory.partition(at).ok()?;
        partition.change_detached(|detached| detached.stood(reader))
    }

    fn given_up(&self, at: &PartitionId, reader: &str, from: LogOffset) -> Option<u64> {
        let partition = self.directory.partition(at).ok()?;
        let start = partition.bounds().start;
        partition.change_detached(|detached| detached.units(reader, from, start))
    }

    fn rejoin(&self, at: &PartitionId, reader: &str) {
        if let Ok(partition) = self.directory.partition(at) {
            partition.change_detached(|detached| detached.rejoins(reader));
        }
    }
}

/// Whether this origin may be the one described: the same file identity or the same path; the agent decides.
/// A finished origin is nobody's: its file is gone, or its generation has ended.
fn may_be(state: &OriginState, descriptor: &Descriptor) -> bool {
    if state.retired {
        return false;
    }
    match (&state.descriptor, descriptor) {
        (Descriptor::File(known), Descriptor::File(asked)) => {
            let same_file = known.file_system == asked.file_system && known.inode == asked.inode;
            same_file || known.path == asked.path
        }
        (
            Descriptor::Database { server: known, .. },
            Descriptor::Database { server: asked, .. },
        ) => known == asked,
        (Descriptor::Snapshot { table: known, .. }, Descriptor::Snapshot { table: asked, .. }) => {
            known == asked
        }
        (Descriptor::Producer { key: known }, Descriptor::Producer { key: asked }) => {
            known == asked
        }
        _ => false,
    }
}

/// A block whose parts contradict each other would make the log unreadable, so it is refused at the door.
fn check_block(append: &Append) -> Result<Bytes, LogError> {
    let AppendBody::Block { header, payload } = &append.body else { return Ok(Bytes::new()) };
    let why = if header.origin != append.origin || header.session != append.session {
        "the block's header names another origin or session than its request".to_owned()
    } else if let Err(error) = header.check_payload(payload) {
        error.to_string()
    } else {
        return Ok(payload.clone());
    };
    Err(LogError::Invalid { why })
}

fn spawn(writer: Writer, queue: mpsc::Receiver<Queued>) -> Result<JoinHandle<()>, LogError> {
    let dir = writer.config.dir.clone();
    let failed = |e| recovery::io("start the writer thread of", &dir, e);
    // The thread has a runtime of its own only to wait for requests with a time-out.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(failed)?;
    let thread = std::thread::Builder::new().name("garam-log".into());
    thread.spawn(move || runtime.block_on(writer.run(queue))).map_err(failed)
}

fn system_random(into: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(into).map_err(|e| std::io::Error::other(e.to_string()))
}
