//! What an outage did: how long it took to be felt and to heal, and what the oracle found.
//!
//! In: findings as they come. Out: one object, or a table. `ok` needs that every outage was felt and has healed.

use std::fmt;

use serde::Serialize;

use crate::oracle::Judgement;
use crate::scenario::Verdict;
use crate::scenario::findings::{self, Errors};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    generated: u64,
    delivered: u64,
    quarantined: u64,
    #[serde(flatten)]
    errors: Errors,
    /// The longest time for which nothing arrived where nothing was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) longest_pause_s: Option<f64>,
    /// What a stream gave up to be able to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<Missed>,
    pub(super) outages: Vec<Outage>,
    ok: bool,
    pub(super) why: Vec<String>,
}

/// Records that are not there, and what the product says of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Missed {
    records: u64,
    bytes: u64,
    /// Bytes, as the pipeline's counter has them, but for those of records in the quarantine.
    gap: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outage {
    pub(super) name: &'static str,
    /// None: it never was.
    pub(super) felt_s: Option<f64>,
    pub(super) healed_s: Option<f64>,
}

impl Report {
    pub(super) fn new(scenario: &'static str, seed: u64) -> Self {
        Self { scenario, seed, ..Self::default() }
    }

    /// What the oracle found in one destination.
    pub(super) fn add(&mut self, pipe: &str, generated: u64, found: &Judgement) {
        self.generated += generated;
        self.delivered += found.delivered;
        self.quarantined += found.quarantined;
        self.errors.add(found);
        self.why.extend(found.examples.iter().map(|example| format!("{pipe}: {example}")));
    }

    /// What the oracle found in a destination whose stream went on without it: everything that is missing must lie in the gap.
    pub(super) fn add_behind_gap(&mut self, pipe: &str, written: u64, found: &Judgement, gap: u64) {
        self.missed = Some(Missed { records: found.lost, bytes: found.lost_bytes, gap });
        if found.lost == 0 || found.lost_bytes != gap {
            self.why.push(format!(
                "{pipe}: {} records of {} bytes are missing, the gap counts {gap}",
                found.lost, found.lost_bytes
            ));
        }
        let mut others = found.clone();
        others.forgive_lost();
        self.add(pipe, written, &others);
    }

    /// Nothing more is found: so many outages there should have been.
    pub(super) fn conclude(&mut self, outages: usize) {
        let whole = |outage: &Outage| outage.felt_s.is_some() && outage.healed_s.is_some();
        self.ok = self.why.is_empty()
            && self.generated > 0
            && self.outages.len() == outages
            && self.outages.iter().all(whole);
    }
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds =
            |found: Option<f64>| found.map_or("never".into(), |s| format!("after {s:.1} s"));
        let (felt, healed) = (seconds(self.felt_s), seconds(self.healed_s));
        write!(f, "{}: felt {felt}, healed {healed}", self.name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "{}  seed {}  {verdict}", self.scenario, self.seed)?;
        self.outages.iter().try_for_each(|outage| writeln!(f, "  {outage}"))?;
        if let Some(pause) = self.longest_pause_s {
            writeln!(f, "  longest pause beside it: {pause:.1} s")?;
        }
        if let Some(Missed { records, bytes, gap }) = self.missed {
            writeln!(f, "  given up: {records} records of {bytes} bytes, counted as {gap}")?;
        }
        let mut rows = vec![
            ("generated", self.generated),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
        ];
        rows.extend(self.errors.rows());
        findings::table(f, &rows, &self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ok(damage: impl FnOnce(&mut Report)) -> bool {
        let outage = Outage { name: "x", felt_s: Some(1.0), healed_s: Some(1.0) };
        let mut report = Report::new("disk_full", 7);
        report.outages.push(outage);
        report.add("soak", 10, &Judgement { delivered: 10, ..Judgement::default() });
        damage(&mut report);
        report.conclude(1);
        report.ok()
    }

    #[test]
    fn an_outage_counts_only_when_it_was_felt_and_has_healed() {
        assert!(is_ok(|_| {}));
        assert!(!is_ok(|report| report.outages.clear()));
        assert!(!is_ok(|report| report.outages[0].felt_s = None));
        assert!(!is_ok(|report| report.outages[0].healed_s = None));
        assert!(!is_ok(|report| report.why.push("stuck".into())));
        let found = Judgement { examples: vec!["lost: x".into()], lost: 1, ..Default::default() };
        assert!(!is_ok(|report| report.add("soak", 0, &found)));
    }

    #[test]
    fn a_gap_excuses_what_is_missing_and_nothing_else() {
        let examples = vec!["lost: x".into()];
        let found = Judgement { examples, lost: 1, lost_bytes: 70, ..Default::default() };
        assert!(is_ok(|report| report.add_behind_gap("soak", 5, &found, 70)));
        assert!(!is_ok(|report| report.add_behind_gap("soak", 5, &found, 71)));
        assert!(!is_ok(|report| report.add_behind_gap("soak", 5, &Judgement::default(), 0)));
        let examples = vec!["duplicated: x".into()];
        let twice = Judgement { examples, duplicated: 1, ..found };
        assert!(!is_ok(|report| report.add_behind_gap("soak", 5, &twice, 70)));
    }
}
