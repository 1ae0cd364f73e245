//! What a run found: the counts, whether that is good, and why not.
//!
//! In: the oracle's judgement, the pipeline's own counters, the run's figures. Out: a line of JSON whose first keys never
//! change, or a table. `ok` needs more than no errors: something must have been written, enough faults must have struck, the
//! pipeline's counters must agree with what is there, and both processes must have stopped when asked.

use std::fmt;

use serde::Serialize;

use super::Torment;
use crate::database::Counters;
use crate::oracle::Judgement;
use crate::scenario::Verdict;
use crate::scenario::findings::{self, Errors};

/// The figures of a run that neither the oracle nor the pipeline knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    pub(crate) faults: u64,
    pub(crate) least_faults: u64,
    pub(crate) generated: u64,
    pub(crate) restarts: u64,
    pub(crate) rotations: u64,
    /// From the last fault until everything that was written had arrived.
    pub(crate) heal_s: f64,
    /// What went wrong on the way: unclean ends, nothing arriving any more.
    pub(crate) troubles: Vec<String>,
}

/// The one object a run ends with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    scenario: Torment,
    seed: u64,
    seconds: u64,
    faults: u64,
    generated: u64,
    /// Rows in the destination.
    delivered: u64,
    quarantined: u64,
    dropped: u64,
    /// Bytes counted as lost upstream. The writers lose none.
    gap: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    altered: u64,
    ok: bool,
    misjudged: u64,
    restarts: u64,
    rotations: u64,
    heal_s: f64,
    why: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        (scenario, seed, seconds): (Torment, u64, u64),
        run: Run,
        counters: Counters,
        found: Judgement,
    ) -> Self {
        let why = complaints(&run, counters, &found);
        Self {
            scenario,
            seed,
            seconds,
            faults: run.faults,
            generated: run.generated,
            delivered: found.delivered,
            quarantined: found.quarantined,
            dropped: counters.dropped,
            gap: counters.gap,
            lost: found.lost,
            duplicated: found.duplicated,
            reordered: found.reordered,
            altered: found.altered,
            ok: why.is_empty(),
            misjudged: found.misjudged,
            restarts: run.restarts,
            rotations: run.rotations,
            heal_s: (run.heal_s * 10.0).round() / 10.0,
            why,
        }
    }
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

/// Everything that keeps a run from being good.
fn complaints(run: &Run, counters: Counters, found: &Judgement) -> Vec<String> {
    let mut why = run.troubles.clone();
    why.extend(found.examples.iter().cloned());
    let mut demand = |met: bool, complaint: String| {
        if !met {
            why.push(complaint);
        }
    };
    let (generated, settled) = (run.generated, counters.settled());
    demand(generated > 0, "nothing was written".into());
    demand(
        run.faults >= run.least_faults,
        format!("{} faults struck, at least {} should have", run.faults, run.least_faults),
    );
    demand(
        counters.records_in == settled,
        format!("the pipeline took {} records and accounts for {settled}", counters.records_in),
    );
    demand(
        settled == generated,
        format!("the pipeline accounts for {settled} records, {generated} were written"),
    );
    demand(
        counters.delivered == found.delivered,
        format!("the pipeline counts {} rows, there are {}", counters.delivered, found.delivered),
    );
    demand(
        counters.quarantined == found.quarantined,
        format!(
            "the pipeline counts {} quarantined records, there are {}",
            counters.quarantined, found.quarantined
        ),
    );
    demand(counters.gap == 0, format!("a gap of {} bytes, but no byte was removed", counters.gap));
    let mut errors = Errors::default();
    errors.add(found);
    demand(errors.total() == 0, format!("{} errors by id", errors.total()));
    why
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(
            f,
            "{}  seed {}  {} s  {} faults  {} restarts  {} rotations  healed in {} s  {verdict}",
            self.scenario,
            self.seed,
            self.seconds,
            self.faults,
            self.restarts,
            self.rotations,
            self.heal_s
        )?;
        let rows = [
            ("generated", self.generated),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
            ("dropped", self.dropped),
            ("gap bytes", self.gap),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("altered", self.altered),
            ("misjudged", self.misjudged),
        ];
        findings::table(f, &rows, &self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of a hundred records, damaged; whether it is still good.
    fn is_ok(damage: impl FnOnce(&mut Run, &mut Counters, &mut Judgement)) -> bool {
        let mut run = Run { faults: 5, least_faults: 5, generated: 100, ..Run::default() };
        let mut counters =
            Counters { records_in: 100, delivered: 99, quarantined: 1, dropped: 0, gap: 0 };
        let mut found = Judgement { delivered: 99, quarantined: 1, ..Judgement::default() };
        damage(&mut run, &mut counters, &mut found);
        Report::new((Torment::Steady, 7, 60), run, counters, found).ok()
    }

    #[test]
    fn a_run_is_good_only_when_nothing_speaks_against_it() {
        assert!(is_ok(|_, _, _| {}));
        assert!(!is_ok(|_, _, found| found.lost = 1));
        assert!(!is_ok(|_, _, found| found.duplicated = 1));
        assert!(!is_ok(|_, _, found| found.reordered = 1));
        assert!(!is_ok(|_, _, found| found.altered = 1));
        assert!(!is_ok(|_, _, found| found.misjudged = 1));
        assert!(!is_ok(|_, _, found| found.delivered = 98));
        assert!(!is_ok(|_, counters, _| counters.records_in = 101));
        assert!(!is_ok(|_, counters, _| counters.quarantined = 2));
        assert!(!is_ok(|_, counters, _| counters.gap = 1));
        assert!(!is_ok(|run, _, _| run.generated = 101));
        assert!(!is_ok(|run, _, _| run.faults = 4));
        assert!(!is_ok(|run, _, _| run.troubles.push("the core hung".into())));
        assert!(!is_ok(|run, counters, found| {
            (run.generated, *counters, *found) = Default::default();
        }));
    }

    #[test]
    fn the_line_begins_with_the_keys_that_never_change() {
        let report = Report::new(
            (Torment::AgentStateLost, 7, 60),
            Run::default(),
            Counters::default(),
            Judgement::default(),
        );
        let line = serde_json::to_string(&report).unwrap();
        let expected = "{\"scenario\":\"agent_state_lost\",\"seed\":7,\"seconds\":60,\"faults\":0,\
            \"generated\":0,\"delivered\":0,\"quarantined\":0,\"dropped\":0,\"gap\":0,\"lost\":0,\
            \"duplicated\":0,\"reordered\":0,\"altered\":0,\"ok\":false,";
        assert!(line.starts_with(expected), "{line}");
    }
}
