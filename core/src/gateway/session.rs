//! One agent's connection: greets it, reads its frames, enqueues what they ask for, in order.
//!
//! In: frames. Out: requests to the log with their tickets, which `answers` turns into messages to the agent.
//! Promise: frames of one session reach the log in the order they came; a frame that names an older answer than the last
//! is dropped unanswered; a payload enters the log only with its checksum verified and its permits held.
//! Not here: waiting for durability (`answers`), so that many blocks are in flight at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use garam_log::{Append, AppendBody, Claim as LogClaim};
use garam_proto::message::{self as m, ByeReason, Message};
use garam_proto::{AgentId, BlockHeader, Frame, OriginId, SessionId};
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answers::{self, Pending};
use super::candidates;
use super::sessions::{Newcomer, Registration};
use super::slots::{Slot, Slots, lock};
use super::wire::{Broken, Incoming, broken, say_bye, write_messages};
use super::{Door, GatewayStats, PERMIT_BYTES, told, wall_clock_us};
use crate::enrol::NotAdmitted;
use crate::enrol::rights::{Pace, Rights};
use crate::pki::{PeerIdentity, peer_identity};

/// Requests whose answers are outstanding, per session. The window bounds their bytes, this their number.
const MAX_PENDING: usize = 4096;
/// Messages waiting for the socket.
const MAX_OUTGOING: usize = 256;

/// How a connection ended.
pub(super) enum SessionEnd {
    /// It never became a session.
    Handshake(String),
    Protocol {
        host: String,
        error: String,
    },
    Closed {
        host: String,
        why: String,
    },
}

pub(super) async fn run(
    door: &Arc<Door>,
    tls: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) -> SessionEnd {
    let greeting = async {
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let stream = tls.accept(tcp).await.map_err(|e| format!("TLS: {e}"))?;
        let identity = identify(&stream)?;
        let (reader, writer) = tokio::io::split(stream);
        let mut incoming = Incoming::new(reader);
        let hello = incoming.hello().await?;
        Ok::<_, String>((identity, incoming, writer, hello))
    };
    let (identity, incoming, mut writer, hello) =
        match timeout(door.config.handshake_timeout, greeting).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return SessionEnd::Handshake(error),
            Err(_) => return SessionEnd::Handshake("no greeting in time".into()),
        };
    let version = match m::negotiate(m::VERSIONS, hello.versions) {
        Ok(version) => version,
        Err(text) => {
            say_bye(&mut writer, ByeReason::Version, &text).await;
            return SessionEnd::Handshake(format!("{}: {text}", identity.host));
        }
    };
    let rights = match door.registrar.admit(&identity, peer.ip().to_canonical()).await {
        Ok(rights) => rights,
        Err(NotAdmitted::Denied(text)) => {
            say_bye(&mut writer, ByeReason::Denied, &text).await;
            return SessionEnd::Handshake(format!("{}: {text}", identity.host));
        }
        Err(NotAdmitted::Later(text)) => {
            say_bye(&mut writer, ByeReason::Unavailable, "the core cannot look up agents now")
                .await;
            return SessionEnd::Handshake(format!("{}: {text}", identity.host));
        }
    };
    let session = SessionId(random_u64());
    let registered = door.sessions.register(Newcomer {
        agent: identity.agent,
        session,
        generation: identity.generation,
        host: identity.host.clone(),
        peer,
        build: hello.build.clone(),
    });
    let Ok(registration) = registered else {
        let text = "more than 5 takeovers within a minute: two agents use this identity";
        say_bye(&mut writer, ByeReason::TakeoverStorm, text).await;
        tracing::error!(%peer, host = identity.host, agent = %identity.agent, "{text}; both are refused");
        return SessionEnd::Handshake(text.into());
    };
    if registration.took_over {
        GatewayStats::add(&door.stats.takeovers, 1);
    }
    // Once more, now that a revocation would end this session: it may have come in between.
    if door.registrar.is_revoked(identity.agent, identity.generation) {
        say_bye(&mut writer, ByeReason::Denied, "this agent is revoked").await;
        return SessionEnd::Handshake(format!("{}: this agent is revoked", identity.host));
    }
    let skew_s = (hello.time_us - wall_clock_us()) / 1_000_000;
    tracing::info!(%peer, host = identity.host, agent = %identity.agent, build = hello.build, skew_s, "agent connected");
    let welcome = m::Welcome {
        version,
        features: m::FEATURE_RENEW,
        build: concat!("garam ", env!("CARGO_PKG_VERSION")).into(),
        cluster: door.cluster,
        agent: identity.agent,
        session,
        time_us: wall_clock_us(),
        window: door.window(),
        max_part: m::MAX_PART as u32,
        max_record: rights.max_record(door.max_record()),
    };
    let session = Session {
        door: Arc::clone(door),
        peer: peer.ip().to_canonical(),
        pace: rights.pace(),
        rights,
        renews: hello.features & m::FEATURE_RENEW != 0,
        identity,
        session,
        slots: Slots::default(),
        fragment: None,
    };
    session.serve(incoming, writer, welcome, registration, stop).await
}

