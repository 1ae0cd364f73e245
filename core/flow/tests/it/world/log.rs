//! A log in memory that applies the fold, loses what was not synced, and can be trimmed, filled and re-incarnated.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use garam_flow::{quarantine_stream, requeue_stream, taken_origin};
use garam_log::{
    Ancestor, Append, AppendBody, Appended, Bounds, Claim, Claimed, Entry, EntryBody, Fingerprint,
    Log, LogError, LogReader, OriginState, Ticket,
};
use garam_proto::{
    AgentId, BlockHeader, BlockKind, Descriptor, Incarnation, LogOffset, OriginId, PartitionId,
    StreamName,
};
use garam_stage::QuarantinedRecord;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use super::{OUTPUTS, PIPELINE, World, entries, input, output};

/// What lies in the input.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// A block of lines.
    Lines(Vec<String>),
    /// A block that does not decode and claims to hold so many records.
    Broken(u32),
    Gap(u64),
    Claim,
    Advance,
}

pub(crate) struct LogState {
    partitions: BTreeMap<PartitionId, Partition>,
    /// What the input was made of, by offset.
    pub(crate) items: Vec<Item>,
    /// The quarantine takes nothing.
    pub(crate) quarantine_full: bool,
    /// The input is damaged here.
    pub(crate) unreadable: Option<LogOffset>,
    /// Behind the last input entry that was read.
    pub(crate) read_to: LogOffset,
}

pub(crate) struct Partition {
    pub(crate) incarnation: Incarnation,
    pub(crate) ancestors: Vec<Ancestor>,
    pub(crate) start: LogOffset,
    /// All entries ever durable; those below `start` are trimmed.
    pub(crate) entries: Vec<Entry>,
    unsynced: Vec<Unsynced>,
    origins: BTreeMap<OriginId, OriginState>,
    pub(crate) pins: BTreeMap<String, LogOffset>,
    pub(crate) detached: BTreeMap<String, CutOff>,
}

/// A reader the log went on without.
pub(crate) struct CutOff {
    pub(crate) stood: LogOffset,
    /// What it misses, where that was counted.
    pub(crate) units: Option<u64>,
}

struct Unsynced {
    entry: Option<Entry>,
    reply: Box<dyn FnOnce() + Send>,
}

impl LogState {
    pub(crate) fn new(items: &[Item]) -> Self {
        let quarantine = PartitionId { stream: quarantine_stream(PIPELINE), index: 0 };
        let requeue = PartitionId { stream: requeue_stream(PIPELINE), index: 0 };
        let partitions = [
            (input(), Partition::new(1)),
            (quarantine, Partition::new(2)),
            (requeue, Partition::new(3)),
        ];
        let outputs = (0..OUTPUTS).map(|index| (output(index), Partition::new(4)));
        let partitions = partitions.into_iter().chain(outputs).collect();
        let mut log = Self {
            partitions,
            items: Vec::new(),
            quarantine_full: false,
            unreadable: None,
            read_to: LogOffset::ZERO,
        };
        items.iter().for_each(|item| log.push(item.clone()));
        log
    }

    pub(crate) fn push(&mut self, item: Item) {
        let input = self.input();
        let body = entries::body(&item, input.entries.last().map_or(0, |entry| entry.origin.mark));
        let mark = match &body {
            EntryBody::Block { header, .. } => header.to,
            EntryBody::Gap { to, .. } | EntryBody::Advance { to, .. } => *to,
            _ => input.entries.last().map_or(0, |entry| entry.origin.mark),
        };
        let state = OriginState { mark, ..entries::state(entries::source()) };
        input.add(state, body);
        self.items.push(item);
    }

    /// An entry of the same pipeline's quarantine for another input partition.
    pub(crate) fn push_foreign_quarantine(&mut self, mut name: QuarantinedRecord, bytes: &[u8]) {
        name.partition += 1;
        let origin = garam_flow::quarantine_origin(PIPELINE, name.partition);
        let mut records = garam_proto::RecordsBuilder::new(0);
        records.push(0, &name.encode(bytes).unwrap());
        let (payload, count) = records.finish();
        let EntryBody::Block { header, payload } = entries::block(0, payload.into(), count, 0)
        else {
            unreachable!("a block is a block")
        };
        let kind = BlockKind::Records;
        let header = BlockHeader { origin, kind, ..header };
        self.quarantine().add(entries::state(origin), EntryBody::Block { header, payload });
    }

