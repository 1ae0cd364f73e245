//! Who is connected: one session per agent; a newer one ends the older, and a storm of takeovers ends both.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use garam_proto::message::ByeReason;
use garam_proto::{AgentId, SessionId};
use tokio::sync::watch;

/// More takeovers of one agent than this within [`STORM_WINDOW`] means that two agents use one identity.
const STORM_TAKEOVERS: usize = 5;
const STORM_WINDOW: Duration = Duration::from_secs(60);

/// A connected agent, as `garam status` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SessionInfo {
    pub agent: String,
    pub host: String,
    pub peer: String,
    pub build: String,
    pub connected_s: u64,
}

#[derive(Default, Clone)]
pub struct Sessions {
    agents: Arc<Mutex<HashMap<AgentId, Agent>>>,
}

struct Agent {
    takeovers: VecDeque<Instant>,
    current: Option<Current>,
}

struct Current {
    session: SessionId,
    generation: u64,
    host: String,
    peer: SocketAddr,
    build: String,
    since: Instant,
    end: watch::Sender<Option<ByeReason>>,
}

/// A session's place among the connected ones; given up when dropped.
pub(super) struct Registration {
    sessions: Sessions,
    agent: AgentId,
    session: SessionId,
    /// Changes when somebody else ends this session; see [`Registration::ended`].
    ended: watch::Receiver<Option<ByeReason>>,
    /// An older session was ended by this one.
    pub(super) took_over: bool,
}

/// What a newcomer says about itself, and what TLS says about it.
pub(super) struct Newcomer {
    pub(super) agent: AgentId,
    pub(super) session: SessionId,
    /// Of its certificate.
    pub(super) generation: u64,
    pub(super) host: String,
    pub(super) peer: SocketAddr,
    pub(super) build: String,
}

/// Too many takeovers: neither the newcomer nor the older session goes on.
#[derive(Debug)]
pub(super) struct Storm;

impl Sessions {
    /// Makes the newcomer its agent's session.
    pub(super) fn register(&self, newcomer: Newcomer) -> Result<Registration, Storm> {
        let now = Instant::now();
        let mut agents = self.lock();
        let agent = agents
            .entry(newcomer.agent)
            .or_insert_with(|| Agent { takeovers: VecDeque::new(), current: None });
        agent.takeovers.retain(|&at| now.duration_since(at) < STORM_WINDOW);
        let older = agent.current.take();
        let took_over = older.is_some();
        if took_over {
            agent.takeovers.push_back(now);
        }
        let storm = agent.takeovers.len() > STORM_TAKEOVERS;
        if let Some(older) = older {
            let reason = if storm { ByeReason::TakeoverStorm } else { ByeReason::TakenOver };
            older.end.send_replace(Some(reason));
        }
        if storm {
            return Err(Storm);
        }
        let (end, ended) = watch::channel(None);
        agent.current = Some(Current {
            session: newcomer.session,
            generation: newcomer.generation,
            host: newcomer.host,
            peer: newcomer.peer,
            build: newcomer.build,
            since: now,
            end,
        });
        let sessions = self.clone();
        Ok(Registration {
            sessions,
            agent: newcomer.agent,
            session: newcomer.session,
            ended,
            took_over,
        })
    }

    /// Ends the sessions of agents that may not be here any more.
    pub fn end_where(&self, gone: impl Fn(AgentId, u64) -> bool) {
        for (agent, entry) in self.lock().iter() {
            if let Some(current) = &entry.current
                && gone(*agent, current.generation)
            {
                current.end.send_replace(Some(ByeReason::Denied));
            }
        }
    }

    pub fn list(&self) -> Vec<SessionInfo> {
        let agents = self.lock();
        let mut list: Vec<_> = agents
            .iter()
            .filter_map(|(agent, entry)| Some((agent, entry.current.as_ref()?)))
            .map(|(agent, current)| SessionInfo {
                agent: agent.to_string(),
                host: current.host.clone(),
                peer: current.peer.to_string(),
                build: current.build.clone(),
                connected_s: current.since.elapsed().as_secs(),
            })
            .collect();
        list.sort_by(|a, b| (&a.host, &a.agent).cmp(&(&b.host, &b.agent)));
        list
    }

    pub fn count(&self) -> usize {
        self.lock().values().filter(|agent| agent.current.is_some()).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentId, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Ends when somebody else ends this session, and says why.
    pub(super) async fn ended(&mut self) -> ByeReason {
        match self.ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(ByeReason::TakenOver),
            // The sender lives as long as this session is its agent's newest; without it, it is not.
            Err(_) => ByeReason::TakenOver,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut agents = self.sessions.lock();
        let Some(agent) = agents.get_mut(&self.agent) else { return };
        if agent.current.as_ref().is_some_and(|current| current.session == self.session) {
            agent.current = None;
        }
        if agent.current.is_none() && agent.takeovers.is_empty() {
            agents.remove(&self.agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomer(session: u64) -> Newcomer {
        Newcomer {
            agent: AgentId([7; 16]),
            session: SessionId(session),
            generation: session,
            host: "web-01".into(),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            build: "test".into(),
        }
    }

    #[test]
    fn a_newer_session_ends_the_older() {
        let sessions = Sessions::default();
        let first = sessions.register(newcomer(1)).ok().unwrap();
        let second = sessions.register(newcomer(2)).ok().unwrap();
        assert_eq!(*first.ended.borrow(), Some(ByeReason::TakenOver));
        assert!(second.took_over);
        drop(first);
        assert_eq!(sessions.count(), 1, "the older session's end leaves the newer one in place");
        drop(second);
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn only_those_who_may_not_be_here_are_ended() {
        let sessions = Sessions::default();
        let current = sessions.register(newcomer(3)).ok().unwrap();
        sessions.end_where(|_, generation| generation <= 2);
        assert_eq!(*current.ended.borrow(), None);
        sessions.end_where(|agent, generation| agent == AgentId([7; 16]) && generation <= 3);
        assert_eq!(*current.ended.borrow(), Some(ByeReason::Denied));
    }

    #[test]
    fn a_storm_of_takeovers_ends_both() {
        let sessions = Sessions::default();
        let mut current = sessions.register(newcomer(0)).ok().unwrap();
        for session in 1..=5 {
            current = sessions.register(newcomer(session)).ok().unwrap();
        }
        assert!(sessions.register(newcomer(9)).is_err());
        assert_eq!(*current.ended.borrow(), Some(ByeReason::TakeoverStorm));
    }
}
