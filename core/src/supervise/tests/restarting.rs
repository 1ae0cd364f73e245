//! Which children come back after which end, and which never notice.

use std::time::Duration;

use garam_stage::FailureKind;

use super::super::*;
use super::world::{Order, Stage, all_run, branch, generations, in_tree, node, until};

/// A root with a bystander and three children `a`, `b`, `c` under `strategy`.
fn small_tree(stage: &Stage, strategy: Strategy) -> Branch {
    let children = vec![stage.task("a"), stage.task("b"), stage.task("c")];
    let work = Spec::Branch(branch("work", strategy, children));
    branch("root", Strategy::OneForOne, vec![stage.task("bystander"), work])
}

/// Gives `order` to the child `victim` and says which of a, b, c were restarted, and how the end was named.
fn restarted_by(strategy: Strategy, victim: &str, order: Order) -> (String, String) {
    let stage = Stage::default();
    let mut result = (String::new(), String::new());
    in_tree(small_tree(&stage, strategy), async |tree| {
        all_run(&tree).await;
        let path = format!("work/{victim}");
        stage.order(&path, order).await;
        until(&tree, "victim fails", |tree| node(tree, &path).last_fault.is_some()).await;
        let after = all_run(&tree).await;
        assert_eq!(node(&after, "bystander").generation, 1, "a bystander was restarted");
        assert_eq!(node(&after, "work").generation, 1, "the branch itself was restarted");
        let work = node(&after, "work").children.iter();
        for child in work.clone().filter(|child| child.generation > 1) {
            assert_eq!((child.generation, child.restarts), (2, 1), "{} restarted once", child.name);
        }
        let again = work.filter(|child| child.generation > 1).map(|child| child.name.as_str());
        let fault = node(&after, &path).last_fault.clone().unwrap();
        result = (again.collect(), fault.exit);
    });
    result
}

#[test]
fn every_end_in_every_position_restarts_exactly_its_unit() {
    let ends = [
        (Order::Panic, "panicked"),
        (Order::Fail, "failed"),
        (Order::Stall, "stuck"),
        (Order::Finish, "finished"),
        (Order::LoseDownstream, "downstream_gone"),
        (Order::KillWithFault, "failed"),
    ];
    for (order, named) in ends {
        for (victim, rest) in [("a", "abc"), ("b", "bc"), ("c", "c")] {
            for (strategy, unit) in [
                (Strategy::OneForOne, victim),
                (Strategy::RestForOne, rest),
                (Strategy::OneForAll, "abc"),
            ] {
                let (restarted, exit) = restarted_by(strategy, victim, order);
                let case = format!("{order:?} of {victim} under {strategy:?}");
                assert_eq!(restarted, unit, "{case}");
                assert_eq!(exit, named, "{case}");
            }
        }
    }
}

#[test]
fn a_child_that_waits_is_not_stuck() {
    let stage = Stage::default();
    in_tree(small_tree(&stage, Strategy::OneForAll), async |tree| {
        all_run(&tree).await;
        stage.order("work/b", Order::WaitFor("destination")).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let seen = tree.snapshot().await.unwrap();
        assert_eq!(node(&seen, "work/b").state, State::Waiting { on: "destination".to_owned() });
        assert_eq!(node(&seen, "work/b").since_progress_ms, Some(0));
        assert!(generations(&seen).iter().all(|(_, generation)| *generation == 1));

        // The zone ends with its guard: a stall after it is seen again.
        stage.order("work/b", Order::Finish).await;
        stage.order("work/b", Order::Stall).await;
        until(&tree, "stuck", |tree| {
            node(tree, "work/b").last_fault.as_ref().is_some_and(|fault| fault.exit == "stuck")
        })
        .await;
    });
}

#[test]
fn the_first_fault_thrown_into_a_kill_switch_is_the_one_reported() {
    let stage = Stage::default();
    in_tree(small_tree(&stage, Strategy::OneForOne), async |tree| {
        all_run(&tree).await;
        stage.order("work/a", Order::KillWithFault).await;
        let seen = until(&tree, "fault", |tree| node(tree, "work/a").last_fault.is_some()).await;
        assert_eq!(node(&seen, "work/a").last_fault.as_ref().unwrap().what, "first");
    });
}

