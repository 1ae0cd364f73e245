//! What the rounds found: the counts, whether that is good, and why not.
//!
//! In: findings as they come. Out: one object, or a table. `ok` needs more than no errors: every round must have been made,
//! and at the cuts something must have been acknowledged and delivered.

use std::fmt;

use serde::Serialize;

use super::{Args, Canary};
use crate::mounts::Kind;
use crate::oracle::Judgement;
use crate::scenario::Verdict;
use crate::scenario::findings::{self, Errors};

/// How many complaints are printed.
const NAMED: usize = 24;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    canary: Option<Canary>,
    /// Asked for, on each file system.
    rounds: u32,
    pub(super) parts: Vec<Part>,
    /// By id: acknowledged or delivered before a cut and not there after it, or missing at the end.
    #[serde(flatten)]
    errors: Errors,
    /// Log ends, checkpoints and committed rows that were lower after a cut.
    regressions: u64,
    /// Entries that a destination had and the log had not.
    pub(super) phantoms: u64,
    /// Partitions that a cut left damaged; a torn tail is none.
    pub(super) damaged: u64,
    pub(super) restarts: u64,
    pub(super) restarts_failed: u64,
    ok: bool,
    complaints: u64,
    why: Vec<String>,
}

/// One file system.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Part {
    pub(super) fs: Kind,
    pub(super) rounds: u32,
    pub(super) generated: u64,
    /// Records that were acknowledged when the disk went, summed over the cuts; and delivered outside.
    pub(super) acknowledged: u64,
    pub(super) delivered_at_cuts: u64,
    /// Partitions whose end a cut had torn.
    pub(super) torn_tails: u64,
}

impl Part {
    pub(super) fn new(fs: Kind) -> Self {
        Self { fs, rounds: 0, generated: 0, acknowledged: 0, delivered_at_cuts: 0, torn_tails: 0 }
    }
}

impl Report {
    pub(super) fn new(args: &Args) -> Self {
        let Args { seed, canary, rounds, .. } = *args;
        Self { scenario: "power_loss", seed, canary, rounds, ..Self::default() }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.complaints == 0
    }

    /// Whether there is nothing more to find: the first fault, or what the canary should be seen by.
    pub(super) fn is_over(&self) -> bool {
        match self.canary {
            None => !self.is_clean(),
            Some(Canary::AckBeforeSync) => self.errors.lost > 0,
            Some(Canary::ReadBeyondEnd) => self.phantoms > 0,
        }
    }

    pub(super) fn complain(&mut self, why: String) {
        self.complaints += 1;
        if self.why.len() < NAMED {
            self.why.push(why);
        }
    }

    pub(super) fn regress(&mut self, why: String) {
        self.regressions += 1;
        self.complain(why);
    }

    pub(super) fn lose(&mut self, why: String) {
        self.errors.lost += 1;
        self.complain(why);
    }

    /// What the oracle found in one destination.
    pub(super) fn add(&mut self, fs: Kind, pipe: &str, found: &Judgement) {
        self.errors.add(found);
        for example in &found.examples {
            self.complain(format!("{} {pipe}: {example}", fs.name()));
        }
    }

    /// Nothing more is found.
    pub(super) fn conclude(&mut self) {
        let (rounds, clean) = (self.rounds, self.is_clean());
        let done = |part: &Part| {
            part.rounds == rounds && part.acknowledged > 0 && part.delivered_at_cuts > 0
        };
        self.ok = clean && !self.parts.is_empty() && self.parts.iter().all(done);
    }
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "power_loss  seed {}  {verdict}", self.seed)?;
        for part in &self.parts {
            let Part { fs, rounds, generated, acknowledged, delivered_at_cuts, torn_tails } = part;
            writeln!(
                f,
                "  {:<5} {rounds} of {} rounds  {generated} written  {acknowledged} acknowledged and \
                 {delivered_at_cuts} delivered at cuts  {torn_tails} torn tails",
                fs.name(),
                self.rounds
            )?;
        }
        let mut rows = self.errors.rows().to_vec();
        rows.extend([
            ("regressions", self.regressions),
            ("phantoms", self.phantoms),
            ("damaged", self.damaged),
            ("restarts", self.restarts),
            ("restarts failed", self.restarts_failed),
        ]);
        findings::table(f, &rows, &self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ok(damage: impl FnOnce(&mut Report)) -> bool {
        let part =
            Part { rounds: 3, acknowledged: 9, delivered_at_cuts: 8, ..Part::new(Kind::Ext4) };
        let mut report = Report { rounds: 3, parts: vec![part], ..Report::default() };
        damage(&mut report);
        report.conclude();
        report.ok()
    }

    #[test]
    fn a_run_is_good_only_when_nothing_speaks_against_it() {
        assert!(is_ok(|_| {}));
        assert!(!is_ok(|report| report.lose("a record".into())));
        assert!(!is_ok(|report| report.regress("a cursor".into())));
        assert!(!is_ok(|report| report.parts.clear()));
        assert!(!is_ok(|report| report.parts[0].rounds = 2));
        assert!(!is_ok(|report| report.parts[0].acknowledged = 0));
        assert!(!is_ok(|report| report.parts[0].delivered_at_cuts = 0));
        let missed = |report: &mut Report| report.canary = Some(Canary::ReadBeyondEnd);
        assert!(is_ok(missed), "a canary that nobody sees makes a good run, which is an error");
        let found = Judgement { examples: vec!["lost: x".into()], lost: 1, ..Default::default() };
        assert!(!is_ok(|report| report.add(Kind::Xfs, "soak", &found)));
    }
}
