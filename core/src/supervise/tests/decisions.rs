//! The node alone, step by step, in made-up time.

use std::time::Duration;

use tokio::time::Instant;

use super::super::exit::{Exit, Fault};
use super::super::node::{Action, Node, NodeEnd, SlotState};
use super::super::restarts::Timing;
use super::super::*;
use super::world::branch;

fn idle(name: &str) -> Spec {
    Spec::Task(Child::new(name, factory(|_| std::future::pending())))
}

fn started(strategy: Strategy) -> (Node, Instant) {
    let now = Instant::now();
    let children = vec![idle("a"), idle("b"), idle("c")];
    let mut node =
        Node::new(String::new(), branch("n", strategy, children), None, Timing::default(), 1, now);
    node.start(now);
    assert_eq!(node.take_actions(), [Action::Spawn(0), Action::Spawn(1), Action::Spawn(2)]);
    (node, now)
}

fn failed(what: &str) -> Exit {
    Exit::Failed(Fault::internal(what))
}

#[test]
fn a_group_comes_back_only_after_all_of_it_is_gone() {
    let (mut node, now) = started(Strategy::OneForAll);
    node.exited(1, failed("b"), now);
    assert_eq!(node.take_actions(), [Action::Kill(0), Action::Kill(2)]);
    node.exited(0, Exit::Killed, now);
    assert!(matches!(node.slot(0).unwrap().state, SlotState::Down), "c is still there");
    node.exited(2, Exit::Killed, now);
    let due = node.next_wake().unwrap();
    assert!(due >= now + Duration::from_millis(100));
    node.tick(due - Duration::from_millis(1));
    assert_eq!(node.take_actions(), []);
    node.tick(due);
    assert_eq!(node.take_actions(), [Action::Spawn(0), Action::Spawn(1), Action::Spawn(2)]);
}

#[test]
fn a_group_is_judged_by_the_first_cause_not_by_its_effects() {
    let (mut node, now) = started(Strategy::OneForAll);
    node.exited(0, Exit::DownstreamGone(Fault::downstream_gone("b is gone")), now);
    let schema = Fault::new(Some(garam_stage::FailureKind::Schema), "the table lacks a column");
    node.exited(1, Exit::Failed(schema.clone()), now);
    node.exited(2, failed("too late to count"), now);
    assert_eq!(
        node.take_actions(),
        [Action::Kill(1), Action::Kill(2), Action::End(NodeEnd::GaveUp(schema))]
    );
}

#[test]
fn an_earlier_failure_widens_a_group_that_is_already_down() {
    let (mut node, now) = started(Strategy::RestForOne);
    node.exited(2, failed("c"), now);
    assert!(matches!(node.slot(2).unwrap().state, SlotState::BackingOff { .. }));
    node.exited(0, failed("a"), now);
    assert_eq!(node.take_actions(), [Action::Kill(1)]);
    assert_eq!(node.slot(2).unwrap().state, SlotState::Down, "c must wait for b to be gone");
    node.exited(1, Exit::Killed, now);
    node.tick(node.next_wake().unwrap());
    assert_eq!(node.take_actions(), [Action::Spawn(0), Action::Spawn(1), Action::Spawn(2)]);
}

#[test]
fn an_exit_that_comes_twice_or_too_late_changes_nothing() {
    let (mut node, now) = started(Strategy::OneForOne);
    node.exited(1, failed("b"), now);
    let due = node.next_wake();
    node.exited(1, failed("b again"), now);
    node.exited(77, failed("nobody"), now);
    assert_eq!(node.next_wake(), due);
    assert_eq!(node.take_actions(), []);
}

#[test]
fn a_group_member_that_was_parked_by_hand_stays_parked_over_a_restart() {
    let (mut node, now) = started(Strategy::OneForAll);
    node.park("b", now).unwrap();
    node.exited(1, Exit::Finished, now);
    node.exited(0, failed("a"), now);
    node.exited(2, Exit::Killed, now);
    node.take_actions();
    node.tick(node.next_wake().unwrap());
    assert_eq!(node.take_actions(), [Action::Spawn(0), Action::Spawn(2)]);
    assert_eq!(node.slot(1).unwrap().state, SlotState::Parked);
}