#[test]
fn a_child_that_keeps_panicking_is_parked_alone_and_runs_again_when_resumed() {
    let stage = Stage::default();
    stage.always("work/b", Order::Panic);
    in_tree(small_tree(&stage, Strategy::OneForOne), async |tree| {
        let parked =
            until(&tree, "parked", |tree| node(tree, "work/b").state == State::Parked).await;
        let b = node(&parked, "work/b");
        assert_eq!((b.generation, b.restarts), (4, 3));
        assert_eq!(b.last_fault.as_ref().unwrap().what, "panicked: scripted");
        assert_eq!(node(&parked, "work/a").generation, 1);
        assert_eq!(node(&parked, "work/c").generation, 1);

        assert_eq!(
            tree.resume("work/a").await,
            Err(ControlError::NotParked { name: "a".to_owned() })
        );
        stage.repair("work/b");
        tree.resume("work/b").await.unwrap();
        let after = all_run(&tree).await;
        assert_eq!(node(&after, "work/b").generation, 5);
    });
}

#[test]
fn a_group_that_keeps_failing_is_parked_as_a_whole_and_its_siblings_run_on() {
    let stage = Stage::default();
    stage.always("work/b", Order::Fail);
    in_tree(small_tree(&stage, Strategy::OneForAll), async |tree| {
        let parked = until(&tree, "parked", |tree| node(tree, "work").state == State::Parked).await;
        assert_eq!(node(&parked, "bystander").generation, 1);
        assert_eq!(node(&parked, "work").last_fault.as_ref().unwrap().exit, "gave_up");
        // What it looked like is still there to be read.
        assert_eq!(node(&parked, "work/b").last_fault.as_ref().unwrap().what, "scripted failure");
        assert!(node(&parked, "work").children.iter().all(|child| child.state == State::Stopped));

        stage.repair("work/b");
        tree.resume("work").await.unwrap();
        let after = all_run(&tree).await;
        // Counters go on from where they were.
        assert_eq!(node(&after, "work/b").generation, 5);
        assert_eq!(node(&after, "work").generation, 2);
    });
}

#[test]
fn a_branch_that_escalates_is_restarted_by_its_parent_until_the_root_gives_up() {
    let stage = Stage::default();
    stage.always("work/b", Order::Panic);
    let mut root = small_tree(&stage, Strategy::RestForOne);
    root.on_exceeded = OnExceeded::Escalate;
    if let Spec::Branch(work) = &mut root.children[1] {
        work.on_exceeded = OnExceeded::Escalate;
    }
    in_tree(root, async |tree| {
        let again = until(&tree, "again", |tree| node(tree, "work").generation == 2).await;
        assert_eq!(node(&again, "bystander").generation, 1);
        let RootExit::Failed(fault) = tree.wait_exit().await else { panic!("not failed") };
        assert_eq!(fault.what, "panicked: scripted");
        assert_eq!(stage.stopped().last().unwrap(), "bystander", "siblings stop gracefully");
    });
}

#[test]
fn what_only_a_person_can_fix_is_parked_at_once() {
    let stage = Stage::default();
    in_tree(small_tree(&stage, Strategy::OneForAll), async |tree| {
        all_run(&tree).await;
        stage.order("work/c", Order::FailAs(FailureKind::Schema)).await;
        let parked = until(&tree, "parked", |tree| node(tree, "work").state == State::Parked).await;
        assert_eq!(node(&parked, "work/c").restarts, 0);
        assert_eq!(node(&parked, "work").last_fault.as_ref().unwrap().kind, "schema");
    });
}

