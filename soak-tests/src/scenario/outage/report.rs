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
    pub(super) outages: Vec<Outage>,
    ok: bool,
    pub(super) why: Vec<String>,
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
}