#[test]
fn removing_a_member_while_its_group_restarts_restarts_the_others() {
    let (mut node, now) = started(Strategy::OneForAll);
    node.exited(2, failed("c"), now);
    node.remove("c", now).unwrap();
    node.exited(0, Exit::Killed, now);
    node.exited(1, Exit::Killed, now);
    node.take_actions();
    node.tick(node.next_wake().unwrap());
    assert_eq!(node.take_actions(), [Action::Spawn(0), Action::Spawn(1)]);
}

#[test]
fn who_comes_while_its_group_goes_down_comes_up_with_it() {
    let (mut node, now) = started(Strategy::OneForAll);
    node.park("b", now).unwrap();
    node.exited(1, Exit::Finished, now);
    node.exited(0, failed("a"), now);
    node.add(idle("d"), now).unwrap();
    node.resume("b", now).unwrap();
    node.take_actions();
    node.exited(2, Exit::Killed, now);
    node.tick(node.next_wake().unwrap());
    let spawned = [Action::Spawn(0), Action::Spawn(1), Action::Spawn(2), Action::Spawn(3)];
    assert_eq!(node.take_actions(), spawned);
}

#[test]
fn a_temporary_member_goes_down_with_its_group_and_stays_away() {
    let now = Instant::now();
    let session = Child {
        restart: Restart::Temporary,
        ..Child::new("s", factory(|_| std::future::pending()))
    };
    let children = vec![idle("a"), Spec::Task(session)];
    let branch = branch("n", Strategy::RestForOne, children);
    let mut node = Node::new(String::new(), branch, None, Timing::default(), 1, now);
    node.start(now);
    node.exited(0, failed("a"), now);
    node.exited(1, Exit::Killed, now);
    node.take_actions();
    node.tick(node.next_wake().unwrap());
    assert_eq!(node.take_actions(), [Action::Spawn(0)]);
    assert!(node.slot_named("s").is_none());
}

#[test]
fn what_is_refused_by_somebody_else_is_tried_again_at_growing_intervals_until_it_is_parked_by_hand()
{
    let (mut node, mut now) = started(Strategy::OneForOne);
    let refused = || {
        let fault = Fault::new(Some(garam_stage::FailureKind::Refused), "no right to write");
        Exit::Failed(fault.probed())
    };
    let mut pauses = Vec::new();
    for _ in 0..11 {
        node.exited(1, refused(), now);
        assert_eq!(node.slot(1).unwrap().state, SlotState::Parked);
        let due = node.next_wake().unwrap();
        pauses.push((due - now).as_secs());
        node.tick(due - Duration::from_millis(1));
        assert_eq!(node.take_actions(), []);
        node.tick(due);
        assert_eq!(node.take_actions(), [Action::Spawn(1)]);
        now = due;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    // One that has worked for a while begins anew.
    now += Timing::default().stable;
    node.exited(1, refused(), now);
    assert_eq!(node.next_wake(), Some(now + Duration::from_secs(1)));
    node.park("b", now).unwrap();
    assert_eq!(node.next_wake(), None);
    node.resume("b", now).unwrap();
    assert_eq!(node.take_actions(), [Action::Spawn(1)]);
}

#[test]
fn what_only_a_person_can_mend_waits_for_one() {
    let (mut node, now) = started(Strategy::OneForOne);
    let corrupt = Fault::new(Some(garam_stage::FailureKind::Corrupt), "bytes were changed");
    node.exited(1, Exit::Failed(corrupt), now);
    assert_eq!(node.slot(1).unwrap().state, SlotState::Parked);
    assert_eq!(node.next_wake(), None);
}

#[test]
fn a_tree_that_ends_tries_nothing_again() {
    let (mut node, now) = started(Strategy::OneForOne);
    let refused = Fault::new(Some(garam_stage::FailureKind::Refused), "no").probed();
    node.exited(1, Exit::Failed(refused), now);
    node.stop(Stop::Immediate, now);
    node.exited(0, Exit::Killed, now);
    node.exited(2, Exit::Killed, now);
    node.take_actions();
    node.tick(now + Duration::from_secs(3_600));
    assert_eq!(node.take_actions(), []);
}