    pub(crate) fn input(&mut self) -> &mut Partition {
        self.partitions.get_mut(&input()).unwrap()
    }

    pub(crate) fn quarantine(&mut self) -> &mut Partition {
        let at = PartitionId { stream: quarantine_stream(PIPELINE), index: 0 };
        self.partitions.get_mut(&at).unwrap()
    }

    /// Every durable record of an output partition, by the origin that wrote it, with its position.
    pub(crate) fn records_of(&self, at: &PartitionId) -> Vec<(OriginId, u128, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in &self.partitions[at].entries {
            let EntryBody::Block { header, payload } = &entry.body else { continue };
            let limits = garam_proto::DecodeLimits::default();
            let raw = garam_proto::decompress(header.codec, payload, header.raw_len, &limits);
            for record in garam_proto::records(header, &raw.unwrap().into()).unwrap() {
                found.push((header.origin, record.position, record.bytes.to_vec()));
            }
        }
        found
    }

    pub(crate) fn end(&self) -> LogOffset {
        self.partitions[&input()].end()
    }

    pub(crate) fn requeue_end(&self) -> LogOffset {
        self.partitions[&PartitionId { stream: requeue_stream(PIPELINE), index: 0 }].end()
    }

    pub(crate) fn forget_unsynced(&mut self) {
        self.partitions.values_mut().for_each(Partition::forget_unsynced);
    }

    /// Every durable quarantine entry with its offset, whole.
    pub(crate) fn quarantined(&mut self) -> Vec<(LogOffset, QuarantinedRecord, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in &self.quarantine().entries {
            let EntryBody::Block { header, payload } = &entry.body else { continue };
            if entry.origin.origin == taken_origin(PIPELINE) {
                continue;
            }
            for record in garam_proto::records(header, payload).unwrap() {
                let (name, bytes) = QuarantinedRecord::decode(&record.bytes).unwrap();
                found.push((entry.offset, name, bytes.to_vec()));
            }
        }
        found
    }
}

impl Partition {
    fn new(seed: u8) -> Self {
        Self {
            incarnation: Incarnation([seed; 16]),
            ancestors: Vec::new(),
            start: LogOffset::ZERO,
            entries: Vec::new(),
            unsynced: Vec::new(),
            origins: BTreeMap::new(),
            pins: BTreeMap::new(),
            detached: BTreeMap::new(),
        }
    }

    fn end(&self) -> LogOffset {
        LogOffset(self.entries.len() as u64)
    }

    fn add(&mut self, state: OriginState, body: EntryBody) {
        let entry = self.next_entry(state, body);
        self.origins.insert(entry.origin.origin, OriginState::clone(&entry.origin));
        self.entries.push(entry);
    }

    fn next_entry(&self, state: OriginState, body: EntryBody) -> Entry {
        let waiting = self.unsynced.iter().filter(|unsynced| unsynced.entry.is_some()).count();
        let offset = LogOffset((self.entries.len() + waiting) as u64);
        let fingerprint = Fingerprint(xxh3_64(format!("{offset} {body:?}").as_bytes()));
        Entry { offset, fingerprint, origin: Arc::new(state), body }
    }

    fn sync(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        let synced = std::mem::take(&mut self.unsynced);
        synced
            .into_iter()
            .map(|Unsynced { entry, reply }| {
                self.entries.extend(entry);
                reply
            })
            .collect()
    }

    fn forget_unsynced(&mut self) {
        self.unsynced.clear();
        self.origins = self
            .entries
            .iter()
            .map(|entry| (entry.origin.origin, OriginState::clone(&entry.origin)))
            .collect();
    }

