//! The engine: decides what is read, claimed and sent, and believes only acknowledgements.
//!
//! ```text
//!        met ──► Asking ──OpenAck──► Unclaimed ──Claim──► Claiming ──ClaimAck──► Open
//!                  ▲ no state           ▲  └── Held / Denied: later ──┘            │ look, read, push, ack
//!                  └────────────────────┴───────────── connection lost ◄───────────┘
//! ```
//!
//! In: [`Event`]s (answers of the core, sizes from the compressor) and the time. Out: [`Job`]s in wire order, checkpoint
//! snapshots. Promise (protocol §2): a block begins at the answered mark or where the block before it ended; after a lost
//! connection everything unacknowledged is read again from the mark; a position is continued only in content whose tail
//! hash agrees; what can no longer be read becomes a gap; an older origin of a lineage is acknowledged to its end before a
//! younger one is read. It never waits: whatever is full or slow is visited again.
//! Here: events and the schedule. In `origin` the state of one origin, in `meet` and `ask` how origins are found again, in `claim`
//! what the core's marks mean, in `read` blocks and acknowledgements, in `ledger` checkpoint and status, in `reload` a new
//! configuration.

mod ask;
mod claim;
mod ledger;
mod lineages;
mod meet;
mod origin;
mod rate;
mod read;
mod reload;
mod schedule;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use garam_proto::{AgentId, ClusterId, Codec, Message, SessionId, message};
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::Entry;
use crate::compress::{Job, Outgoing, Pool};
use crate::ship::window::Windows;
use crate::source::{Handle, Source};
use crate::status::{FileStatus, Status, Totals};
use lineages::Lineages;
use origin::{Id, Origin, Stage};
use rate::Rate;
pub use reload::Reload;
use schedule::Schedule;

/// Origins visited in one step: between two steps the engine hears what has happened, and a step that is blocked at its
/// first visit has not looked through all that are due.
const VISITS: usize = 64;
/// How often a stopping engine looks whether it is done.
const DRAIN_PULSE: Duration = Duration::from_millis(50);
/// Between two searches pass at least this many times what one took, up to the longest pause.
const SEARCH_SHARE: u32 = 50;
const LONGEST_SEARCH_PAUSE: Duration = Duration::from_secs(10);
/// So many times rarer are searches while every folder is watched: what was never told of is found then.
const WATCHED: u32 = 30;
const LONGEST_WATCHED: Duration = Duration::from_secs(60);
/// The shortest pause between two searches that were asked for by what was told.
const TOLD_SEARCH: Duration = Duration::from_millis(100);
const NOT_URGENT: Duration = Duration::from_secs(1);
const TOGETHER: Duration = Duration::from_millis(250);
/// How much longer than its deadline a stop waits for the checkpoint.
const GRACE: Duration = Duration::from_secs(2);

/// What reaches the engine from outside.
#[derive(Debug)]
pub enum Event {
    Connected(Connection),
    Disconnected,
    Message(Message),
    /// A block left the compressor.
    Compressed {
        slot: u32,
        answer: u64,
        to: u128,
        payload_len: u64,
        records: u32,
    },
    /// The checkpoint was written, or why not.
    Saved(Result<(), String>),
    Status(oneshot::Sender<Status>),
    /// Something changed in a folder that is watched.
    Rung,
    /// The configuration was read again.
    Reload(Box<Reload>),
    /// Read no more; end when everything sent is acknowledged.
    Stop,
}

/// A session as agreed.
#[derive(Debug)]
pub struct Connection {
    pub wire: mpsc::Sender<Outgoing>,
    pub core: String,
    pub cluster: ClusterId,
    pub agent: AgentId,
    pub session: SessionId,
    pub window: u64,
    pub max_part: usize,
    pub max_record: usize,
}

/// What the engine is told at the start.
#[derive(Debug, Clone)]
pub struct Settings {
    pub block_size: usize,
    pub linger: Duration,
    pub window: u64,
    pub poll: Duration,
    pub discover: Duration,
    /// How long a stop waits for acknowledgements.
    pub drain: Duration,
    /// How long a file that left its place must be quiet before it is let go; unlinked ones five times as long.
    pub quiet: Duration,
    /// Raw bytes read per second, over all files.
    pub rate: Option<u64>,
    /// How many bytes unread deleted files may keep on the disk.
    pub hold_unlinked: u64,
    pub host: String,
}

