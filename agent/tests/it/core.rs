//! A scripted core: speaks the real protocol over real TLS and keeps the origin fold in memory.
//!
//! It checks what an agent owes (contiguity, claims before pushes, checksums, the window) and panics in `verify` when the
//! agent broke it. Scripts may hold acknowledgements back, cut connections, move marks and forget origins.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use garam_proto::block::{CONTINUES, UNTERMINATED};
use garam_proto::message::*;
use garam_proto::{
    AgentId, BlockKind, ClusterId, DecodeLimits, Descriptor, FrameLimits, FrameReader, Generation,
    LineageId, Message, SessionId, StreamName, decompress, records,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::pki::Pki;

/// One origin in the fold.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) stream: StreamName,
    pub(crate) descriptor: Descriptor,
    pub(crate) lineage: LineageId,
    pub(crate) start: u128,
    pub(crate) mark: u128,
    pub(crate) tail_hash: u64,
    pub(crate) reason: ClaimReason,
    pub(crate) claim: SessionId,
    /// Source bytes from `start` on; gaps are filled with NUL.
    pub(crate) bytes: Vec<u8>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) gaps: Vec<(u128, u128, GapReason)>,
    pub(crate) retired: bool,
}

/// A record as a reader of the log would see it.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Number of the append over all origins: the order in the log.
    pub(crate) order: u64,
    pub(crate) position: u128,
    pub(crate) bytes: Bytes,
    pub(crate) partial: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) origins: BTreeMap<Generation, Held>,
    /// What the agent did against the rules.
    pub(crate) offences: Vec<String>,
    pub(crate) sessions: u64,
    pub(crate) claims: u64,
    pub(crate) opens: u64,
    pub(crate) largest_in_flight: u64,
    pub(crate) byes: Vec<ByeReason>,
    /// Acknowledgements are kept back.
    pub(crate) withhold: bool,
    pub(crate) held: Option<Hold>,
    /// Refuse every session with this.
    pub(crate) refuse: Option<Bye>,
    pub(crate) max_part: u32,
    pub(crate) window: u32,
    order: u64,
}

pub(crate) struct Core {
    pub(crate) address: SocketAddr,
    pub(crate) pki: Pki,
    state: Arc<Mutex<State>>,
    cut: watch::Sender<u64>,
    nudge: watch::Sender<u64>,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) const AGENT: AgentId = AgentId([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]);

impl Core {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let pki = Pki::new();
        let acceptor = TlsAcceptor::from(Arc::new(pki.server()));
        let state = Arc::new(Mutex::new(State {
            origins: BTreeMap::new(),
            offences: Vec::new(),
            sessions: 0,
            claims: 0,
            opens: 0,
            largest_in_flight: 0,
            byes: Vec::new(),
            withhold: false,
            held: None,
            refuse: None,
            max_part: MAX_PART as u32,
            window: 8 * 1024 * 1024,
            order: 0,
        }));
        let (cut, cuts) = watch::channel(0);
        let (nudge, nudges) = watch::channel(0);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        runtime.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let session = Session {
                    state: shared.clone(),
                    id: SessionId(fastrand::u64(1..)),
                    slots: HashMap::new(),
                    in_flight: 0,
                    fragment: None,
                    parked: Vec::new(),
                };
                tokio::spawn(session.run(acceptor.clone(), tcp, cuts.clone(), nudges.clone()));
            }
        });
        Self { address, pki, state, cut, nudge, _runtime: runtime }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends every connection at once.
    pub(crate) fn cut_connections(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    /// Has sessions look at the script again: send what was withheld, announce a hold.
    pub(crate) fn nudge(&self) {
        self.nudge.send_modify(|n| *n += 1);
    }

    /// All records of a stream in log order.
    pub(crate) fn pieces(&self, stream: &str) -> Vec<Piece> {
        let state = self.state();
        let mut all: Vec<Piece> = state
            .origins
            .values()
            .filter(|o| o.stream.as_str() == stream)
            .flat_map(|o| o.pieces.clone())
            .collect();
        all.sort_by_key(|piece| (piece.order, piece.position));
        all
    }

    /// All whole records of a stream as text, in log order.
    pub(crate) fn lines(&self, stream: &str) -> Vec<String> {
        let pieces = self.pieces(stream).into_iter();
        pieces.map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
    }

    pub(crate) fn verify(&self) {
        let offences = self.state().offences.clone();
        assert!(offences.is_empty(), "the agent broke the protocol: {offences:#?}");
    }
}

