//! Which calls the workload makes, which of them were struck, and which come next.
//!
//! In: the sites of an undisturbed run, then those of every further run and where it was struck. Out: for the next run, the
//! sites it must spare. Promise: **every call of the workload** is every site that any run made before its fault. No two runs
//! are the same (group commit makes one call of two, threads race at the end), so a list of one run is never the whole truth:
//! * a run is sent for one site of the list, and is struck as well at the first site that nobody has seen before;
//! * sites that a run was sent for and did not make wait for the *sweep*, whose runs are struck at the first call of any site
//!   that is still missing or new;
//! * the sweep ends when nothing is missing and [`QUIET`] whole runs in a row made no call that had not been struck.
//!
//! Whoever samples (`--at`, `--calls`, `--every`) is content when nothing of the sample is missing.

use std::collections::{BTreeSet, VecDeque};

use crate::processes::Calls;

/// What the tracer calls a call: `fdatasync core/log/soak/*/*.seg 17`.
pub(super) type Site = String;

/// With so many whole runs, less than one run in ten makes a call that was never struck, at 90 % confidence.
pub(super) const QUIET: u32 = 24;
/// A sweep that has not come to its end by then has failed.
const SWEEPS: u32 = 400;

pub(super) struct Coverage {
    known: BTreeSet<Site>,
    /// No run was sent for them yet.
    waiting: VecDeque<Site>,
    /// A run was sent for them and did not make them.
    missed: BTreeSet<Site>,
    struck: BTreeSet<Site>,
    /// Everything is to be struck, not a sample.
    whole: bool,
    /// Whole runs in a row, up to now, that made nothing new.
    quiet: u32,
    sweeps: u32,
}

/// What a run is sent for.
pub(super) struct Errand {
    /// None in the sweep.
    aim: Option<Site>,
    pub(super) spared: BTreeSet<Site>,
}

impl Coverage {
    pub(super) fn of(listed: &[Site], sample: Option<Vec<Site>>) -> Self {
        let whole = sample.is_none();
        Self {
            known: listed.iter().cloned().collect(),
            waiting: sample.unwrap_or_else(|| listed.to_vec()).into(),
            missed: BTreeSet::new(),
            struck: BTreeSet::new(),
            whole,
            quiet: 0,
            sweeps: 0,
        }
    }

    /// None when nothing is left to do.
    pub(super) fn next(&mut self) -> Option<Errand> {
        if let Some(site) = self.waiting.pop_front() {
            let mut spared = self.known.clone();
            spared.remove(&site);
            return Some(Errand { aim: Some(site), spared });
        }
        if self.is_swept() || self.sweeps == SWEEPS {
            return None;
        }
        self.sweeps += 1;
        Some(Errand { aim: None, spared: self.known.difference(&self.missed).cloned().collect() })
    }

    /// A run is over.
    pub(super) fn note(&mut self, errand: Errand, calls: &Calls) {
        self.known.extend(calls.made.iter().cloned());
        let sweeping = errand.aim.is_none();
        match (&calls.struck, errand.aim) {
            (Some(site), aim) => {
                self.missed.remove(site);
                let new = self.struck.insert(site.clone());
                if new && sweeping {
                    self.quiet = 0;
                }
                // Something new came before what it was sent for.
                self.waiting.extend(aim.filter(|aim| aim != site));
            }
            (None, Some(aim)) => {
                self.missed.insert(aim);
            }
            (None, None) => self.quiet += 1,
        }
    }

    fn is_swept(&self) -> bool {
        self.missed.is_empty() && (!self.whole || self.quiet >= QUIET)
    }

    pub(super) fn known(&self) -> u64 {
        self.known.len() as u64
    }

    pub(super) fn struck(&self) -> u64 {
        self.struck.len() as u64
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn missed(&self) -> &BTreeSet<Site> {
        &self.missed
    }

    /// Whole runs in a row, at the end, that made no call which had not been struck.
    pub(super) fn quiet(&self) -> u32 {
        self.quiet
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn sites(names: &str) -> Vec<Site> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// What the tracer does with a run that would make these calls.
    fn play(calls: &[Site], errand: &Errand) -> Calls {
        let hit = calls.iter().position(|site| !errand.spared.contains(site));
        let made = &calls[..hit.map_or(calls.len(), |hit| hit + 1)];
        Calls { made: made.to_vec(), struck: hit.map(|hit| calls[hit].clone()) }
    }

    /// Runs until nothing is left to do.
    fn cover(mut coverage: Coverage, mut run: impl FnMut() -> Vec<Site>) -> (Coverage, u32) {
        let mut runs = 0;
        while let Some(errand) = coverage.next() {
            let calls = play(&run(), &errand);
            coverage.note(errand, &calls);
            runs += 1;
        }
        (coverage, runs)
    }

    #[test]
    fn equal_runs_are_struck_once_at_every_call() {
        let calls = sites("a1 b1 a2 c1");
        let (coverage, runs) = cover(Coverage::of(&calls, None), || calls.clone());
        assert_eq!((coverage.known(), coverage.struck(), runs), (4, 4, 4 + QUIET));
        assert!(coverage.missed().is_empty());
    }

    #[test]
    fn what_only_some_runs_make_is_struck_although_the_list_lacks_it() {
        let mut rng = Rng::with_seed(1);
        let listed = sites("a1 b1 c1");
        let run = || {
            let mut calls = sites("a1 b1");
            if rng.u8(..4) == 0 {
                calls.extend(sites("a2 b2"));
            }
            // Races at the end.
            calls.extend(sites("c1 c2 c3").into_iter().take(rng.usize(..=3)));
            calls
        };
        let (coverage, _) = cover(Coverage::of(&listed, None), run);
        assert_eq!((coverage.known(), coverage.struck()), (7, 7), "{:?}", coverage.missed());
    }

    #[test]
    fn what_never_comes_again_is_missed_and_the_sweep_ends() {
        let (coverage, runs) = cover(Coverage::of(&sites("a1 z1"), None), || sites("a1"));
        assert_eq!((coverage.struck(), runs), (1, 2 + SWEEPS));
        assert_eq!(coverage.missed().iter().collect::<Vec<_>>(), ["z1"]);
    }

    #[test]
    fn a_sample_is_struck_and_nothing_else() {
        let listed = sites("a1 a2 a3");
        let sample = Some(sites("a2"));
        let (coverage, runs) = cover(Coverage::of(&listed, sample), || listed.clone());
        assert_eq!((coverage.struck(), runs), (1, 1));
    }
}
