//! What was refused at the ports, and blocks that could not be read later: one line of the audit log each.
//!
//! In: who, what and why. Out: an audit event, and a line in the log unless there were too many of its kind. Not here: what the registrar
//! itself decides, which it notes there.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use garam_proto::AgentId;

use super::audit::{Event, Outcome};
use super::registrar::Registrar;
use crate::pki::PeerIdentity;

impl Registrar {
    /// Notes that an agent wanted what it may not.
    pub async fn deny(&self, what: &'static str, identity: &PeerIdentity, peer: IpAddr, why: &str) {
        self.stats.denied.fetch_add(1, Ordering::Relaxed);
        self.ended(what, identity, peer, why).await;
    }

    /// Notes that the core ended an agent's session, and not because anybody was to stop.
    pub async fn ended(
        &self,
        what: &'static str,
        identity: &PeerIdentity,
        peer: IpAddr,
        why: &str,
    ) {
        let event = Event::new(what, Outcome::Refused).with("agent", identity.agent);
        let event = event.with("host", &identity.host).with("peer", peer);
        let event = event.with("generation", identity.generation).with("why", why);
        if self.audit.record(event).await {
            tracing::warn!(%peer, host = identity.host, agent = %identity.agent, what, why, "an agent is refused");
        }
    }

    /// Notes that somebody unknown was turned away at a port.
    pub async fn turned_away(
        &self,
        what: &'static str,
        port: &'static str,
        peer: IpAddr,
        why: &str,
    ) {
        let event = Event::new(what, Outcome::Refused).with("port", port).with("peer", peer);
        if self.audit.record(event.with("why", why)).await {
            tracing::warn!(%peer, port, why, "connection refused");
        }
    }

    /// Notes that a block of an agent does not decode. It came in as it was: the door looks at no payload.
    pub async fn undecodable(&self, agent: AgentId, host: &str, stream: &str, why: &str) {
        let event = Event::new("block", Outcome::Refused).with("agent", agent).with("host", host);
        if self.audit.record(event.with("stream", stream).with("why", why)).await {
            tracing::warn!(host, %agent, stream, why, "a block does not decode: put aside whole");
        }
    }
}
