//! The order of a stop, its deadlines, and ends that nobody wanted.

use std::time::Duration;

use actix::{Context as ActorContext, Handler, Message};

use super::super::restarts::Timing;
use super::super::supervisor::Supervisor;
use super::super::*;
use super::world::{Order, Stage, all_run, branch, in_tree, node};

#[test]
fn a_graceful_stop_follows_the_data_and_ends_with_what_others_stand_on() {
    let stage = Stage::default();
    let task = |name: &str| (name.to_owned(), stage.child(name).factory);
    let rooms = Rooms {
        admin: vec![task("http")],
        meta: task("meta").1,
        log: task("log").1,
        gateway: task("gateway").1,
        dimensions: Vec::new(),
        pipelines: vec![PipelineRoom {
            name: "orders".to_owned(),
            parts: vec![task("0"), task("1")],
        }],
        patience: Patience::default(),
    };
    in_tree(tree(rooms), async |tree| {
        all_run(&tree).await;
        assert_eq!(tree.stop(Stop::Graceful).await, RootExit::Stopped { late: Vec::new() });
        let pipeline = "data/pipelines/orders";
        let order = [
            "data/gateway".to_owned(),
            format!("{pipeline}/0"),
            format!("{pipeline}/1"),
            "data/meta".to_owned(),
            "data/log".to_owned(),
            "admin/http".to_owned(),
        ];
        assert_eq!(stage.stopped(), order);
    });
}

#[test]
fn who_misses_the_deadline_is_named_and_cut_off() {
    let stage = Stage::default();
    let late = Spec::Task(stage.child_that_stops_after("late", Duration::from_secs(60)));
    let work = branch("work", Strategy::RestForOne, vec![stage.task("a"), late, stage.task("b")]);
    in_tree(branch("root", Strategy::OneForOne, vec![Spec::Branch(work)]), async |tree| {
        all_run(&tree).await;
        let started = tokio::time::Instant::now();
        let exit = tree.stop(Stop::Graceful).await;
        assert_eq!(exit, RootExit::Stopped { late: vec!["work/late".to_owned()] });
        assert_eq!(stage.stopped(), ["work/a", "work/b"]);
        // Paused time: exact, whatever the machine does.
        assert!(started.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn an_immediate_stop_asks_nobody_and_cuts_a_graceful_one_short() {
    let stage = Stage::default();
    let slow = Spec::Task(Child {
        shutdown: Duration::from_secs(3600),
        ..stage.child_that_stops_after("slow", Duration::from_secs(600))
    });
    in_tree(branch("root", Strategy::OneForAll, vec![slow, stage.task("b")]), async |tree| {
        all_run(&tree).await;
        let graceful = tokio::task::spawn_local({
            let tree = tree.clone();
            async move { tree.stop(Stop::Graceful).await }
        });
        super::world::until(&tree, "stopping", |tree| node(tree, "slow").state == State::Stopping)
            .await;
        assert_eq!(tree.stop(Stop::Immediate).await, RootExit::Stopped { late: Vec::new() });
        assert_eq!(graceful.await.unwrap(), RootExit::Stopped { late: Vec::new() });
        assert_eq!(stage.stopped(), Vec::<String>::new());
    });
}

#[test]
fn a_stop_during_a_pause_before_a_restart_starts_nobody() {
    let stage = Stage::default();
    in_tree(branch("root", Strategy::OneForOne, vec![stage.task("a")]), async |tree| {
        all_run(&tree).await;
        stage.order("a", Order::Fail).await;
        super::world::until(&tree, "pause", |tree| {
            matches!(node(tree, "a").state, State::BackingOff { .. })
        })
        .await;
        assert_eq!(tree.stop(Stop::Graceful).await, RootExit::Stopped { late: Vec::new() });
        assert_eq!(tree.add("", stage.task("b")).await, Err(ControlError::Stopping));
    });
}

#[test]
fn a_stuck_child_that_cannot_be_replaced_ends_the_process() {
    let stage = Stage::default();
    let log = Spec::Task(Child { when_stuck: WhenStuck::EndProcess, ..stage.child("log") });
    let data = Spec::Branch(branch("data", Strategy::RestForOne, vec![log]));
    in_tree(branch("root", Strategy::OneForOne, vec![data]), async |tree| {
        all_run(&tree).await;
        stage.order("data/log", Order::Stall).await;
        let RootExit::Broken(fault) = tree.wait_exit().await else { panic!("not broken") };
        assert!(fault.what.contains("data/log made no progress"), "{fault}");
    });
}

/// Makes the supervisor of the named branch panic; without a name, the one that takes it.
struct Break(Option<&'static str>);

impl Message for Break {
    type Result = ();
}

impl Handler<Break> for Supervisor {
    type Result = ();

    fn handle(&mut self, Break(below): Break, _: &mut ActorContext<Self>) {
        match below {
            Some(name) => self.below(name).unwrap().try_send(Break(None)).unwrap(),
            None => panic!("a supervisor's own fault"),
        }
    }
}

#[test]
fn a_panic_inside_a_supervisor_ends_the_tree_and_everything_in_it() {
    for (broken, what) in
        [(None, "the root supervisor broke"), (Some("work"), "the supervisor of work broke")]
    {
        let stage = Stage::default();
        let work = Spec::Branch(branch("work", Strategy::OneForOne, vec![stage.task("a")]));
        let root = branch("root", Strategy::OneForOne, vec![work, stage.task("b")]);
        in_tree(root, async |tree| {
            all_run(&tree).await;
            let sent = tree.root.send(Break(broken)).await;
            assert_eq!(sent.is_ok(), broken.is_some());
            let RootExit::Broken(fault) = tree.wait_exit().await else { panic!("not broken") };
            assert_eq!(fault.what, what);
            assert_eq!(tree.snapshot().await, Err(ControlError::Stopping));
            stage.is_gone("work/a").await;
            stage.is_gone("b").await;
        });
    }
}

/// The real arrangement: control thread here, data runtime there, caller on neither.
#[test]
fn the_tree_runs_on_two_runtimes_and_is_reached_from_a_third() {
    let data =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let caller = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stage = Stage::default();
    let root = branch("root", Strategy::OneForOne, vec![stage.task("a")]);
    let tree = Supervision::start(root, data.handle().clone()).unwrap();
    caller.block_on(async {
        all_run(&tree).await;
        stage.order("a", Order::Panic).await;
        super::world::until(&tree, "again", |tree| node(tree, "a").generation == 2).await;
        all_run(&tree).await;
        assert_eq!(tree.stop(Stop::Graceful).await, RootExit::Stopped { late: Vec::new() });
    });
}

/// A task that holds its thread can be neither ended nor replaced.
#[test]
fn a_task_that_cannot_be_cut_off_ends_the_process() {
    let data =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let hold = factory(move |_| {
        let held = std::sync::Arc::clone(&held);
        async move {
            let _released = held.lock().unwrap().recv();
            Ok(())
        }
    });
    let holder =
        Child { progress_deadline: Some(Duration::from_millis(100)), ..Child::new("holder", hold) };
    let root = branch("root", Strategy::OneForOne, vec![Spec::Task(holder)]);
    let soon = Duration::from_millis(20);
    let timing = Timing { heartbeat: soon, abort_grace: soon, ..Timing::default() };
    let tree = Supervision::start_with(root, data.handle().clone(), timing).unwrap();
    let exit = actix::System::new().block_on(tree.wait_exit());
    drop(release);
    let RootExit::Broken(fault) = exit else { panic!("not broken") };
    assert_eq!(fault.what, "holder was cut off but did not end: it holds its thread");
}