#[test]
fn who_lost_its_work_to_another_stops_for_good() {
    let stage = Stage::default();
    in_tree(small_tree(&stage, Strategy::OneForOne), async |tree| {
        all_run(&tree).await;
        stage.order("work/c", Order::FailAs(FailureKind::Fenced)).await;
        until(&tree, "stopped", |tree| node(tree, "work/c").state == State::Stopped).await;
    });
}

#[test]
fn a_destination_down_for_hours_is_tried_until_it_is_found_again() {
    let stage = Stage::default();
    stage.always("work/b", Order::FailAs(FailureKind::Unreachable));
    in_tree(small_tree(&stage, Strategy::OneForAll), async |tree| {
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        let seen = tree.snapshot().await.unwrap();
        assert_ne!(node(&seen, "work").state, State::Parked);
        assert!(node(&seen, "work/b").restarts > 100, "it was tried all the time");
        stage.repair("work/b");
        all_run(&tree).await;
    });
}

#[test]
fn a_transient_child_may_finish_and_a_temporary_one_disappears() {
    let stage = Stage::default();
    let transient = Spec::Task(Child { restart: Restart::Transient, ..stage.child("once") });
    let temporary = Spec::Task(Child { restart: Restart::Temporary, ..stage.child("session") });
    let root = branch("root", Strategy::OneForAll, vec![stage.task("a"), transient, temporary]);
    in_tree(root, async |tree| {
        all_run(&tree).await;
        stage.order("once", Order::Finish).await;
        stage.order("session", Order::Panic).await;
        let seen = until(&tree, "both ended", |tree| {
            node(tree, "once").state == State::Stopped && tree.at("session").is_none()
        })
        .await;
        assert_eq!(node(&seen, "a").generation, 1);
    });
}

#[test]
fn children_are_added_and_removed_while_the_tree_runs() {
    let stage = Stage::default();
    in_tree(small_tree(&stage, Strategy::OneForOne), async |tree| {
        all_run(&tree).await;
        tree.add("work", stage.task("d")).await.unwrap();
        let taken = tree.add("work", stage.task("d")).await;
        assert_eq!(taken, Err(ControlError::NameTaken { name: "d".to_owned() }));
        all_run(&tree).await;
        stage.order("work/d", Order::Panic).await;
        until(&tree, "d again", |tree| node(tree, "work/d").generation == 2).await;

        tree.remove("work/d").await.unwrap();
        until(&tree, "d gone", |tree| tree.at("work/d").is_none()).await;
        assert_eq!(stage.stopped(), ["work/d"]);
        let none = ControlError::NoSuchChild { path: "work/d".to_owned() };
        assert_eq!(tree.remove("work/d").await, Err(none.clone()));
        assert_eq!(tree.park("work/d").await, Err(none));
    });
}

#[test]
fn an_added_child_survives_the_restart_of_its_branch() {
    let stage = Stage::default();
    let mut root = small_tree(&stage, Strategy::OneForOne);
    if let Spec::Branch(work) = &mut root.children[1] {
        work.on_exceeded = OnExceeded::Escalate;
        work.intensity.max = 0;
    }
    in_tree(root, async |tree| {
        all_run(&tree).await;
        tree.add("work", stage.task("d")).await.unwrap();
        all_run(&tree).await;
        stage.order("work/a", Order::Panic).await;
        until(&tree, "branch again", |tree| node(tree, "work").generation == 2).await;
        let after = all_run(&tree).await;
        assert_eq!(node(&after, "work/d").generation, 2);
    });
}

#[test]
fn a_child_is_parked_and_resumed_by_hand() {
    let stage = Stage::default();
    in_tree(small_tree(&stage, Strategy::OneForAll), async |tree| {
        all_run(&tree).await;
        tree.park("work").await.unwrap();
        until(&tree, "parked", |tree| node(tree, "work").state == State::Parked).await;
        assert_eq!(stage.stopped(), ["work/a", "work/b", "work/c"]);
        let refused = tree.add("work", stage.task("d")).await;
        assert_eq!(refused, Err(ControlError::NotRunning { path: "work".to_owned() }));
        tree.resume("work").await.unwrap();
        all_run(&tree).await;
    });
}
