//! One agent's connection: reads its frames, enqueues what they ask for, in order.
//!
//! In: frames. Out: requests to the log with their tickets, which `answers` turns into messages to the agent.
//! Promise: frames of one session reach the log in the order they came; a frame that names an older answer than the last
//! is dropped unanswered; a payload enters the log only with its checksum verified and its permits held.
//! In `greeting` how it comes to be, in `listening` what it hears, in `blocks` what an agent adds to the log, in `life` its certificate's end. Not here:
//! waiting for durability (`answers`), so that many blocks are in flight at once.

mod blocks;
mod greeting;
mod life;
mod listening;

use std::net::IpAddr;
use std::sync::Arc;

use garam_log::AppendBody;
use garam_proto::frame::PREFIX_LEN;
use garam_proto::message::{self as m, ByeReason, Message};
use garam_proto::{Frame, SessionId};
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::answers::{self, Pending};
use super::permits::Share;
use super::sessions::Registration;
use super::slots::Slots;
use super::wire::{Broken, Incoming, broken, ends, write_messages};
use super::{Door, candidates};
use crate::enrol::rights::{Pace, Rights};
use crate::pki::PeerIdentity;
use blocks::Fragment;
pub(super) use greeting::run;
use life::Life;
use listening::{Heard, Listening};

/// Requests whose answers are outstanding, per session. The window bounds their bytes, this their number.
const MAX_PENDING: usize = 4096;
/// Messages waiting for the socket.
const MAX_OUTGOING: usize = 256;

/// How a connection ended.
pub(super) enum SessionEnd {
    /// It never became a session, and nobody has noted that yet.
    Handshake(String),
    /// It never became a session; that is noted where it has to be.
    Refused(String),
    Protocol {
        host: String,
        error: String,
    },
    Closed {
        host: String,
        why: String,
    },
}

/// How a conversation ended.
enum Ending {
    Peace(&'static str),
    Broken(Broken),
}

struct Session {
    door: Arc<Door>,
    identity: PeerIdentity,
    peer: IpAddr,
    rights: Rights,
    pace: Pace,
    renews: bool,
    session: SessionId,
    share: Share,
    slots: Slots,
    /// What the slots take in memory.
    claimed_bytes: usize,
    fragment: Option<Fragment>,
}

impl Session {
    async fn serve(
        mut self,
        incoming: Incoming,
        writer: WriteHalf<TlsStream<TcpStream>>,
        welcome: m::Welcome,
        registration: Registration,
        stop: watch::Receiver<bool>,
    ) -> SessionEnd {
        let (outgoing, messages) = mpsc::channel(MAX_OUTGOING);
        let (pending, tickets) = mpsc::channel(MAX_PENDING);
        let frame_timeout = self.door.config.frame_timeout;
        let mut writing = tokio::spawn(write_messages(writer, messages, frame_timeout));
        let answering = tokio::spawn(answers::run(
            Arc::clone(&self.door),
            Arc::clone(&self.slots),
            tickets,
            outgoing.clone(),
        ));
        let life = Life::of(&self.identity);
        let mut listening =
            Listening::new(incoming, registration, stop, answering, life, self.renews);
        let mut ending = Ending::Peace("the agent closed the connection");
        if outgoing.send(welcome.into()).await.is_ok() {
            ending = self.converse(&mut listening, &outgoing, &pending).await;
        }
        drop(pending);
        // What is in flight is answered before the connection ends.
        let patience = self.door.config.handshake_timeout;
        let failed = listening.end.last_answers(patience).await;
        let host = self.identity.host.clone();
        if let Ending::Broken(Broken { reason, text, .. }) = &ending {
            let bye = m::Bye { reason: *reason, text: text.clone() };
            if !matches!(timeout(patience, outgoing.send(bye.into())).await, Ok(Ok(()))) {
                tracing::debug!(host, "the agent was gone before the goodbye");
            }
        }
        drop(outgoing);
        if timeout(patience, &mut writing).await.is_err() {
            tracing::debug!(host, "the agent did not read its last messages");
        }
        writing.abort();
        self.ended(ending, failed).await
    }

    /// How the connection ended, noted where it has to be.
    async fn ended(&self, ending: Ending, failed: Option<String>) -> SessionEnd {
        let host = self.identity.host.clone();
        match ending {
            Ending::Broken(Broken { reason, text, note }) => {
                if let Some(what) = note {
                    self.door.registrar.ended(what, &self.identity, self.peer, &text).await;
                }
                match reason {
                    ByeReason::Protocol => SessionEnd::Protocol { host, error: text },
                    _ => SessionEnd::Closed { host, why: text },
                }
            }
            Ending::Peace(why) => {
                SessionEnd::Closed { host, why: failed.unwrap_or_else(|| why.into()) }
            }
        }
    }

    /// Frame by frame, until one side ends it.
    async fn converse(
        &mut self,
        listening: &mut Listening,
        outgoing: &mpsc::Sender<Message>,
        pending: &mpsc::Sender<Pending>,
    ) -> Ending {
        loop {
            let handled = match listening.next(self.pace.resume_at()).await {
                // A session that waits for room, or for an agent that does not read, still hears its end.
                Heard::Frame(frame) => tokio::select! {
                    biased;
                    broke = listening.end.comes() => Err(broke),
                    handled = self.handle(frame, outgoing, pending) => handled,
                },
                Heard::RenewalDue(due) => send(outgoing, due.into()).await.map(|()| true),
                Heard::Closed => return Ending::Peace("the agent closed the connection"),
                Heard::Ended(broke) => Err(broke),
            };
            match handled {
                Ok(true) => {}
                Ok(false) => return Ending::Peace("the agent said bye"),
                Err(broke) => return Ending::Broken(broke),
            }
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
        let bytes = PREFIX_LEN + frame.header.len() + payload.len();
        self.pace.sent(u32::try_from(bytes).unwrap_or(u32::MAX));
        let message = Message::decode(&frame).map_err(|e| broken(e.to_string()))?;
        if self.fragment.is_some() && !matches!(message, Message::Part(_)) {
            return Err(broken("another frame came between the parts of a block"));
        }
        match message {
            Message::Push(push) => self.push(push, payload, pending).await?,
            Message::Part(part) => self.part(part, payload, pending).await?,
            Message::Claim(claim) => self.claim(claim, outgoing, pending).await?,
            Message::Open(open) => {
                let answer = self.open(open).await?;
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
        ends(ByeReason::Protocol, text)
    }

    /// Looks through the origins of streams, away from the tasks that move data, and not for everybody at once.
    async fn open(&self, open: m::Open) -> Result<m::OpenAck, Broken> {
        let unavailable = |text: String| ends(ByeReason::Unavailable, text);
        let turn = self.door.openings.acquire().await;
        let _turn = turn.map_err(|_| unavailable("the core is stopping".into()))?;
        let (log, agent) = (Arc::clone(&self.door.log), self.identity.agent);
        let answer = spawn_blocking(move || candidates::answer(&*log, agent, &open)).await;
        let answer = answer.map_err(|_| unavailable("the core could not look".into()))?;
        answer.map_err(|error| unavailable(error.to_string()))
    }
}

async fn send(outgoing: &mpsc::Sender<Message>, message: Message) -> Result<(), Broken> {
    let gone = |_| ends(ByeReason::Unavailable, "the agent reads no answers");
    outgoing.send(message).await.map_err(gone)
}
