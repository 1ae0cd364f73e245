//! One origin as the engine sees it: who it is, how far it was read, how far the core has it.
//!
//! ```text
//! start            acked                cut              seen_end
//!   ├────────────────┼────────────────────┼──────────────────┤
//!   on stable storage   sent, unanswered    not read yet
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use garam_proto::message::{ClaimReason, GapReason};
use garam_proto::{AgentId, Descriptor, Generation, LineageId, SourceName, StreamName, hash};

use crate::source::Handle;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u64);

/// A position and the hash of the ≤ 4 KiB before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Frontier {
    pub(super) position: u128,
    pub(super) tail_hash: u64,
}

/// A block or gap on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) to: Frontier,
    /// What it counts in the window.
    pub(super) charge: u64,
    pub(super) records: u32,
    /// Its bytes are a gap.
    pub(super) gap: u64,
    /// So many of its bytes are left out on purpose.
    pub(super) skipped: u64,
}

/// Content that cannot be read any more, up to where it was seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub(super) end: u128,
    pub(super) reason: GapReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The agent has no generation for it: the core is asked.
    Asking,
    Unclaimed,
    Claiming {
        slot: u32,
    },
    Open {
        slot: u32,
        answer: u64,
        partition: u32,
    },
    /// The core does not want it now.
    Held {
        until: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Origin {
    /// `None` when the content is gone: only its gap is left to report.
    pub(super) handle: Option<Handle>,
    pub(super) source: SourceName,
    pub(super) stream: StreamName,
    pub(super) generation: Generation,
    pub(super) descriptor: Descriptor,
    pub(super) lineage_key: Vec<u8>,
    pub(super) lineage: Option<LineageId>,
    /// Order inside the lineage.
    pub(super) age: (i128, Id),
    pub(super) reason: ClaimReason,
    pub(super) source_epoch: u32,
    pub(super) max_record: usize,
    /// A last line without its end is shipped after so long a quiet.
    pub(super) flush_partial: Option<Duration>,
    pub(super) start: u128,
    pub(super) stage: Stage,
    pub(super) acked: Frontier,
    pub(super) cut: Frontier,
    pub(super) seen_end: u128,
    pub(super) sent: VecDeque<Sent>,
    pub(super) lost: Option<Lost>,
    /// Older origins of the lineage that are not acknowledged to their end yet.
    pub(super) older: Vec<Id>,
    pub(super) met_at: Instant,
    /// When a look found nothing more to read.
    pub(super) exhausted_at: Option<Instant>,
    pub(super) last_cut: Option<Instant>,
    pub(super) last_change: Instant,
    /// Since when not all that was seen is acknowledged.
    pub(super) behind_since: Option<Instant>,
    pub(super) unlinked: bool,
    pub(super) left: bool,
    /// It will not grow any more.
    pub(super) ended: bool,
    pub(super) troubled: bool,
    /// Its gap is the end of a damaged compressed file.
    pub(super) damaged: bool,
    pub(super) records_acked: u64,
    pub(super) gap_bytes: u64,
    pub(super) skipped_bytes: u64,
}

/// What an origin begins with.
pub(super) struct First {
    pub(super) handle: Option<Handle>,
    pub(super) source: SourceName,
    pub(super) stream: StreamName,
    pub(super) descriptor: Descriptor,
    pub(super) lineage_key: Vec<u8>,
    pub(super) age: i128,
    pub(super) max_record: usize,
    pub(super) flush_partial: Option<Duration>,
    pub(super) from: Frontier,
}

impl Origin {
    /// An origin nobody was asked about yet.
    pub(super) fn new(id: Id, first: First, now: Instant) -> Self {
        Self {
            handle: first.handle,
            source: first.source,
            stream: first.stream,
            generation: Generation::NIL,
            descriptor: first.descriptor,
            lineage_key: first.lineage_key,
            lineage: None,
            age: (first.age, id),
            reason: ClaimReason::New,
            source_epoch: 0,
            max_record: first.max_record,
            flush_partial: first.flush_partial,
            start: first.from.position,
            stage: Stage::Asking,
            acked: first.from,
            cut: first.from,
            seen_end: first.from.position,
            sent: VecDeque::new(),
            lost: None,
            older: Vec::new(),
            met_at: now,
            exhausted_at: None,
            last_cut: None,
            last_change: now,
            behind_since: None,
            unlinked: false,
            left: false,
            ended: false,
            troubled: false,
            damaged: false,
            records_acked: 0,
            gap_bytes: 0,
            skipped_bytes: 0,
        }
    }

    pub(super) fn name_lineage(&mut self, agent: AgentId) {
        self.lineage
            .get_or_insert_with(|| hash::file_lineage(agent, &self.source, &self.lineage_key));
    }

    /// Forgets everything about the connection. What was sent is kept until the next mark says how much of it arrived.
    pub(super) fn disconnected(&mut self) {
        if self.stage != Stage::Asking {
            self.stage = Stage::Unclaimed;
        }
        self.cut = self.acked;
        self.exhausted_at = None;
    }

    /// Takes note of a mark: what of the sent lies below it is on stable storage. Returns what it frees in the window.
    pub(super) fn settle(&mut self, mark: u128) -> Settled {
        let mut settled = Settled::default();
        while let Some(sent) = self.sent.front().filter(|sent| sent.to.position <= mark) {
            settled.charge += sent.charge;
            settled.records += u64::from(sent.records);
            settled.gap += sent.gap;
            settled.skipped += sent.skipped;
            settled.bytes +=
                u64::try_from(sent.to.position - self.acked.position).unwrap_or(0) - sent.gap;
            self.acked = sent.to;
            self.sent.pop_front();
        }
        self.records_acked += settled.records;
        self.gap_bytes += settled.gap;
        self.skipped_bytes += settled.skipped;
        settled
    }

    /// Whether nothing of it is left to read or to be acknowledged, as of a look after `since`.
    pub(super) fn has_ended(&self, since: Instant) -> bool {
        if let Some(lost) = self.lost {
            return self.sent.is_empty() && self.acked.position >= lost.end;
        }
        if self.is_unborn() || self.troubled {
            return self.troubled || self.exhausted_at.is_some_and(|at| at >= since);
        }
        let exhausted = self.exhausted_at.is_some_and(|at| at >= since);
        exhausted && self.sent.is_empty() && matches!(self.stage, Stage::Open { .. })
    }

    /// Empty and never claimed: it is asked for and claimed when there is something to read.
    pub(super) fn is_unborn(&self) -> bool {
        self.reason == ClaimReason::New
            && matches!(self.stage, Stage::Asking | Stage::Unclaimed)
            && self.lost.is_none()
            && self.seen_end == 0
    }

    /// Takes note of whether everything that was seen is acknowledged.
    pub(super) fn measure_lag(&mut self, now: Instant) {
        if self.acked.position >= self.seen_end {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert(now);
        }
    }

    /// Why bytes of it are a gap.
    pub(super) fn gap_reason(&self) -> &'static str {
        match self.lost {
            Some(lost) => lost.reason.name(),
            None if self.damaged => "damaged",
            None => "unknown",
        }
    }

    pub(super) fn slot(&self) -> Option<(u32, u64, u32)> {
        match self.stage {
            Stage::Open { slot, answer, partition } => Some((slot, answer, partition)),
            _ => None,
        }
    }
}

/// What a mark settled.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) charge: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) gap: u64,
    pub(super) skipped: u64,
}
