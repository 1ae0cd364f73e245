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
use crate::gateway::wire::{Broken, Incoming};

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
    registration: Registration,
    stop: watch::Receiver<bool>,
    /// Gives why it stopped.
    answering: Option<JoinHandle<Option<String>>>,
    life: Life,
    ends: Pin<Box<Sleep>>,
    renewal: Pin<Box<Sleep>>,
    /// The agent changes its certificate when it is told that it is time.
    renews: bool,
    idle: Duration,
}

impl Listening {
    pub(super) fn new(
        incoming: Incoming,
        registration: Registration,
        stop: watch::Receiver<bool>,
        answering: JoinHandle<Option<String>>,
        (life, renews): (Life, bool),
        idle: Duration,
    ) -> Self {
        let (ends, renewal) = (sleep_until(life.ends), sleep_until(life.renewal));
        let (ends, renewal) = (Box::pin(ends), Box::pin(renewal));
        let answering = Some(answering);
        Self { incoming, registration, stop, answering, life, ends, renewal, renews, idle }
    }

    /// What comes next; no frame before `resume_at`.
    pub(super) async fn next(&mut self, resume_at: Option<Instant>) -> Heard {
        let ended = |reason, text: &str| Heard::Ended(Broken { reason, text: text.into() });
        tokio::select! {
            biased;
            () = told(&mut self.stop) => ended(ByeReason::Shutdown, "the core is stopping"),
            reason = self.registration.ended() => match reason {
                ByeReason::Denied => ended(reason, "this agent is revoked"),
                _ => ended(reason, "a newer session of this agent took over"),
            },
            // A session outlives its handshake, not its certificate.
            () = &mut self.ends => {
                ended(ByeReason::Unavailable, "the certificate of this session has ended")
            }
            () = &mut self.renewal, if self.renews => {
                self.renewal.as_mut().reset(self.life.again());
                Heard::RenewalDue(self.life.due())
            }
            // Without answers the agent would wait for its acks for ever: it is better off with a new session.
            why = stopped(&mut self.answering) => ended(ByeReason::Unavailable, &why),
            next = paced(resume_at, self.idle, &mut self.incoming) => next,
        }
    }

    /// Waits for the last answers, as long as that takes at most; gives why they stopped early.
    pub(super) async fn last_answers(self, patience: Duration) -> Option<String> {
        let answered = timeout(patience, self.answering?).await;
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
async fn paced(resume_at: Option<Instant>, idle: Duration, incoming: &mut Incoming) -> Heard {
    if let Some(at) = resume_at {
        sleep_until(at).await;
    }
    match timeout(idle, incoming.next()).await {
        Ok(Ok(Some(frame))) => Heard::Frame(frame),
        Ok(Ok(None)) => Heard::Closed,
        Ok(Err(broke)) => Heard::Ended(broke),
        Err(_) => Heard::Ended(Broken {
            reason: ByeReason::Idle,
            text: "nothing was heard in time".into(),
        }),
    }
}