/// Where jobs go. The engine is the only sender, so room that is seen stays.
pub struct Outbox<'a>(pub &'a mpsc::Sender<Job>);

impl Outbox<'_> {
    fn has_room(&self) -> bool {
        self.0.capacity() > 0
    }

    fn send(&mut self, job: Job) {
        // Callers check `has_room` first; a closed channel means that the agent is ending.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.try_send(job) {
            tracing::error!(action = "report this", "job queue overflowed");
        }
    }
}

/// When to call again.
#[derive(Debug, Clone, Copy)]
pub struct Wake {
    pub at: Instant,
    /// Also as soon as the outbox has room.
    pub blocked: bool,
}

/// What a visit to an origin asks for.
enum Next {
    At(Instant),
    /// When a window opens.
    Window,
    /// When an answer comes.
    Answer,
    Gone,
}

/// A checkpoint to write.
pub type Snapshot = Vec<Entry>;

pub struct Engine {
    settings: Settings,
    source: Box<dyn Source>,
    pool: Pool,
    snapshots: mpsc::Sender<Snapshot>,
    /// Each in a place of its own: a table of very many is half empty.
    origins: HashMap<Id, Box<Origin>>,
    next_id: u64,
    next_slot: u32,
    next_open: u64,
    slots: HashMap<u32, Id>,
    handles: HashMap<Handle, Id>,
    schedule: Schedule,
    waiting: HashSet<Id>,
    lineages: Lineages,
    /// Who has a lineage now and does not know yet who comes before it there.
    unordered: HashSet<Id>,
    asks: BTreeSet<Id>,
    asked: HashMap<u64, Vec<Id>>,
    /// Checkpoint entries whose origin was not found yet, and since when.
    missing: Vec<(Entry, Instant)>,
    connection: Option<Connection>,
    announce: bool,
    windows: Windows,
    search_at: Instant,
    /// No search before, whatever is told.
    rested_at: Instant,
    /// When buffers and deleted files are looked at.
    tidy_at: Instant,
    saved: ledger::Saving,
    stopping: Option<Instant>,
    started: Instant,
    totals: Totals,
    finished: VecDeque<FileStatus>,
    read_before: u64,
    rate: Rate,
    /// A codec the compressor does not know of yet.
    codec: Option<(Codec, i32)>,
}