struct Session {
    door: Arc<Door>,
    identity: PeerIdentity,
    peer: IpAddr,
    rights: Rights,
    pace: Pace,
    /// The agent changes its certificate when it is told that it is time.
    renews: bool,
    session: SessionId,
    slots: Slots,
    fragment: Option<Fragment>,
}

/// A block whose payload is still arriving. Its permits cover the whole length from the first byte on.
struct Fragment {
    push: m::Push,
    received: BytesMut,
    permit: OwnedSemaphorePermit,
}

impl Session {
    async fn serve(
        mut self,
        mut incoming: Incoming,
        writer: WriteHalf<TlsStream<TcpStream>>,
        welcome: m::Welcome,
        mut registration: Registration,
        mut stop: watch::Receiver<bool>,
    ) -> SessionEnd {
        let host = self.identity.host.clone();
        let (outgoing, messages) = mpsc::channel(MAX_OUTGOING);
        let (pending, tickets) = mpsc::channel(MAX_PENDING);
        let writing = tokio::spawn(write_messages(writer, messages));
        let mut answering = tokio::spawn(answers::run(
            Arc::clone(&self.door),
            Arc::clone(&self.slots),
            tickets,
            outgoing.clone(),
        ));
        let mut why = String::from("the agent closed the connection");
        let mut fault = None;
        let mut answers_live = true;
        let life = Life::of(&self.identity);
        let (ends, renewal) = (sleep_until(life.ends), sleep_until(life.renewal));
        tokio::pin!(ends, renewal);
        if outgoing.send(welcome.into()).await.is_ok() {
            loop {
                let next = tokio::select! {
                    biased;
                    () = told(&mut stop) => {
                        fault = Some(Broken { reason: ByeReason::Shutdown, text: "the core is stopping".into() });
                        break;
                    }
                    reason = registration.ended() => {
                        let text = match reason {
                            ByeReason::Denied => "this agent is revoked",
                            _ => "a newer session of this agent took over",
                        };
                        fault = Some(Broken { reason, text: text.into() });
                        break;
                    }
                    // A session outlives its handshake, not its certificate.
                    () = &mut ends => {
                        fault = Some(Broken { reason: ByeReason::Unavailable, text: "the certificate of this session has ended".into() });
                        break;
                    }
                    () = &mut renewal, if self.renews => {
                        renewal.as_mut().reset(life.again());
                        if outgoing.send(life.due().into()).await.is_err() {
                            break;
                        }
                        continue;
                    }
                    // Without answers the agent would wait for its acks for ever: it is better off with a new session.
                    ended = &mut answering => {
                        let text = ended.ok().flatten().unwrap_or_else(|| "the answers stopped".into());
                        fault = Some(Broken { reason: ByeReason::Unavailable, text });
                        answers_live = false;
                        break;
                    }
                    next = paced(self.pace.resume_at(), self.door.config.idle_timeout, &mut incoming) => next,
                };
                let frame = match next {
                    Ok(Ok(Some(frame))) => frame,
                    Ok(Ok(None)) => break,
                    Ok(Err(broke)) => {
                        fault = Some(broke);
                        break;
                    }
                    Err(_) => {
                        fault = Some(Broken {
                            reason: ByeReason::Idle,
                            text: "nothing was heard in time".into(),
                        });
                        break;
                    }
                };
                match self.handle(frame, &outgoing, &pending).await {
                    Ok(true) => {}
                    Ok(false) => {
                        why = "the agent said bye".into();
                        break;
                    }
                    Err(broke) => {
                        fault = Some(broke);
                        break;
                    }
                }
            }
        }
        drop(pending);
        // What is in flight is answered before the connection ends.
        let mut failed = None;
        if answers_live {
            let answered = timeout(self.door.config.handshake_timeout, answering).await;
            failed = answered.ok().and_then(Result::ok).flatten();
        }
        if let Some(Broken { reason, text }) = &fault {
            let bye = m::Bye { reason: *reason, text: text.clone() };
            if outgoing.send(bye.into()).await.is_err() {
                tracing::debug!(host, "the agent was gone before the goodbye");
            }
        }
        drop(outgoing);
        if timeout(self.door.config.handshake_timeout, writing).await.is_err() {
            tracing::debug!(host, "the agent did not read its last messages");
        }
        match (fault, failed) {
            (Some(Broken { reason: ByeReason::Protocol, text }), _) => {
                SessionEnd::Protocol { host, error: text }
            }
            (Some(Broken { text, .. }), _) => SessionEnd::Closed { host, why: text },
            (None, Some(text)) => SessionEnd::Closed { host, why: text },
            (None, None) => SessionEnd::Closed { host, why },
        }
    }

