//! What a story about files ends with: the counts, and why it is not good.
//!
//! In: the oracle's findings. Out: one object, or a table. `ok` needs that something was written and that the agent came to
//! rest, with every ledger balanced, at least once.

use std::fmt;

use serde::Serialize;

use crate::oracle::Judgement;
use crate::scenario::Verdict;

/// What an idle agent costs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(super) files: u64,
    pub(super) descriptors: u64,
    pub(super) resident_mib: f64,
    pub(super) peak_mib: f64,
    pub(super) cpu_percent: f64,
    /// Until all files were taken in, processor time.
    pub(super) intake_cpu_s: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    generated: u64,
    delivered: u64,
    quarantined: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    altered: u64,
    misjudged: u64,
    /// How often everything was delivered and every ledger looked at.
    rests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<Idle>,
    ok: bool,
    why: Vec<String>,
}

impl Report {
    pub(super) fn new(
        scenario: &'static str,
        generated: u64,
        rests: u64,
        idle: Option<Idle>,
        found: &Judgement,
        mut why: Vec<String>,
    ) -> Self {
        why.extend(found.examples.iter().cloned());
        Self {
            scenario,
            generated,
            delivered: found.delivered,
            quarantined: found.quarantined,
            lost: found.lost,
            duplicated: found.duplicated,
            reordered: found.reordered,
            altered: found.altered,
            misjudged: found.misjudged,
            rests,
            idle,
            ok: why.is_empty() && generated > 0 && rests > 0,
            why,
        }
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
        writeln!(f, "{}  {} rests  {verdict}", self.scenario, self.rests)?;
        for (name, value) in [
            ("generated", self.generated),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("altered", self.altered),
            ("misjudged", self.misjudged),
        ] {
            writeln!(f, "  {name:<12} {value:>10}")?;
        }
        if let Some(idle) = &self.idle {
            writeln!(
                f,
                "  {} files idle: {:.1} MiB (peak {:.1}), {:.2} % of a core, {} descriptors; taken in with {:.2} CPU s",
                idle.files,
                idle.resident_mib,
                idle.peak_mib,
                idle.cpu_percent,
                idle.descriptors,
                idle.intake_cpu_s
            )?;
        }
        self.why.iter().try_for_each(|why| writeln!(f, "  ! {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_good_only_when_something_was_written_and_nothing_speaks_against_it() {
        let is_ok = |generated, rests, found: &Judgement, why| {
            Report::new("file_tiny", generated, rests, None, found, why).ok()
        };
        let clean = Judgement::default();
        assert!(is_ok(1, 1, &clean, vec![]));
        assert!(!is_ok(0, 1, &clean, vec![]));
        assert!(!is_ok(1, 0, &clean, vec![]));
        assert!(!is_ok(1, 1, &clean, vec!["unbalanced".into()]));
        let lost = Judgement { lost: 1, examples: vec!["lost: x".into()], ..Judgement::default() };
        assert!(!is_ok(1, 1, &lost, vec![]));
    }
}
