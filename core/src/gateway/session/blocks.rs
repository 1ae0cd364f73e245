//! What an agent adds to the log: claims, blocks, whole or in parts, and what moves an origin without bytes.
//!
//! In: decoded frames. Out: requests to the log, their tickets in order. Promise: a payload is enqueued with its checksum verified and its permits
//! held; what the agent's policy forbids ends the session or is denied, and is in the audit log. Not here: answers (`answers`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use garam_log::{Append, AppendBody, Claim as LogClaim};
use garam_proto::message::{self as m, ByeReason, Message};
use garam_proto::{AgentId, BlockHeader, OriginId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Session, send};
use crate::gateway::answers::Pending;
use crate::gateway::candidates::descriptor_bytes;
use crate::gateway::permits::{Arriving, InFlight};
use crate::gateway::slots::{Slot, lock};
use crate::gateway::wire::{Broken, Deadlines, broken, ends, too_slow};
use crate::gateway::{GatewayStats, wall_clock_us};

/// A block whose payload is still arriving. Its permits cover the whole length from the first byte on.
pub(super) struct Fragment {
    push: m::Push,
    received: BytesMut,
    permit: Arriving,
    since: Instant,
}

/// What the origins of one session may take in memory.
const MAX_CLAIMED: usize = 32 * 1024 * 1024;
/// What an origin takes beside its descriptor, about.
const SLOT_BYTES: usize = 512;
/// The longest descriptor: a path, with room to spare.
const MAX_DESCRIPTOR: usize = 8 * 1024;

impl Session {
    pub(super) async fn claim(
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
        self.claimed(&claim)?;
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

    /// Bounds what an agent's claims take.
    fn claimed(&mut self, claim: &m::Claim) -> Result<(), Broken> {
        let descriptor = descriptor_bytes(&claim.descriptor);
        if descriptor > MAX_DESCRIPTOR {
            let text = format!("a descriptor of {descriptor} bytes, at most {MAX_DESCRIPTOR}");
            return Err(broken(text));
        }
        self.claimed_bytes += SLOT_BYTES + descriptor;
        if self.claimed_bytes > MAX_CLAIMED {
            return Err(ends(ByeReason::Unavailable, "too many origins in one session"));
        }
        Ok(())
    }

    pub(super) async fn push(
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
        let whole = push.block.payload_len;
        if payload.len() < whole as usize {
            let permit = self.share.expect(whole).await.ok_or_else(stopping)?;
            let mut received = BytesMut::with_capacity(payload.len() * 2);
            received.extend_from_slice(&payload);
            self.fragment = Some(Fragment { push, received, permit, since: Instant::now() });
            return Ok(());
        }
        let permit = self.share.take(whole).await.ok_or_else(stopping)?;
        self.block(push, payload, permit, pending).await
    }

    pub(super) async fn part(
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
        let come = fragment.received.len();
        if come < whole {
            if fragment.since.elapsed() > Deadlines::of(&self.door.config).of_arriving(come) {
                return Err(too_slow(come));
            }
            self.fragment = Some(fragment);
            return Ok(());
        }
        let permit = self.share.arrived(fragment.permit).await.ok_or_else(stopping)?;
        self.block(fragment.push, fragment.received.freeze(), permit, pending).await
    }

    async fn block(
        &mut self,
        push: m::Push,
        payload: Bytes,
        permit: InFlight,
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

    pub(super) async fn append(
        &mut self,
        number: u32,
        answer: u64,
        body: AppendBody,
        permit: Option<InFlight>,
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
}

fn stopping() -> Broken {
    ends(ByeReason::Shutdown, "the core is stopping")
}

async fn enqueue(pending: &mpsc::Sender<Pending>, request: Pending) -> Result<(), Broken> {
    let gone = |_| ends(ByeReason::Unavailable, "the answers stopped");
    pending.send(request).await.map_err(gone)
}
