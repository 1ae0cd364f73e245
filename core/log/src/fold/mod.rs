//! The fold: what a partition knows of its origins, as a pure function of its entries in their order.
//!
//! In: records (what an entry says, without payload bytes). Out: a verdict on each, and the state after it.
//! Promise: the rules of `docs/protocol.md` ("The log") stand here once. The writer asks [`Fold::decide`] before it
//! appends; recovery and readers replay the same records through [`Fold::replay`] and so notice any that a writer could
//! not have written. No I/O, no clock, no randomness.
//! Not here: how a record lies on disk (`embedded::entry`), which partition an origin belongs to (`embedded::writer`).
//!
//! ```text
//! not the newest claim        ignore, count                  Stale
//! to <= mark                  the log has it                 Repeat
//! from = mark                 append, the mark moves to `to` Accept
//! anything else               cut again from the mark        Reposition
//! ```
//!
//! A tail hash of 0 at a mark above 0 means "unknown": a new origin that begins there, or the end of a gap.

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};
use garam_proto::{AgentId, Descriptor, LineageId, OriginId, SessionId, SourceName};

pub(crate) use record::{AdvanceRecord, ClaimRecord, GapRecord, LossRecord, Record, RetireRecord};

use crate::api::{Claim, OriginState};

/// One origin as a segment's snapshot keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SavedOrigin {
    pub origin: OriginId,
    pub host: String,
    pub source: SourceName,
    pub descriptor: Descriptor,
    pub lineage: LineageId,
    pub source_epoch: u32,
    pub mark: u128,
    pub tail_hash: u64,
    pub claim: SessionId,
    pub resume: Option<Vec<u8>>,
    pub retired: bool,
    pub retired_at_ms: u64,
}

/// The largest source epoch given out for a source of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SavedEpoch {
    pub agent: AgentId,
    pub source: SourceName,
    pub epoch: u32,
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Repeat { mark: u128 },
    Reposition { mark: u128, tail_hash: u64, resume: Option<Vec<u8>> },
    Stale,
    Unknown,
    Invalid(&'static str),
}

/// The state of one partition's origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fold {
    /// Ordered, so that snapshots are the same bytes for the same state.
    origins: BTreeMap<OriginId, Held>,
    epochs: BTreeMap<(AgentId, SourceName), u32>,
    live: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    /// Shared with the entries a reader handed out; changed in place while nobody else holds it.
    state: Arc<OriginState>,
    retired_at_ms: u64,
}

impl Fold {
    pub(crate) fn from_saved(epochs: Vec<SavedEpoch>, origins: Vec<SavedOrigin>) -> Self {
        let live = origins.iter().filter(|o| !o.retired).count();
        Self {
            origins: origins.into_iter().map(|o| (o.origin, o.into())).collect(),
            epochs: epochs.into_iter().map(|e| ((e.agent, e.source), e.epoch)).collect(),
            live,
        }
    }

    pub(crate) fn saved_origins(&self) -> impl Iterator<Item = SavedOrigin> {
        self.origins.values().map(SavedOrigin::from)
    }

    pub(crate) fn saved_epochs(&self) -> impl Iterator<Item = SavedEpoch> {
        self.epochs.iter().map(|((agent, source), epoch)| SavedEpoch {
            agent: *agent,
            source: source.clone(),
            epoch: *epoch,
        })
    }

    pub(crate) fn saved(&self, origin: &OriginId) -> Option<SavedOrigin> {
        self.origins.get(origin).map(SavedOrigin::from)
    }

    pub(crate) fn get(&self, origin: &OriginId) -> Option<&Arc<OriginState>> {
        self.origins.get(origin).map(|held| &held.state)
    }

    pub(crate) fn origins(&self) -> impl Iterator<Item = &Arc<OriginState>> {
        self.origins.values().map(|held| &held.state)
    }

    pub(crate) fn len(&self) -> usize {
        self.origins.len()
    }

    /// Origins that are not retired.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The record of a granted claim: a registration when the origin is unknown here, with the epoch given to it.
    pub(crate) fn claim_record(&self, claim: Claim, new_epoch: u32) -> ClaimRecord {
        let known = self.get(&claim.origin);
        ClaimRecord {
            registers: known.is_none(),
            lineage: known.map_or(claim.lineage, |state| state.lineage),
            from: known.map_or(claim.from, |state| state.mark),
            source_epoch: known.map_or(new_epoch, |state| state.source_epoch),
            origin: claim.origin,
            session: claim.session,
            host: claim.host,
            source: claim.source,
            descriptor: claim.descriptor,
            reason: claim.reason,
        }
    }