struct Slot {
    generation: Generation,
    answer: u64,
}

struct Session {
    state: Arc<Mutex<State>>,
    id: SessionId,
    slots: HashMap<u32, Slot>,
    in_flight: u64,
    fragment: Option<(Push, BytesMut)>,
    /// Acknowledgements that the script keeps back.
    parked: Vec<(SlotMark, u64)>,
}

impl Session {
    async fn run(
        mut self,
        acceptor: TlsAcceptor,
        tcp: tokio::net::TcpStream,
        mut cuts: watch::Receiver<u64>,
        mut nudges: watch::Receiver<u64>,
    ) {
        cuts.mark_unchanged();
        let Ok(stream) = acceptor.accept(tcp).await else { return };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (answers, mut outgoing) = mpsc::channel::<Message>(1024);
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                let bytes = message.encode(0).unwrap();
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
            drop(writer.shutdown().await);
        });
        let mut buffer = BytesMut::new();
        let mut frames = FrameReader::new(FrameLimits::GREETING);
        loop {
            match frames.next(&mut buffer) {
                Ok(Some(frame)) => {
                    let message = Message::decode(&frame).unwrap();
                    if matches!(message, Message::Hello(_)) {
                        frames.set_limits(FrameLimits::SESSION);
                    }
                    for answer in self.answer(message, frame.payload) {
                        if answers.send(answer).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    self.state.lock().unwrap().offences.push(error.to_string());
                    return;
                }
            }
            tokio::select! {
                read = reader.read_buf(&mut buffer) => if !matches!(read, Ok(1..)) { return },
                _ = cuts.changed() => return,
                changed = nudges.changed() => {
                    if changed.is_err() { return }
                    for answer in self.look_again() {
                        if answers.send(answer).await.is_err() { return }
                    }
                }
            }
        }
    }

    fn look_again(&mut self) -> Vec<Message> {
        let state = self.state.lock().unwrap();
        let mut answers: Vec<Message> = state.held.clone().map(Message::from).into_iter().collect();
        if !state.withhold {
            for (mark, charge) in self.parked.drain(..) {
                self.in_flight -= charge;
                answers.push(Ack { marks: vec![mark] }.into());
            }
        }
        answers
    }

    fn answer(&mut self, message: Message, payload: Bytes) -> Vec<Message> {
        let shared = self.state.clone();
        let mut state = shared.lock().unwrap();
        match message {
            Message::Hello(hello) => {
                assert_eq!(hello.magic, MAGIC);
                state.sessions += 1;
                if let Some(bye) = &state.refuse {
                    return vec![bye.clone().into()];
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let welcome = Welcome {
                    version: 1,
                    features: 0,
                    build: "scripted core".into(),
                    cluster: ClusterId([9; 16]),
                    agent: AGENT,
                    session: self.id,
                    time_us: now.as_micros() as i64,
                    window: state.window,
                    max_part: state.max_part,
                    max_record: 64 * 1024 * 1024,
                };
                let hold = state.held.clone().map(Message::from);
                [Message::from(welcome)].into_iter().chain(hold).collect()
            }
            Message::Open(open) => {
                state.opens += 1;
                if open.queries.len() > MAX_OPENS {
                    state.offences.push("too many opens".into());
                }
                let candidates =
                    open.queries.iter().map(|query| candidates(&state, query)).collect();
                vec![OpenAck { number: open.number, candidates }.into()]
            }
            Message::Claim(claim) => vec![self.claim(&mut state, claim)],
            Message::Push(push) => {
                if self.fragment.is_some() {
                    state.offences.push("a push inside a fragmented block".into());
                }
                self.fragment = Some((push, BytesMut::from(&payload[..])));
                self.append_when_whole(&mut state)
            }
            Message::Part(part) => {
                match &mut self.fragment {
                    Some((push, bytes)) if push.slot == part.slot => {
                        bytes.extend_from_slice(&payload);
                    }
                    _ => state.offences.push("a part without its push".into()),
                }
                self.append_when_whole(&mut state)
            }
            Message::Gap(gap) => self.gap(&mut state, gap),
            Message::Retire(retire) => {
                let generation = self.slots.get(&retire.slot).map(|slot| slot.generation);
                match generation.and_then(|generation| state.origins.get_mut(&generation)) {
                    Some(held) if held.mark == retire.mark => held.retired = true,
                    _ => state.offences.push(format!("retire that does not fit: {retire:?}")),
                }
                Vec::new()
            }
            Message::Ping(ping) => vec![Pong { nonce: ping.nonce }.into()],
            Message::Bye(bye) => {
                state.byes.push(bye.reason);
                Vec::new()
            }
            other => {
                state.offences.push(format!("unexpected {}", other.name()));
                Vec::new()
            }
        }
    }

    fn claim(&mut self, state: &mut State, claim: Claim) -> Message {
        state.claims += 1;
        if self.slots.contains_key(&claim.slot) {
            state.offences.push("a slot was used twice".into());
        }
        let held = state.origins.entry(claim.generation).or_insert_with(|| Held {
            stream: claim.stream.clone(),
            descriptor: claim.descriptor.clone(),
            lineage: claim.lineage,
            start: claim.from,
            mark: claim.from,
            tail_hash: 0,
            reason: claim.reason,
            claim: self.id,
            bytes: Vec::new(),
            pieces: Vec::new(),
            gaps: Vec::new(),
            retired: false,
        });
        held.claim = self.id;
        self.slots.insert(claim.slot, Slot { generation: claim.generation, answer: 1 });
        let outcome = ClaimOutcome::Granted {
            mark: held.mark,
            tail_hash: held.tail_hash,
            resume: None,
            partition: 0,
            source_epoch: claim.source_epoch + 1,
        };
        ClaimAck { slot: claim.slot, answer: 1, outcome }.into()
    }

    fn append_when_whole(&mut self, state: &mut State) -> Vec<Message> {
        let whole =
            |(push, bytes): &(Push, BytesMut)| bytes.len() >= push.block.payload_len as usize;
        if !self.fragment.as_ref().is_some_and(whole) {
            return Vec::new();
        }
        let (push, payload) = self.fragment.take().unwrap();
        let (header, payload) = (push.block, payload.freeze());
        let Some(slot) = self.slots.get_mut(&push.slot) else {
            state.offences.push("push without claim".into());
            return Vec::new();
        };
        if push.answer < slot.answer {
            return Vec::new();
        }
        if let Err(error) = header.check(&DecodeLimits::default()) {
            state.offences.push(error.to_string());
        }
        if let Err(error) = header.check_payload(&payload) {
            state.offences.push(error.to_string());
        }
        self.in_flight += u64::from(header.payload_len);
        let alone = self.in_flight == u64::from(header.payload_len);
        if self.in_flight > u64::from(state.window) && !alone {
            state.offences.push(format!("window exceeded: {}", self.in_flight));
        }
        state.largest_in_flight = state.largest_in_flight.max(self.in_flight);
        state.order += 1;
        let order = state.order;
        let held = state.origins.get_mut(&slot.generation).unwrap();
        let charge = u64::from(header.payload_len);
        if held.claim != self.id {
            return Vec::new();
        }
        if header.from > held.mark || (header.from < held.mark && header.to > held.mark) {
            slot.answer += 1;
            self.in_flight -= charge;
            let (mark, tail_hash) = (held.mark, held.tail_hash);
            return vec![
                Reposition { slot: push.slot, answer: slot.answer, mark, tail_hash, resume: None }
                    .into(),
            ];
        }
        if header.from == held.mark {
            let raw = decompress(header.codec, &payload, header.raw_len, &DecodeLimits::default());
            let raw = Bytes::from(raw.unwrap());
            let lines = header.kind == BlockKind::Lines;
            let continues = held.bytes.last().is_some_and(|&b| b != b'\n');
            if lines && continues != (header.flags & CONTINUES != 0) && held.start == 0 {
                state.offences.push(format!("CONTINUES is wrong at {}", header.from));
            }
            if lines && (raw.last() != Some(&b'\n')) != (header.flags & UNTERMINATED != 0) {
                state.offences.push(format!("UNTERMINATED is wrong at {}", header.to));
            }
            match records(&header, &raw) {
                Ok(found) => held.pieces.extend(found.into_iter().map(|record| Piece {
                    order,
                    position: record.position,
                    bytes: record.bytes,
                    partial: record.partial,
                })),
                Err(error) => state.offences.push(error.to_string()),
            }
            if lines {
                held.bytes.extend_from_slice(&raw);
            } else {
                // Of records only the agent knows the source bytes.
                held.bytes.resize(held.bytes.len() + (header.to - header.from) as usize, 0);
            }
            let tail = garam_proto::hash::tail_hash(&held.bytes);
            let known = held.start == 0 || held.bytes.len() >= garam_proto::hash::TAIL_BYTES;
            if lines && known && tail != header.tail_hash {
                state.offences.push(format!("tail hash is wrong at {}", header.to));
            }
            held.mark = header.to;
            held.tail_hash = header.tail_hash;
        }
        let mark = SlotMark { slot: push.slot, mark: held.mark };
        self.acknowledge(state.withhold, mark, charge)
    }

    fn acknowledge(&mut self, withhold: bool, mark: SlotMark, charge: u64) -> Vec<Message> {
        if withhold {
            self.parked.push((mark, charge));
            return Vec::new();
        }
        self.in_flight -= charge;
        vec![Ack { marks: vec![mark] }.into()]
    }

    fn gap(&mut self, state: &mut State, gap: Gap) -> Vec<Message> {
        let Some(slot) = self.slots.get(&gap.slot) else {
            state.offences.push("gap without claim".into());
            return Vec::new();
        };
        let held = state.origins.get_mut(&slot.generation).unwrap();
        if gap.from != held.mark || gap.to <= gap.from {
            state.offences.push(format!("gap that does not fit: {gap:?} at {}", held.mark));
            return Vec::new();
        }
        held.gaps.push((gap.from, gap.to, gap.reason));
        held.bytes.resize(held.bytes.len() + (gap.to - gap.from) as usize, 0);
        held.mark = gap.to;
        let mark = SlotMark { slot: gap.slot, mark: held.mark };
        self.acknowledge(state.withhold, mark, 0)
    }
}

fn candidates(state: &State, query: &OpenQuery) -> Vec<Candidate> {
    let Descriptor::File(wanted) = &query.descriptor else { return Vec::new() };
    let fits = |held: &&Held| {
        let Descriptor::File(known) = &held.descriptor else { return false };
        held.stream == query.stream
            && (known.path == wanted.path
                || (known.file_system, known.inode) == (wanted.file_system, wanted.inode))
    };
    let known = state.origins.iter().filter(|(_, held)| fits(held));
    known
        .map(|(&generation, held)| Candidate {
            generation,
            descriptor: held.descriptor.clone(),
            lineage: held.lineage,
            mark: held.mark,
            tail_hash: held.tail_hash,
            resume: None,
        })
        .collect()
}

/// Waits until something holds, looking again and again; fails the test after a generous time.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never came true: {what}");
        never.recv_timeout(Duration::from_millis(10)).ok();
    }
}