    /// Handles one frame; `false` ends the session in peace.
    async fn handle(
        &mut self,
        frame: Frame,
        outgoing: &mpsc::Sender<Message>,
        pending: &mpsc::Sender<Pending>,
    ) -> Result<bool, Broken> {
        let payload = frame.payload.clone();
        let message = Message::decode(&frame).map_err(|e| broken(e.to_string()))?;
        if self.fragment.is_some() && !matches!(message, Message::Part(_)) {
            return Err(broken("another frame came between the parts of a block"));
        }
        match message {
            Message::Push(push) => self.push(push, payload, pending).await?,
            Message::Part(part) => self.part(part, payload, pending).await?,
            Message::Claim(claim) => self.claim(claim, outgoing, pending).await?,
            Message::Open(open) => {
                let answer = self.open(&open)?;
                send(outgoing, answer.into()).await?;
            }
            Message::Gap(gap) => {
                let body = AppendBody::Gap {
                    from: gap.from,
                    to: gap.to,
                    at_least: gap.at_least,
                    reason: gap.reason,
                };
                self.append(gap.slot, gap.answer, body, None, pending).await?;
            }
            Message::Advance(advance) => {
                let m::Advance { from, to, tail_hash, resume, .. } = advance;
                let body = AppendBody::Advance { from, to, tail_hash, resume };
                self.append(advance.slot, advance.answer, body, None, pending).await?;
            }
            Message::Retire(retire) => {
                let body = AppendBody::Retire { mark: retire.mark };
                self.append(retire.slot, retire.answer, body, None, pending).await?;
            }
            Message::Renew(renew) => {
                let answer = self.renew(&renew).await;
                send(outgoing, answer.into()).await?;
            }
            Message::Ping(m::Ping { nonce }) => send(outgoing, m::Pong { nonce }.into()).await?,
            Message::Pong(_) => {}
            Message::Bye(_) => return Ok(false),
            other => return Err(broken(format!("{} is not for an agent to send", other.name()))),
        }
        Ok(true)
    }

    async fn renew(&self, renew: &m::Renew) -> m::Renewed {
        let renewed = self.door.registrar.renew(&self.identity, &renew.csr, self.peer).await;
        let outcome = match renewed {
            Ok(chain) => m::RenewOutcome::Issued { chain },
            Err(why) => m::RenewOutcome::Refused { why },
        };
        m::Renewed { outcome }
    }

    /// Ends the session of an agent that says it is somebody else, or sends what it may not.
    async fn forbidden(&self, what: &'static str, text: String) -> Broken {
        self.door.registrar.deny(what, &self.identity, self.peer, &text).await;
        broken(text)
    }

    fn open(&self, open: &m::Open) -> Result<m::OpenAck, Broken> {
        if open.queries.len() > m::MAX_OPENS {
            let asked = open.queries.len();
            return Err(broken(format!("{asked} queries in one open, at most {}", m::MAX_OPENS)));
        }
        candidates::answer(&*self.door.log, self.identity.agent, open)
            .map_err(|error| Broken { reason: ByeReason::Unavailable, text: error.to_string() })
    }