    /// What the rules say about a record, given everything before it.
    pub(crate) fn decide(&self, record: &Record) -> Verdict {
        let state = self.get(record.origin());
        let state = match (record, state) {
            (Record::Claim(claim), state) => return decide_claim(claim, state),
            (Record::Loss(loss), state) => return decide_loss(loss, state),
            (_, None) => return Verdict::Unknown,
            (_, Some(state)) => state,
        };
        if record.session() != state.claim {
            return Verdict::Stale;
        }
        if let Some(why) = record.fault() {
            return Verdict::Invalid(why);
        }
        let mark = state.mark;
        let (from, to) = record.range();
        let in_place = match record {
            Record::Retire(_) if from == mark && state.retired => return Verdict::Repeat { mark },
            Record::Retire(_) => from == mark,
            _ if to <= mark => return Verdict::Repeat { mark },
            _ => from == mark,
        };
        if in_place {
            return Verdict::Accept;
        }
        Verdict::Reposition { mark, tail_hash: state.tail_hash, resume: state.resume.clone() }
    }

    /// Moves the state past an accepted record. Returns the origin as it stands after it.
    pub(crate) fn apply(&mut self, record: &Record) -> Option<Arc<OriginState>> {
        if let Record::Claim(claim) = record {
            return Some(self.apply_claim(claim));
        }
        if let Record::Loss(loss) = record {
            return Some(self.apply_loss(loss));
        }
        let held = self.origins.get_mut(record.origin())?;
        let was_retired = held.state.retired;
        let state = Arc::make_mut(&mut held.state);
        state.retired = false;
        match record {
            Record::Block(block) => {
                state.mark = block.to;
                state.tail_hash = block.tail_hash;
                keep_newer(&mut state.resume, &block.resume);
            }
            Record::Gap(gap) => {
                state.mark = gap.to;
                state.tail_hash = 0;
                state.retired = gap.at_least;
                held.retired_at_ms = gap.clock_ms;
            }
            Record::Advance(advance) => {
                state.mark = advance.to;
                state.tail_hash = advance.tail_hash;
                keep_newer(&mut state.resume, &advance.resume);
            }
            Record::Retire(retire) => {
                state.retired = true;
                held.retired_at_ms = retire.clock_ms;
            }
            Record::Claim(_) | Record::Loss(_) => {}
        }
        let after = held.state.clone();
        self.count_live(was_retired, after.retired);
        Some(after)
    }

    /// Checks and applies a record that is in the log already: one that a writer could not have accepted is an error.
    pub(crate) fn replay(&mut self, record: &Record) -> Result<Arc<OriginState>, String> {
        match self.decide(record) {
            Verdict::Accept => {}
            refused => {
                return Err(format!(
                    "the entry does not follow from those before it ({refused:?} for origin {})",
                    record.origin()
                ));
            }
        }
        self.apply(record).ok_or_else(|| format!("origin {} was never claimed", record.origin()))
    }

    /// Forgets origins that retired before this log-clock time. Readers do the same where a segment says so.
    pub(crate) fn forget(&mut self, before_ms: u64) -> Vec<Arc<OriginState>> {
        let old = |held: &Held| held.state.retired && held.retired_at_ms < before_ms;
        let mut gone = Vec::new();
        self.origins.retain(|_, held| {
            if old(held) {
                gone.push(held.state.clone());
            }
            !old(held)
        });
        gone
    }

    fn apply_claim(&mut self, claim: &ClaimRecord) -> Arc<OriginState> {
        let epoch = self.epochs.entry((claim.origin.agent, claim.source.clone())).or_insert(0);
        *epoch = (*epoch).max(claim.source_epoch);
        if claim.registers {
            self.live += 1;
            let held = Held { state: Arc::new(registered(claim)), retired_at_ms: 0 };
            let state = held.state.clone();
            self.origins.insert(claim.origin, held);
            return state;
        }
        let Some(held) = self.origins.get_mut(&claim.origin) else {
            return Arc::new(registered(claim));
        };
        let was_retired = held.state.retired;
        let state = Arc::make_mut(&mut held.state);
        state.claim = claim.session;
        state.host.clone_from(&claim.host);
        state.source = claim.source.clone();
        state.descriptor = claim.descriptor.clone();
        state.retired = false;
        let state = held.state.clone();
        self.count_live(was_retired, false);
        state
    }