    fn fold(&mut self, append: &Append) -> Result<Verdict, LogError> {
        let state = self.origins.get(&append.origin).expect("claimed before").clone();
        let (from, to, resume, body) = match &append.body {
            AppendBody::Block { header, payload } => {
                header.check_payload(payload).unwrap();
                assert_eq!((header.origin, header.session), (append.origin, append.session));
                let body = EntryBody::Block { header: header.clone(), payload: payload.clone() };
                (header.from, header.to, header.resume.clone(), body)
            }
            AppendBody::Advance { from, to, resume, .. } => {
                (*from, *to, resume.clone(), EntryBody::Advance { from: *from, to: *to })
            }
            _ => return Err(LogError::Invalid { why: "a flow appends no such thing".into() }),
        };
        let mark = state.mark;
        if state.claim != append.session {
            return Ok(Verdict::Answer(Appended::Stale));
        }
        if to <= mark {
            return Ok(Verdict::Answer(Appended::Repeat { mark }));
        }
        if from != mark {
            return Ok(Verdict::Answer(Appended::Reposition { mark, tail_hash: 0, resume: None }));
        }
        let state = OriginState { mark: to, resume: resume.or(state.resume.clone()), ..state };
        Ok(Verdict::Entry(self.next_entry(state, body)))
    }

    fn enqueue<T: Send + 'static>(&mut self, entry: Option<Entry>, answer: T) -> Ticket<T> {
        let (reply, ticket) = oneshot::channel();
        if let Some(entry) = &entry {
            self.origins.insert(entry.origin.origin, OriginState::clone(&entry.origin));
        }
        let reply = Box::new(move || drop(reply.send(Ok(answer))));
        self.unsynced.push(Unsynced { entry, reply });
        Ticket(ticket)
    }
}

enum Verdict {
    Entry(Entry),
    Answer(Appended),
}

pub(crate) struct FakeLog {
    pub(crate) world: Arc<World>,
    pub(crate) life: u64,
}

impl FakeLog {
    /// The disk: makes durable what waits, a little later, and answers later still.
    fn sync_soon(&self, at: PartitionId) {
        let (world, life) = (Arc::clone(&self.world), self.life);
        // The partitions of one stream lie on disks of different speed.
        let lag = if at.stream == output(0).stream { at.index * 6 } else { 0 };
        tokio::spawn(async move {
            for _ in 0..=lag {
                world.step(life).await;
            }
            let replies = world.lock().log.partitions.get_mut(&at).unwrap().sync();
            world.changed.notify_waiters();
            world.step(life).await;
            replies.into_iter().for_each(|reply| reply());
        });
    }
}

#[async_trait]
impl Log for FakeLog {
    fn partitions(&self, stream: &StreamName) -> Result<u32, LogError> {
        Ok(if *stream == output(0).stream { OUTPUTS } else { 1 })
    }

    fn candidates(
        &self,
        _stream: &StreamName,
        _agent: AgentId,
        _descriptor: &Descriptor,
    ) -> Result<Vec<OriginState>, LogError> {
        Ok(Vec::new())
    }

    async fn claim(&self, claim: Claim) -> Result<Ticket<Claimed>, LogError> {
        self.world.step(self.life).await;
        let partitions = self.partitions(&claim.stream)?;
        let index = garam_proto::hash::partition_of(claim.lineage, partitions);
        let at = PartitionId { stream: claim.stream.clone(), index };
        let ticket = {
            let mut state = self.world.lock();
            let partition = state.log.partitions.get_mut(&at).unwrap();
            let known = partition.origins.get(&claim.origin).cloned();
            let new = OriginState {
                host: claim.host,
                source: claim.source,
                descriptor: claim.descriptor,
                lineage: claim.lineage,
                mark: claim.from,
                ..entries::state(claim.origin)
            };
            let claimed = OriginState { claim: claim.session, ..known.unwrap_or(new) };
            let entry = partition.next_entry(claimed.clone(), EntryBody::Claim);
            let answer = Claimed { partition: at.clone(), state: claimed };
            partition.enqueue(Some(entry), answer)
        };
        self.sync_soon(at);
        Ok(ticket)
    }

    async fn append(&self, at: &PartitionId, append: Append) -> Result<Ticket<Appended>, LogError> {
        self.world.step(self.life).await;
        let ticket = {
            let mut state = self.world.lock();
            if state.log.quarantine_full {
                let why = "its quota is used up".into();
                return Err(LogError::Full { partition: at.clone(), why });
            }
            let partition = state.log.partitions.get_mut(at).unwrap();
            match partition.fold(&append)? {
                Verdict::Entry(entry) => {
                    let (offset, mark) = (entry.offset, entry.origin.mark);
                    partition.enqueue(Some(entry), Appended::Durable { offset, mark })
                }
                Verdict::Answer(answer) => partition.enqueue(None, answer),
            }
        };
        self.sync_soon(at.clone());
        Ok(ticket)
    }