    async fn claim(
        &mut self,
        claim: m::Claim,
        outgoing: &mpsc::Sender<Message>,
        pending: &mpsc::Sender<Pending>,
    ) -> Result<(), Broken> {
        if !self.rights.may_write(&claim.stream) {
            let policy = self.rights.name();
            let why = format!("policy {policy} does not allow stream {}", claim.stream);
            self.door.registrar.deny("stream", &self.identity, self.peer, &why).await;
            let outcome = m::ClaimOutcome::Denied { why };
            return send(outgoing, m::ClaimAck { slot: claim.slot, answer: 1, outcome }.into())
                .await;
        }
        let request = LogClaim {
            stream: claim.stream,
            origin: OriginId { agent: self.identity.agent, generation: claim.generation },
            host: self.identity.host.clone(),
            source: claim.source,
            descriptor: claim.descriptor,
            lineage: claim.lineage,
            session: self.session,
            from: claim.from,
            reason: claim.reason,
            source_epoch: claim.source_epoch,
        };
        let slot = Arc::new(Slot {
            claim: request.clone(),
            partition: OnceLock::new(),
            answer: AtomicU64::new(0),
        });
        let before = lock(&self.slots).insert(claim.slot, Arc::clone(&slot));
        if before.is_some() {
            return Err(broken(format!("slot {} is claimed twice", claim.slot)));
        }
        let ticket = self.door.log.claim(request).await;
        enqueue(pending, Pending::Claim { number: claim.slot, slot, ticket }).await
    }

    async fn push(
        &mut self,
        push: m::Push,
        payload: Bytes,
        pending: &mpsc::Sender<Pending>,
    ) -> Result<(), Broken> {
        let limits = self.door.decode_limits();
        push.block.check(&limits).map_err(|e| broken(e.to_string()))?;
        if push.block.payload_len > limits.max_raw {
            return Err(broken(format!(
                "payload of {} bytes is too large",
                push.block.payload_len
            )));
        }
        // A block of many small records may be as large as a frame; more than that is one record in fragments.
        let most = self.rights.max_record(self.door.max_record()).max(m::MAX_PART as u32);
        if push.block.raw_len > most {
            let text = format!(
                "a record of {} bytes, policy {} allows {most}",
                push.block.raw_len,
                self.rights.name()
            );
            return Err(self.forbidden("record", text).await);
        }
        let claimed = push.block.origin.agent;
        if claimed != self.identity.agent && claimed != AgentId::NIL {
            let text =
                format!("a block of agent {claimed} in a session of {}", self.identity.agent);
            return Err(self.forbidden("origin", text).await);
        }
        self.pace.sent(push.block.payload_len);
        let permit = self.permit(push.block.payload_len).await?;
        let whole = push.block.payload_len as usize;
        if payload.len() < whole {
            let mut received = BytesMut::with_capacity(payload.len() * 2);
            received.extend_from_slice(&payload);
            self.fragment = Some(Fragment { push, received, permit });
            return Ok(());
        }
        self.block(push, payload, permit, pending).await
    }

    async fn part(
        &mut self,
        part: m::Part,
        payload: Bytes,
        pending: &mpsc::Sender<Pending>,
    ) -> Result<(), Broken> {
        let Some(mut fragment) = self.fragment.take().filter(|f| f.push.slot == part.slot) else {
            return Err(broken("a part without the block it belongs to"));
        };
        let whole = fragment.push.block.payload_len as usize;
        if payload.is_empty() || fragment.received.len() + payload.len() > whole {
            return Err(broken("the parts of a block do not add up to its length"));
        }
        fragment.received.extend_from_slice(&payload);
        if fragment.received.len() < whole {
            self.fragment = Some(fragment);
            return Ok(());
        }
        self.block(fragment.push, fragment.received.freeze(), fragment.permit, pending).await
    }

    async fn block(
        &mut self,
        push: m::Push,
        payload: Bytes,
        permit: OwnedSemaphorePermit,
        pending: &mpsc::Sender<Pending>,
    ) -> Result<(), Broken> {
        let m::Push { slot, answer, block } = push;
        block.check_payload(&payload).map_err(|e| broken(e.to_string()))?;
        let stats = &self.door.stats;
        GatewayStats::add(&stats.blocks, 1);
        GatewayStats::add(&stats.records, u64::from(block.records));
        GatewayStats::add(&stats.payload_bytes, u64::from(block.payload_len));
        GatewayStats::add(&stats.raw_bytes, u64::from(block.raw_len));
        let origin = OriginId { agent: self.identity.agent, generation: block.origin.generation };
        let header =
            BlockHeader { origin, session: self.session, ingest_time_us: wall_clock_us(), ..block };
        self.append(slot, answer, AppendBody::Block { header, payload }, Some(permit), pending)
            .await
    }