impl Engine {
    pub fn new(
        settings: Settings,
        mut source: Box<dyn Source>,
        entries: Vec<Entry>,
        pool: Pool,
        snapshots: mpsc::Sender<Snapshot>,
        now: Instant,
    ) -> Self {
        let rate = Rate::new(settings.rate, now);
        source.expect(entries.iter().map(Entry::expected).collect());
        let missing = entries.into_iter().map(|entry| (entry, now)).collect();
        Self {
            settings,
            source,
            pool,
            snapshots,
            origins: HashMap::new(),
            next_id: 0,
            next_slot: 0,
            next_open: 0,
            slots: HashMap::new(),
            handles: HashMap::new(),
            schedule: Schedule::default(),
            waiting: HashSet::new(),
            lineages: Lineages::default(),
            unordered: HashSet::new(),
            asks: BTreeSet::new(),
            asked: HashMap::new(),
            missing,
            connection: None,
            announce: false,
            windows: Windows::default(),
            search_at: now,
            rested_at: now,
            tidy_at: now,
            saved: ledger::Saving::new(now),
            stopping: None,
            started: now,
            totals: Totals::default(),
            finished: VecDeque::new(),
            read_before: 0,
            rate,
            codec: None,
        }
    }

    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected(connection) => self.connected(connection, now),
            Event::Disconnected => self.disconnected(now),
            Event::Message(message) => self.answered(message, now),
            Event::Compressed { slot, answer, to, payload_len, records } => {
                self.compressed(slot, answer, to, payload_len, records);
                self.wake_waiting(now);
            }
            Event::Saved(result) => self.saved_checkpoint(result, now),
            Event::Status(reply) => {
                // Whoever asked may have gone.
                drop(reply.send(self.status(now)));
            }
            Event::Rung => self.listen(now),
            Event::Reload(reload) => self.reload(*reload, now),
            Event::Stop => {
                self.stopping.get_or_insert(now + self.settings.drain);
                self.saved.force();
            }
        }
    }

    /// Does what is due and says when to come back.
    pub fn step(&mut self, now: Instant, outbox: &mut Outbox<'_>) -> Wake {
        if now >= self.search_at && self.stopping.is_none() {
            self.search(now);
            self.plan_search(now, now.elapsed());
        }
        if now >= self.tidy_at {
            self.give_up_deleted(now);
            self.rest();
            self.tidy_at = now + self.settings.discover;
        }
        self.order(now);
        self.announce_codec(outbox);
        let mut blocked = self.announce_connection(outbox);
        for id in self.schedule.due(now, VISITS) {
            if self.connection.is_some() && !outbox.has_room() {
                blocked = true;
                break;
            }
            self.schedule.remove(id);
            let next = self.attend(id, now, outbox);
            self.plan(id, next, now);
        }
        if !self.asks.is_empty() && self.connection.is_some() && self.stopping.is_none() {
            blocked |= !outbox.has_room();
            self.ask(outbox);
        }
        self.save(now);
        let search_at = if self.stopping.is_some() { now + DRAIN_PULSE } else { self.search_at };
        let mut at = search_at.min(self.tidy_at).min(self.saved.due(now));
        if !blocked && let Some(first) = self.schedule.first() {
            at = at.min(first);
        }
        Wake { at: at.max(now), blocked }
    }

    /// Whether a stop is complete: all acknowledged (or given up), and the checkpoint says so.
    pub fn is_finished(&self, now: Instant) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let drained = self.connection.is_none() || self.origins.values().all(|o| o.sent.is_empty());
        let told = self.saved.is_clean() || self.saved.is_failing();
        (drained || now >= deadline) && (told || now >= deadline + GRACE)
    }

    fn plan(&mut self, id: Id, next: Next, now: Instant) {
        match next {
            Next::At(at) => {
                self.schedule.set(id, self.together(at, now));
            }
            // Also without room it is looked at: what is truncated meanwhile must be seen.
            Next::Window => {
                self.waiting.insert(id);
                self.schedule.set(id, now + self.settings.poll);
            }
            Next::Answer => {}
            Next::Gone => {
                self.conclude(id, now);
                self.forget(id);
            }
        }
    }

    /// Visits that are not urgent are made many at a time: a wake-up costs more than a look.
    fn together(&self, at: Instant, now: Instant) -> Instant {
        if at.duration_since(now) < NOT_URGENT {
            return at;
        }
        let since = at.duration_since(self.started).as_millis();
        let since = since.next_multiple_of(TOGETHER.as_millis());
        self.started + Duration::from_millis(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// A search over very many files must not be all the agent does.
    fn plan_search(&mut self, now: Instant, took: Duration) {
        let pause = (took * SEARCH_SHARE).min(LONGEST_SEARCH_PAUSE);
        let discover = self.settings.discover;
        let usual = match self.source.is_watched() {
            true => discover.max((discover * WATCHED).min(LONGEST_WATCHED)),
            false => discover,
        };
        self.search_at = now + usual.max(pause);
        self.rested_at = now + discover.min(TOLD_SEARCH).max(pause);
    }

    /// Frees the buffers when nothing was read since the last look.
    fn rest(&mut self) {
        let read = std::mem::replace(&mut self.read_before, self.totals.bytes_read);
        if read == self.totals.bytes_read {
            self.pool.shrink();
        }
    }

    /// Brings a visit forward to now.
    fn visit(&mut self, id: Id, now: Instant) {
        self.waiting.remove(&id);
        self.schedule.set(id, now);
    }

    fn wake_waiting(&mut self, now: Instant) {
        for id in self.waiting.drain() {
            self.schedule.set(id, now);
        }
    }

    fn connected(&mut self, connection: Connection, now: Instant) {
        let window = connection.window.min(self.settings.window);
        self.windows = Windows::begin(window, self.settings.linger);
        for (&id, origin) in &mut self.origins {
            origin.name_lineage(connection.agent);
            self.lineages.join(id, None, origin.lineage);
        }
        self.connection = Some(connection);
        self.announce = true;
        self.unordered.extend(self.origins.keys());
        // Those with something to read claim at once, idle ones one after the other behind them.
        let ids: BTreeSet<Id> = self.origins.keys().copied().collect();
        self.schedule.clear();
        for (number, id) in (0u32..).zip(ids) {
            let idle = self.origins.get(&id).is_some_and(|o| o.seen_end <= o.cut.position);
            let pause = if idle { Duration::from_millis(2) * number } else { Duration::ZERO };
            self.schedule.set(id, now + pause);
        }
    }

    fn disconnected(&mut self, now: Instant) {
        if self.connection.take().is_some() {
            self.totals.reconnects += 1;
        }
        self.announce = false;
        self.slots.clear();
        self.asked.clear();
        self.asks.clear();
        self.waiting.clear();
        self.windows = Windows::default();
        self.schedule.clear();
        for (&id, origin) in &mut self.origins {
            origin.disconnected();
            self.schedule.set(id, now);
        }
    }

    fn announce_connection(&mut self, outbox: &mut Outbox<'_>) -> bool {
        let Some(connection) = self.connection.as_ref().filter(|_| self.announce) else {
            return false;
        };
        if !outbox.has_room() {
            return true;
        }
        outbox
            .send(Job::Connection { wire: connection.wire.clone(), max_part: connection.max_part });
        self.announce = false;
        false
    }

    fn answered(&mut self, message: Message, now: Instant) {
        match message {
            Message::OpenAck(ack) => self.opened(ack, now),
            Message::ClaimAck(ack) => self.claimed(ack, now),
            Message::Ack(ack) => {
                for message::SlotMark { slot, mark } in ack.marks {
                    self.acknowledged(slot, mark, now);
                }
                self.wake_waiting(now);
            }
            Message::Reposition(reposition) => self.repositioned(reposition, now),
            Message::Hold(hold) => {
                tracing::info!(
                    stream = %hold.stream, held = hold.held, why = hold.why,
                    "the core holds or releases a stream"
                );
                self.windows.hold(&hold);
                self.wake_waiting(now);
            }
            Message::Throttle(throttle) => {
                self.windows.throttle(&throttle);
                self.wake_waiting(now);
            }
            other => tracing::warn!(message = other.name(), "the core sent what only agents send"),
        }
    }

    fn forget(&mut self, id: Id) {
        if let Some(origin) = self.origins.remove(&id) {
            self.lineages.join(id, origin.lineage, None);
            if let Stage::Open { slot, .. } | Stage::Claiming { slot } = origin.stage {
                self.slots.remove(&slot);
            }
            if let Some((_, _, partition)) = origin.slot() {
                let charge = origin.sent.iter().map(|sent| sent.charge).sum();
                self.windows.release(&origin.stream, partition, charge);
            }
            if let Some(handle) = origin.handle {
                self.handles.remove(&handle);
                self.source.close(handle);
            }
        }
        self.asks.remove(&id);
        self.waiting.remove(&id);
        self.schedule.remove(id);
        self.saved.mark_dirty();
    }
}

/// Runs the engine on the calling thread until it is stopped and drained.
pub async fn drive(mut engine: Engine, mut events: mpsc::Receiver<Event>, jobs: mpsc::Sender<Job>) {
    loop {
        while let Ok(event) = events.try_recv() {
            engine.handle(event, Instant::now());
        }
        let wake = engine.step(Instant::now(), &mut Outbox(&jobs));
        if engine.is_finished(Instant::now()) {
            return;
        }
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => engine.handle(event, Instant::now()),
                None => return,
            },
            permit = jobs.reserve(), if wake.blocked => drop(permit),
            () = tokio::time::sleep_until(wake.at.into()) => {}
        }
    }
}
