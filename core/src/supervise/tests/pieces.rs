//! The small parts alone: back-off, intensity, progress, kill switch, policy.

use std::time::Duration;

use garam_stage::{Failure, FailureKind};
use tokio::time::Instant;

use super::super::progress::Watch;
use super::super::restarts::{Backoff, History, Timing};
use super::super::*;

#[test]
fn backoff_grows_stays_in_its_bounds_and_resets_after_a_stable_time() {
    let timing = Timing::default();
    let mut highest = Duration::ZERO;
    for seed in 0..50 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut backoff = Backoff::new(&timing);
        let mut last = timing.floor;
        for _ in 0..100 {
            let pause = backoff.next(Duration::ZERO, &timing, &mut chance);
            assert!(pause >= timing.floor && pause <= timing.cap, "{pause:?}");
            assert!(pause <= last * 3, "{pause:?} after {last:?}");
            highest = highest.max(pause);
            last = pause;
        }
        let pause = backoff.next(timing.stable, &timing, &mut chance);
        assert!(pause <= timing.floor * 3, "{pause:?} after a stable time");
    }
    assert!(highest > timing.cap / 2, "it never grew: {highest:?}");
}

#[test]
fn an_intensity_forgets_what_is_long_ago() {
    let intensity = Intensity { max: 2, within: Duration::from_secs(10) };
    let start = Instant::now();
    let mut history = History::default();
    let admitted: Vec<bool> = [0, 4, 11, 12, 40]
        .iter()
        .map(|&s| history.admit(intensity, start + Duration::from_secs(s)))
        .collect();
    assert_eq!(admitted, [true, true, true, false, true]);
}

#[test]
fn progress_tells_working_waiting_and_idle_apart() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let progress = Progress::new();
    let mut watch = Watch::new(progress.clone(), start);
    assert!(!watch.has_begun());
    assert_eq!(watch.idle(at(3)), Duration::from_secs(3));
    progress.beat();
    assert_eq!(watch.idle(at(4)), Duration::ZERO);
    let outer = progress.waiting("log");
    let inner = progress.waiting("destination");
    assert_eq!((watch.idle(at(9)), progress.waits_for()), (Duration::ZERO, Some("destination")));
    drop(inner);
    assert_eq!(watch.idle(at(19)), Duration::ZERO, "the outer zone still protects");
    drop(outer);
    assert_eq!((watch.idle(at(20)), progress.waits_for()), (Duration::ZERO, None));
    assert_eq!(watch.idle(at(25)), Duration::from_secs(5));
    progress.resting("entries");
    assert_eq!((watch.idle(at(26)), progress.waits_for()), (Duration::ZERO, Some("entries")));
    assert_eq!(watch.idle(at(30)), Duration::from_secs(4), "a rest must be said again");
}

#[test]
fn a_kill_switch_throws_those_below_and_keeps_the_first_fault() {
    let root = KillSwitch::new();
    let (left, right) = (root.child(), root.child());
    let leaf = left.child();
    left.kill_with_fault(Fault::internal("first"));
    left.kill_with_fault(Fault::internal("second"));
    assert!(left.is_thrown() && leaf.is_thrown());
    assert!(!root.is_thrown() && !right.is_thrown());
    assert_eq!(leaf.fault(), Some(Fault::internal("first")));
    root.kill_with_fault(Fault::internal("third"));
    assert_eq!(left.fault(), Some(Fault::internal("first")));
    assert_eq!(right.fault(), Some(Fault::internal("third")));
    let born_late = root.child();
    assert!(born_late.is_thrown());
    assert_eq!(born_late.fault(), Some(Fault::internal("third")));

    let quiet = KillSwitch::new();
    quiet.kill();
    quiet.kill_with_fault(Fault::internal("too late to be the reason"));
    assert_eq!(quiet.fault(), None);
}

#[tokio::test]
async fn waiting_for_a_kill_switch_ends_with_its_fault() {
    let switch = KillSwitch::new();
    let below = switch.child();
    let waiting = tokio::spawn(async move { below.thrown().await });
    switch.kill_with_fault(Fault::internal("why"));
    assert_eq!(waiting.await.unwrap(), Some(Fault::internal("why")));
}

#[test]
fn a_failure_becomes_a_fault_with_its_whole_chain_once() {
    let io = std::io::Error::other("disk gone");
    let failure = Failure::new(FailureKind::Unreachable, "cannot write rows").because(io);
    let fault = Fault::from(failure);
    assert_eq!(fault.what, "cannot write rows: disk gone");
    assert_eq!(fault.kind, Some(FailureKind::Unreachable));
    assert!(fault.advice.contains("reached"), "{}", fault.advice);
}

#[test]
fn what_nobody_classified_is_treated_like_a_fault_of_our_own() {
    assert_eq!(policy::policy(None), policy::policy(Some(FailureKind::Internal)));
}