    async fn append(
        &mut self,
        number: u32,
        answer: u64,
        body: AppendBody,
        permit: Option<OwnedSemaphorePermit>,
        pending: &mpsc::Sender<Pending>,
    ) -> Result<(), Broken> {
        let slot = lock(&self.slots).get(&number).cloned();
        let Some(slot) = slot else {
            return Err(broken(format!("slot {number} was never claimed")));
        };
        let Some(partition) = slot.partition.get() else {
            return Err(broken(format!("slot {number} is used before its claim was granted")));
        };
        if let AppendBody::Block { header, .. } = &body
            && header.origin != slot.claim.origin
        {
            return Err(broken(format!("slot {number} carries a block of another origin")));
        }
        if answer != slot.answer.load(Ordering::Acquire) {
            return Ok(());
        }
        let append = Append { origin: slot.claim.origin, session: self.session, body };
        let ticket = self.door.log.append(partition, append).await;
        enqueue(pending, Pending::Append { number, slot, answer, ticket, permit }).await
    }

    /// Waits until `bytes` more may be in flight.
    async fn permit(&self, bytes: u32) -> Result<OwnedSemaphorePermit, Broken> {
        let units = u32::try_from(u64::from(bytes).div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.door.permits).acquire_many_owned(units).await;
        permits.map_err(|_| Broken {
            reason: ByeReason::Shutdown,
            text: "the core is stopping".into(),
        })
    }
}

/// The next frame, not before the agent's rate allows it.
async fn paced(
    resume_at: Option<Instant>,
    idle: Duration,
    incoming: &mut Incoming,
) -> Result<Result<Option<Frame>, Broken>, Elapsed> {
    if let Some(at) = resume_at {
        sleep_until(at).await;
    }
    timeout(idle, incoming.next()).await
}

/// How the life of a session's certificate goes on.
struct Life {
    not_after: SystemTime,
    ends: Instant,
    renewal: Instant,
    whole: Duration,
}

impl Life {
    /// Renewal is due when 70 to 90 % have passed: a fleet that was enrolled at once is not renewed at once.
    fn of(identity: &PeerIdentity) -> Self {
        let (now, instant) = (SystemTime::now(), Instant::now());
        let whole = identity.not_after.duration_since(identity.issued).unwrap_or_default();
        let left = identity.not_after.duration_since(now).unwrap_or_default();
        let after = whole.mul_f64(0.7 + 0.2 * fastrand::f64());
        let renewal = (identity.issued + after).duration_since(now).unwrap_or_default();
        let not_after = identity.not_after;
        Self { not_after, ends: instant + left, renewal: instant + renewal, whole }
    }

    /// When an agent that did not renew is told again.
    fn again(&self) -> Instant {
        Instant::now() + (self.whole / 50).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }

    fn due(&self) -> m::RenewDue {
        let ends = self.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        m::RenewDue { not_after_us: i64::try_from(ends.as_micros()).unwrap_or(i64::MAX) }
    }
}

fn identify(stream: &TlsStream<TcpStream>) -> Result<PeerIdentity, String> {
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.ok_or("no client certificate")?;
    peer_identity(leaf).map_err(|e| e.to_string())
}

async fn send(outgoing: &mpsc::Sender<Message>, message: Message) -> Result<(), Broken> {
    let gone =
        |_| Broken { reason: ByeReason::Unavailable, text: "the agent reads no answers".into() };
    outgoing.send(message).await.map_err(gone)
}

async fn enqueue(pending: &mpsc::Sender<Pending>, request: Pending) -> Result<(), Broken> {
    let gone = |_| Broken { reason: ByeReason::Unavailable, text: "the answers stopped".into() };
    pending.send(request).await.map_err(gone)
}

fn random_u64() -> u64 {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    let (first, last) = bytes.split_at(8);
    let half = |part: &[u8]| part.iter().fold(0u64, |n, &byte| (n << 8) | u64::from(byte));
    // A v4 UUID has six fixed bits; folding both halves leaves none of them fixed alone.
    half(first) ^ half(last).rotate_left(17)
}