    fn apply_loss(&mut self, loss: &LossRecord) -> Arc<OriginState> {
        let after = &loss.after;
        let epoch = self.epochs.entry((after.origin.agent, after.source.clone())).or_insert(0);
        *epoch = (*epoch).max(after.source_epoch);
        let held = Held::from(after.clone());
        let state = held.state.clone();
        let was_retired = match self.origins.insert(after.origin, held) {
            Some(before) => before.state.retired,
            None => {
                self.live += 1;
                false
            }
        };
        self.count_live(was_retired, after.retired);
        state
    }

    /// Whether `branch`, with which a new life begins, says the same of every origin. Its source epochs may be larger.
    pub(crate) fn is_restated_by(&self, branch: &Self) -> bool {
        let raised = |(source, epoch): (&(AgentId, SourceName), &u32)| {
            branch.epochs.get(source).is_some_and(|newer| newer >= epoch)
        };
        self.origins == branch.origins && self.epochs.iter().all(raised)
    }

    /// Raises every source epoch: whatever was given out after a backup was taken is below.
    pub(crate) fn raise_epochs(&mut self, by: u32) {
        self.epochs.values_mut().for_each(|epoch| *epoch = epoch.saturating_add(by));
    }

    fn count_live(&mut self, was_retired: bool, is_retired: bool) {
        match (was_retired, is_retired) {
            (false, true) => self.live -= 1,
            (true, false) => self.live += 1,
            _ => {}
        }
    }
}

fn decide_claim(claim: &ClaimRecord, known: Option<&Arc<OriginState>>) -> Verdict {
    match known {
        None if claim.registers => Verdict::Accept,
        None => Verdict::Unknown,
        Some(_) if claim.registers => Verdict::Invalid("the origin is registered already"),
        Some(state) if state.lineage != claim.lineage => {
            Verdict::Invalid("a lineage is given once")
        }
        Some(state) if state.mark != claim.from => Verdict::Invalid("a claim does not move a mark"),
        Some(_) => Verdict::Accept,
    }
}

fn decide_loss(loss: &LossRecord, known: Option<&Arc<OriginState>>) -> Verdict {
    let after = &loss.after;
    match known {
        _ if after.mark < loss.from => Verdict::Invalid("a loss does not move a mark back"),
        None if loss.registers => Verdict::Accept,
        None => Verdict::Unknown,
        Some(_) if loss.registers => Verdict::Invalid("the origin is registered already"),
        Some(state) if state.lineage != after.lineage => {
            Verdict::Invalid("a lineage is given once")
        }
        Some(state) if state.mark != loss.from => Verdict::Invalid("a loss begins at the mark"),
        Some(_) => Verdict::Accept,
    }
}

fn registered(claim: &ClaimRecord) -> OriginState {
    OriginState {
        origin: claim.origin,
        host: claim.host.clone(),
        source: claim.source.clone(),
        descriptor: claim.descriptor.clone(),
        lineage: claim.lineage,
        source_epoch: claim.source_epoch,
        mark: claim.from,
        tail_hash: 0,
        claim: claim.session,
        resume: None,
        retired: false,
    }
}

fn keep_newer(resume: &mut Option<Vec<u8>>, changed: &Option<Vec<u8>>) {
    if changed.is_some() {
        resume.clone_from(changed);
    }
}

impl From<SavedOrigin> for Held {
    fn from(saved: SavedOrigin) -> Self {
        let state = OriginState {
            origin: saved.origin,
            host: saved.host,
            source: saved.source,
            descriptor: saved.descriptor,
            lineage: saved.lineage,
            source_epoch: saved.source_epoch,
            mark: saved.mark,
            tail_hash: saved.tail_hash,
            claim: saved.claim,
            resume: saved.resume,
            retired: saved.retired,
        };
        Self { state: Arc::new(state), retired_at_ms: saved.retired_at_ms }
    }
}

impl From<&Held> for SavedOrigin {
    fn from(held: &Held) -> Self {
        let state = held.state.as_ref().clone();
        Self {
            origin: state.origin,
            host: state.host,
            source: state.source,
            descriptor: state.descriptor,
            lineage: state.lineage,
            source_epoch: state.source_epoch,
            mark: state.mark,
            tail_hash: state.tail_hash,
            claim: state.claim,
            resume: state.resume,
            retired: state.retired,
            retired_at_ms: held.retired_at_ms,
        }
    }
}
