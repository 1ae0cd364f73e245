//! Everything a session listens to, one thing at a time: frames, its own end, the certificate's.
//!
//! In: the agent's frames and whoever may end the session. Out: what comes next. Promise: an end is heard before the next frame; frames
//! come no faster than the agent's rate allows.

use std::pin::Pin;
use std::time::Duration;

use garam_proto::Frame;
use garam_proto::message::{self as m, ByeReason};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::life::Life;
use crate::gateway::sessions::Registration;
use crate::gateway::told;
use crate::gateway::wire::{Broken, Incoming, ends};

/// What was heard.
pub(super) enum Heard {
    Frame(Frame),
    /// The agent is to be told that its certificate ends.
    RenewalDue(m::RenewDue),
    /// The agent closed the connection.
    Closed,
    Ended(Broken),
}

pub(super) struct Listening {
    incoming: Incoming,
    pub(super) end: End,
    life: Life,
    renewal: Pin<Box<Sleep>>,
    /// The agent changes its certificate when it is told that it is time.
    renews: bool,
}

/// Whoever and whatever may end the session beside the agent.
pub(super) struct End {
    registration: Registration,
    stop: watch::Receiver<bool>,
    /// Gives why it stopped.
    answering: Option<JoinHandle<Option<String>>>,
    certificate: Pin<Box<Sleep>>,
}

impl Listening {
    pub(super) fn new(
        incoming: Incoming,
        registration: Registration,
        stop: watch::Receiver<bool>,
        answering: JoinHandle<Option<String>>,
        life: Life,
        renews: bool,
    ) -> Self {
        let certificate = Box::pin(sleep_until(life.ends));
        let renewal = Box::pin(sleep_until(life.renewal));
        let end = End { registration, stop, answering: Some(answering), certificate };
        Self { incoming, end, life, renewal, renews }
    }

    /// What comes next; no frame before `resume_at`.
    pub(super) async fn next(&mut self, resume_at: Option<Instant>) -> Heard {
        tokio::select! {
            biased;
            broke = self.end.comes() => Heard::Ended(broke),
            () = &mut self.renewal, if self.renews => {
                self.renewal.as_mut().reset(self.life.again());
                Heard::RenewalDue(self.life.due())
            }
            next = paced(resume_at, &mut self.incoming) => next,
        }
    }
}

impl End {
    /// Waits until something ends the session. Cancel-safe.
    pub(super) async fn comes(&mut self) -> Broken {
        let noted = |reason, text: &str| Broken { note: Some("session"), ..ends(reason, text) };
        tokio::select! {
            biased;
            () = told(&mut self.stop) => ends(ByeReason::Shutdown, "the core is stopping"),
            reason = self.registration.ended() => match reason {
                ByeReason::Denied => noted(reason, "this agent is revoked"),
                _ => ends(reason, "a newer session of this agent took over"),
            },
            // A session outlives its handshake, not its certificate.
            () = &mut self.certificate => {
                noted(ByeReason::Unavailable, "the certificate of this session has ended")
            }
            // Without answers the agent would wait for its acks for ever: it is better off with a new session.
            why = stopped(&mut self.answering) => ends(ByeReason::Unavailable, why),
        }
    }

    /// Waits for the last answers, as long as that takes at most; gives why they stopped early.
    pub(super) async fn last_answers(self, patience: Duration) -> Option<String> {
        let mut answering = self.answering?;
        let answered = timeout(patience, &mut answering).await;
        // An agent that does not read would keep them for ever.
        answering.abort();
        answered.ok().and_then(Result::ok).flatten()
    }
}

/// Why the answers stopped. They are not waited for again.
async fn stopped(answering: &mut Option<JoinHandle<Option<String>>>) -> String {
    let Some(running) = answering else { return std::future::pending().await };
    let why = running.await.ok().flatten();
    *answering = None;
    why.unwrap_or_else(|| "the answers stopped".into())
}

/// The next frame, not before the agent's rate allows it.
async fn paced(resume_at: Option<Instant>, incoming: &mut Incoming) -> Heard {
    if let Some(at) = resume_at {
        sleep_until(at).await;
    }
    match incoming.next().await {
        Ok(Some(frame)) => Heard::Frame(frame),
        Ok(None) => Heard::Closed,
        Err(broke) => Heard::Ended(broke),
    }
}
