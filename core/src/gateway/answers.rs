//! What became of an agent's requests: waits for the log, in order, and tells the agent.
//!
//! In: tickets of claims and appends. Out: `ClaimAck`, `Ack` (one for many), `Reposition`, `Hold`. Promise: an `Ack` leaves
//! only after the log said durable; marks of one slot never fall, except by a `Reposition`; a stream that takes nothing is
//! held, asked again every second, and released with the mark to go on from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garam_log::{Appended, Claimed, LogError, Ticket};
use garam_proto::PartitionId;
use garam_proto::message::{self as m, ClaimOutcome, Message, SlotMark};
use tokio::sync::mpsc;

use super::permits::InFlight;
use super::slots::{Slot, Slots, lock};
use super::{Door, GatewayStats};

/// How often a held partition is asked whether it takes blocks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A request whose answer is outstanding.
pub(super) enum Pending {
    Claim {
        number: u32,
        slot: Arc<Slot>,
        ticket: Result<Ticket<Claimed>, LogError>,
    },
    Append {
        number: u32,
        slot: Arc<Slot>,
        /// The answer the request obeyed: a `Reposition` is sent once per answer, however many blocks were behind.
        answer: u64,
        ticket: Result<Ticket<Appended>, LogError>,
        /// Released when the block is durable or refused.
        permit: Option<InFlight>,
    },
}

/// Runs until the session drops its side; returns why the session must end, when it must.
pub(super) async fn run(
    door: Arc<Door>,
    slots: Slots,
    mut pending: mpsc::Receiver<Pending>,
    outgoing: mpsc::Sender<Message>,
) -> Option<String> {
    let mut answers =
        Answers { door, slots, outgoing, acks: BTreeMap::new(), held: BTreeMap::new() };
    let mut ask_again = tokio::time::interval(ASK_AGAIN);
    ask_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // An ack waits for the agent to read, the log does not: marks of a slot become one meanwhile.
        let next = tokio::select! {
            biased;
            next = pending.recv() => next,
            told = answers.tell(), if !answers.acks.is_empty() => {
                told.ok()?;
                continue;
            }
            _ = ask_again.tick(), if !answers.held.is_empty() => {
                answers.ask_again().await.ok()?;
                continue;
            }
        };
        let Some(request) = next else {
            return answers.flush().await.err().map(|Gone| "the agent reads no answers".into());
        };
        match answers.answer(request).await {
            Ok(()) => {}
            Err(Refusal::Gone) => return Some("the agent reads no answers".into()),
            Err(Refusal::Ended(text)) => return Some(text),
        }
    }
}

/// The agent does not listen any more.
struct Gone;

/// Why the session cannot go on.
enum Refusal {
    Gone,
    Ended(String),
}

impl From<Gone> for Refusal {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

struct Answers {
    door: Arc<Door>,
    slots: Slots,
    outgoing: mpsc::Sender<Message>,
    /// Marks that are durable and not told yet.
    acks: BTreeMap<u32, u128>,
    /// Slots whose partition takes nothing.
    held: BTreeMap<u32, Arc<Slot>>,
}

impl Answers {
    async fn answer(&mut self, request: Pending) -> Result<(), Refusal> {
        match request {
            Pending::Claim { number, slot, ticket } => {
                let result = self.wait(ticket).await?;
                self.claimed(number, &slot, result).await
            }
            Pending::Append { number, slot, answer, ticket, permit } => {
                let result = self.wait(ticket).await?;
                drop(permit);
                self.appended(number, &slot, answer, result).await
            }
        }
    }

    /// Waits for a ticket; what can be acknowledged is told meanwhile.
    async fn wait<T>(
        &mut self,
        ticket: Result<Ticket<T>, LogError>,
    ) -> Result<Result<T, LogError>, Gone> {
        let mut ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let answered = tokio::select! {
                biased;
                answered = &mut ticket.0 => answered,
                told = self.tell(), if !self.acks.is_empty() => {
                    told?;
                    continue;
                }
            };
            return Ok(answered.unwrap_or(Err(LogError::Closed)));
        }
    }

    async fn claimed(
        &mut self,
        number: u32,
        slot: &Arc<Slot>,
        result: Result<Claimed, LogError>,
    ) -> Result<(), Refusal> {
        let outcome = match result {
            Ok(Claimed { partition, state }) => {
                let index = partition.index;
                // A slot is claimed once, so the cell is empty; a second value could only be equal.
                let partition = slot.partition.get_or_init(|| partition);
                tracing::debug!(%partition, origin = %state.origin, mark = state.mark, "claim granted");
                ClaimOutcome::Granted {
                    mark: state.mark,
                    tail_hash: state.tail_hash,
                    resume: state.resume,
                    partition: index,
                    source_epoch: state.source_epoch,
                }
            }
            Err(LogError::Closed) => return Err(Refusal::Ended("the log is closing".into())),
            Err(
                error @ (LogError::Full { .. }
                | LogError::Stopped { .. }
                | LogError::Denied(garam_log::ClaimDenied::TooManyOrigins { .. })),
            ) => ClaimOutcome::Held { why: error.to_string() },
            Err(error) => ClaimOutcome::Denied { why: error.to_string() },
        };
        if !matches!(outcome, ClaimOutcome::Granted { .. }) {
            lock(&self.slots).remove(&number);
        }
        slot.answer.store(1, Ordering::Release);
        self.say(m::ClaimAck { slot: number, answer: 1, outcome }).await?;
        Ok(())
    }

