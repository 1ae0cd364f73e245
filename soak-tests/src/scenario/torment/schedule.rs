//! When what is done to the product: derived from scenario, duration and seed before the run begins.
//!
//! In: those three. Out: faults with their moments, printed at the start so that a run can be read and repeated. Pure. A
//! moment is the earliest one: a fault also waits until the fault before it is over, and, unless it is impatient, a bounded
//! time for records to move, so that the system can get anywhere at all.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::Torment;
use super::clocks::Whose;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Since the start of writing.
    pub(crate) at: Duration,
    /// Strikes without waiting for records to move: in the middle of a start.
    pub(crate) impatient: bool,
    pub(crate) action: Action,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    KillAgent,
    KillCore,
    /// Kill the agent, remove its state, start it after this time and after a rotation.
    LoseState {
        down: Duration,
    },
    Link(LinkFault),
    /// From now on a clock is wrong by so many seconds; its program may be killed and started under it.
    SetClock {
        whose: Whose,
        seconds: i64,
        restart: bool,
    },
}

/// What is done to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkFault {
    Reset,
    Close,
    /// RST after this many more bytes.
    CutAfter(u32),
    /// Nothing moves for a while, then everything goes on.
    Stall(Duration),
    /// What is sent vanishes for a while, then the connection is reset.
    Swallow(Duration),
    /// Each piece is delayed for a second.
    Slow(Duration),
    /// Reset, and nobody gets in for a while.
    Refuse(Duration),
    /// The agent sees an end and comes back while the core still believes in the old connection, on which what was on its
    /// way arrives this much later. Seldom: more than five of them a minute look like two agents with one identity.
    Orphan(Duration),
}

/// Time between two orphaned connections.
const ORPHANS_APART: Duration = Duration::from_secs(20);
/// In seconds.
const DAY: i64 = 86_400;

/// All faults of a run, in order.
pub(crate) fn derive(scenario: Torment, seconds: u64, seed: u64) -> Vec<Fault> {
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let end = Duration::from_secs(seconds);
    let mut faults = Vec::new();
    let mut at = Duration::ZERO;
    let mut next_orphan = Duration::ZERO;
    loop {
        // A fifth of the kills hits a process that has just been started.
        let hasty = matches!(scenario, Torment::AgentKilled | Torment::CoreKilled);
        let impatient = hasty && rng.u32(..5) == 0;
        at += match scenario {
            Torment::Steady => return faults,
            Torment::AgentKilled | Torment::CoreKilled if impatient => millis(&mut rng, 5, 250),
            Torment::AgentKilled | Torment::CoreKilled => millis(&mut rng, 300, 1_300),
            Torment::LinkCut => millis(&mut rng, 400, 2_000),
            Torment::AgentStateLost => millis(&mut rng, 4_000, 8_000),
            Torment::ClocksJump => millis(&mut rng, 700, 2_500),
        };
        if at >= end {
            return faults;
        }
        let action = match scenario {
            Torment::CoreKilled => Action::KillCore,
            Torment::LinkCut if at >= next_orphan && rng.u32(..4) == 0 => {
                next_orphan = at + ORPHANS_APART;
                Action::Link(LinkFault::Orphan(millis(&mut rng, 1, 1_000)))
            }
            Torment::LinkCut => Action::Link(link_fault(&mut rng)),
            Torment::AgentStateLost => Action::LoseState { down: millis(&mut rng, 50, 1_500) },
            Torment::ClocksJump => jump(&mut rng),
            Torment::AgentKilled | Torment::Steady => Action::KillAgent,
        };
        faults.push(Fault { at, impatient, action });
    }
}

/// How many faults a run must see to count as one.
pub(crate) fn least(scenario: Torment, seconds: u64) -> u64 {
    match scenario {
        Torment::Steady => 0,
        Torment::AgentKilled | Torment::CoreKilled | Torment::LinkCut | Torment::ClocksJump => {
            (seconds / 3).max(1)
        }
        Torment::AgentStateLost => (seconds / 12).max(1),
    }
}

fn link_fault(rng: &mut Rng) -> LinkFault {
    match rng.u32(..7) {
        0 => LinkFault::Reset,
        1 => LinkFault::Close,
        2 => LinkFault::CutAfter(rng.u32(1..200_000)),
        3 => LinkFault::Stall(millis(rng, 50, 1_500)),
        4 => LinkFault::Swallow(millis(rng, 50, 1_000)),
        5 => LinkFault::Slow(millis(rng, 1, 50)),
        _ => LinkFault::Refuse(millis(rng, 50, 1_500)),
    }
}

/// A third of the jumps put a clock right again. Past the life of certificates nothing new connects until it is.
fn jump(rng: &mut Rng) -> Action {
    let whose = if rng.bool() { Whose::Core } else { Whose::Agent };
    let far = [-800 * DAY, -DAY, -3_600, -70, 70, 3_600, 30 * DAY, 400 * DAY];
    let seconds = if rng.u32(..3) == 0 { 0 } else { far[rng.usize(..far.len())] };
    Action::SetClock { whose, seconds, restart: rng.bool() }
}

fn millis(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least..=most))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hurry = if self.impatient { "!" } else { "" };
        write!(f, "{:.2}{hurry} ", self.at.as_secs_f64())?;
        match self.action {
            Action::KillAgent | Action::KillCore => write!(f, "kill"),
            Action::LoseState { down } => write!(f, "lose state, down {down:?}"),
            Action::Link(fault) => write!(f, "{fault:?}"),
            Action::SetClock { whose, seconds, restart } => {
                write!(f, "{whose:?} {seconds:+} s{}", if restart { ", kill" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_again_and_another_seed_others() {
        for scenario in Torment::ALL {
            assert_eq!(derive(scenario, 60, 7), derive(scenario, 60, 7));
            let differs = derive(scenario, 60, 7) != derive(scenario, 60, 8);
            assert_eq!(differs, scenario != Torment::Steady);
        }
    }

    #[test]
    fn a_minute_holds_the_faults_it_must_hold_whatever_the_seed() {
        for seed in 0..200 {
            let count = |scenario| derive(scenario, 60, seed).len() as u64;
            for scenario in [Torment::AgentKilled, Torment::CoreKilled] {
                assert!(count(scenario) >= 60, "{scenario:?} with seed {seed}");
            }
            let orphans = derive(Torment::LinkCut, 60, seed);
            let orphans = orphans
                .iter()
                .filter(|fault| matches!(fault.action, Action::Link(LinkFault::Orphan(_))));
            assert!((1..=3).contains(&orphans.count()), "seed {seed}");
            for scenario in Torment::ALL {
                assert!(count(scenario) >= least(scenario, 60), "{scenario:?} with seed {seed}");
            }
        }
    }
}