    fn bounds(&self, at: &PartitionId) -> Result<Bounds, LogError> {
        let state = self.world.lock();
        let partition = &state.log.partitions[at];
        let (incarnation, start, end) = (partition.incarnation, partition.start, partition.end());
        Ok(Bounds { incarnation, start, end })
    }

    fn ancestors(&self, at: &PartitionId) -> Result<Vec<Ancestor>, LogError> {
        Ok(self.world.lock().log.partitions[at].ancestors.clone())
    }

    async fn fingerprint(
        &self,
        at: &PartitionId,
        offset: LogOffset,
    ) -> Result<Fingerprint, LogError> {
        self.world.step(self.life).await;
        let state = self.world.lock();
        let before = offset.0.checked_sub(1).map(|before| before as usize);
        let entries = &state.log.partitions[at].entries;
        Ok(before.map_or(Fingerprint(0), |before| entries[before].fingerprint))
    }

    async fn reader(
        &self,
        at: &PartitionId,
        from: LogOffset,
    ) -> Result<Box<dyn LogReader>, LogError> {
        self.world.step(self.life).await;
        let bounds = self.bounds(at)?;
        assert!(bounds.start <= from && from <= bounds.end, "a reader begins inside the log");
        let (world, life, at) = (Arc::clone(&self.world), self.life, at.clone());
        Ok(Box::new(FakeReader { world, life, at, position: from }))
    }

    fn pin(&self, at: &PartitionId, reader: &str, next: LogOffset) {
        let mut state = self.world.lock();
        state.log.partitions.get_mut(at).unwrap().pins.insert(reader.into(), next);
    }

    fn unpin(&self, at: &PartitionId, reader: &str) {
        let mut state = self.world.lock();
        state.log.partitions.get_mut(at).unwrap().pins.remove(reader);
    }

    fn detached(&self, at: &PartitionId, reader: &str) -> Option<LogOffset> {
        self.world.lock().log.partitions[at].detached.get(reader).map(|cut| cut.stood)
    }

    fn given_up(&self, at: &PartitionId, reader: &str, from: LogOffset) -> Option<u64> {
        let state = self.world.lock();
        let cut = state.log.partitions[at].detached.get(reader)?;
        cut.units.filter(|_| cut.stood == from)
    }

    fn rejoin(&self, at: &PartitionId, reader: &str) {
        let mut state = self.world.lock();
        state.log.partitions.get_mut(at).unwrap().detached.remove(reader);
    }
}

struct FakeReader {
    world: Arc<World>,
    life: u64,
    at: PartitionId,
    position: LogOffset,
}

#[async_trait]
impl LogReader for FakeReader {
    async fn next(&mut self) -> Result<Entry, LogError> {
        let (at, position) = (self.at.clone(), self.position);
        self.world.eventually(|state| state.log.partitions[&at].end() > position).await;
        Ok(self.try_next().await?.expect("an entry stays durable"))
    }

    async fn try_next(&mut self) -> Result<Option<Entry>, LogError> {
        self.world.step(self.life).await;
        let state = &mut *self.world.lock();
        let partition = &state.log.partitions[&self.at];
        if self.at == input() && state.log.unreadable == Some(self.position) {
            let (partition, offset) = (self.at.clone(), self.position);
            let (file, why) = ("00.seg".into(), "its checksum differs".into());
            return Err(LogError::Damaged { partition, offset, file, at: 0, why });
        }
        if self.position < partition.start {
            let (start, end) = (partition.start, partition.end());
            let (partition, offset) = (self.at.clone(), self.position);
            return Err(LogError::OutOfRange { partition, offset, start, end });
        }
        let entry = partition.entries.get(self.position.0 as usize).cloned();
        if entry.is_some() {
            self.position = self.position.next();
            if self.at == input() {
                state.log.read_to = self.position;
                self.world.changed.notify_waiters();
            }
        }
        Ok(entry)
    }

    fn position(&self) -> LogOffset {
        self.position
    }
}