    async fn appended(
        &mut self,
        number: u32,
        slot: &Arc<Slot>,
        answer: u64,
        result: Result<Appended, LogError>,
    ) -> Result<(), Refusal> {
        let stats = &self.door.stats;
        match result {
            Ok(Appended::Durable { mark, .. }) => {
                self.acks.insert(number, mark);
            }
            Ok(Appended::Repeat { mark }) => {
                GatewayStats::add(&stats.repeats, 1);
                self.acks.insert(number, mark);
            }
            Ok(Appended::Stale) => GatewayStats::add(&stats.stale, 1),
            Ok(Appended::Reposition { mark, tail_hash, resume }) => {
                if slot.answer.load(Ordering::Acquire) == answer {
                    GatewayStats::add(&stats.repositions, 1);
                    self.reposition(number, slot, mark, tail_hash, resume).await?;
                }
            }
            Err(LogError::Closed) => return Err(Refusal::Ended("the log is closing".into())),
            Err(
                error @ (LogError::Full { .. }
                | LogError::Stopped { .. }
                | LogError::Damaged { .. }),
            ) => {
                if slot.answer.load(Ordering::Acquire) == answer {
                    self.hold(number, slot, &error).await?;
                }
            }
            Err(error) => return Err(Refusal::Ended(error.to_string())),
        }
        Ok(())
    }

    /// The partition takes nothing: what is on its way is void, and the agent keeps its data.
    async fn hold(&mut self, number: u32, slot: &Arc<Slot>, error: &LogError) -> Result<(), Gone> {
        slot.answer.fetch_add(1, Ordering::AcqRel);
        GatewayStats::add(&self.door.stats.holds, 1);
        let first = !self.held.values().any(|other| other.partition.get() == slot.partition.get());
        self.held.insert(number, Arc::clone(slot));
        if first && let Some(partition) = slot.partition.get() {
            tracing::warn!(%partition, %error, "holding an agent");
            self.say(hold(partition, true, error.to_string())).await?;
        }
        Ok(())
    }

    /// Asks for each held slot whether its partition takes claims again; what it answers is where to go on.
    async fn ask_again(&mut self) -> Result<(), Gone> {
        for (number, slot) in std::mem::take(&mut self.held) {
            let claimed = match self.door.log.claim(slot.claim.clone()).await {
                Ok(ticket) => ticket.wait().await,
                Err(error) => Err(error),
            };
            let Ok(Claimed { partition, state }) = claimed else {
                self.held.insert(number, slot);
                continue;
            };
            self.reposition(number, &slot, state.mark, state.tail_hash, state.resume).await?;
            let still = self.held.values().any(|other| other.partition.get() == Some(&partition));
            if !still {
                self.say(hold(&partition, false, String::new())).await?;
            }
        }
        Ok(())
    }

    async fn reposition(
        &mut self,
        number: u32,
        slot: &Slot,
        mark: u128,
        tail_hash: u64,
        resume: Option<Vec<u8>>,
    ) -> Result<(), Gone> {
        self.flush().await?;
        let answer = slot.answer.fetch_add(1, Ordering::AcqRel) + 1;
        self.say(m::Reposition { slot: number, answer, mark, tail_hash, resume }).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        while !self.acks.is_empty() {
            self.tell().await?;
        }
        Ok(())
    }

    /// Tells as many marks as one message holds. Cancel-safe: they stay until there is room for it.
    async fn tell(&mut self) -> Result<(), Gone> {
        let room = self.outgoing.reserve().await.map_err(|_| Gone)?;
        let rest = match self.acks.keys().nth(m::MAX_MARKS).copied() {
            Some(first_left) => self.acks.split_off(&first_left),
            None => BTreeMap::new(),
        };
        let marks = std::mem::replace(&mut self.acks, rest);
        let marks = marks.into_iter().map(|(slot, mark)| SlotMark { slot, mark }).collect();
        room.send(m::Ack { marks }.into());
        Ok(())
    }

    async fn say(&self, message: impl Into<Message>) -> Result<(), Gone> {
        self.outgoing.send(message.into()).await.map_err(|_| Gone)
    }
}

fn hold(partition: &PartitionId, held: bool, why: String) -> m::Hold {
    m::Hold { stream: partition.stream.clone(), partition: Some(partition.index), held, why }
}
