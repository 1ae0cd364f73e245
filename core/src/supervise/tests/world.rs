//! A small world to test in: a tree of scripted children, on one runtime whose time is paused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::System;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};

use super::super::handle::{conclude, plant};
use super::super::restarts::Timing;
use super::super::*;

/// What a scripted child is told to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Panic,
    Fail,
    FailAs(garam_stage::FailureKind),
    LoseDownstream,
    Finish,
    /// No more signs of life.
    Stall,
    /// No more signs of life, inside a protected zone.
    WaitFor(&'static str),
    KillWithFault,
}

/// Orders to children by path, and what they did.
#[derive(Clone, Default)]
pub(super) struct Stage {
    lines: Arc<Mutex<HashMap<String, mpsc::Sender<Order>>>>,
    /// Children that fail at once at every start.
    broken: Arc<Mutex<HashMap<String, Order>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    /// A child that works, obeys orders, and stops when asked.
    pub(super) fn child(&self, name: &str) -> Child {
        self.child_that_stops_after(name, Duration::ZERO)
    }

    pub(super) fn child_that_stops_after(&self, name: &str, delay: Duration) -> Child {
        let stage = self.clone();
        let make = move |context: Context| perform(stage.clone(), context, delay);
        Child {
            progress_deadline: Some(Duration::from_secs(5)),
            shutdown: Duration::from_secs(3),
            ..Child::new(name, factory(make))
        }
    }

    pub(super) fn task(&self, name: &str) -> Spec {
        Spec::Task(self.child(name))
    }

    pub(super) async fn order(&self, path: &str, order: Order) {
        let line = self.lines.lock().unwrap().get(path).cloned();
        line.unwrap_or_else(|| panic!("{path} never ran")).send(order).await.unwrap();
    }

    /// Waits until the child's task has been dropped.
    pub(super) async fn is_gone(&self, path: &str) {
        let line = self.lines.lock().unwrap().get(path).cloned().unwrap();
        tokio::time::timeout(Duration::from_secs(2), line.closed()).await.unwrap();
    }

    pub(super) fn always(&self, path: &str, order: Order) {
        self.broken.lock().unwrap().insert(path.to_owned(), order);
    }

    pub(super) fn repair(&self, path: &str) {
        self.broken.lock().unwrap().remove(path);
    }

    /// Ends of children that stopped when asked, in order.
    pub(super) fn stopped(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

async fn perform(stage: Stage, context: Context, delay: Duration) -> Result<(), Fault> {
    let (line, mut orders) = mpsc::channel(4);
    stage.lines.lock().unwrap().insert(context.path.clone(), line);
    let mut first = stage.broken.lock().unwrap().get(&context.path).copied();
    let mut pulse = tokio::time::interval(Duration::from_secs(1));
    loop {
        let order = match first.take() {
            Some(order) => order,
            None => tokio::select! {
                _ = pulse.tick() => {
                    context.progress.beat();
                    continue;
                }
                () = context.stopping() => {
                    tokio::time::sleep(delay).await;
                    stage.log.lock().unwrap().push(context.path.clone());
                    return Ok(());
                }
                Some(order) = orders.recv() => order,
            },
        };
        match order {
            Order::Panic => panic!("scripted"),
            Order::Fail => return Err(Fault::internal("scripted failure")),
            Order::FailAs(kind) => return Err(Fault::new(Some(kind), "scripted failure")),
            Order::LoseDownstream => return Err(Fault::downstream_gone("nobody takes it")),
            Order::Finish => return Ok(()),
            Order::Stall => std::future::pending().await,
            Order::WaitFor(why) => {
                let _zone = context.progress.waiting(why);
                tokio::select! {
                    () = context.stopping() => return Ok(()),
                    _ = orders.recv() => {}
                }
            }
            Order::KillWithFault => {
                context.kill.kill_with_fault(Fault::internal("first"));
                context.kill.kill_with_fault(Fault::internal("second"));
                std::future::pending().await
            }
        }
    }
}

pub(super) fn branch(name: &str, strategy: Strategy, children: Vec<Spec>) -> Branch {
    Branch {
        name: name.to_owned(),
        strategy,
        intensity: Intensity { max: 3, within: Duration::from_secs(600) },
        on_exceeded: OnExceeded::Park,
        children,
        stops_last: false,
    }
}

/// Runs a test against a tree, in paused time.
pub(super) fn in_tree<F, T>(root: Branch, test: F)
where
    F: FnOnce(SupervisionHandle) -> T,
    T: Future<Output = ()>,
{
    let paused = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let system = System::with_tokio_rt(move || paused);
    system.block_on(async move {
        let (root, report) = plant(root, Handle::current(), Timing::default());
        let (exit, exited) = watch::channel(None);
        tokio::task::spawn_local(async move {
            exit.send_replace(Some(conclude(report).await));
        });
        test(SupervisionHandle { root, exit: exited }).await;
    });
}

/// Waits until the tree looks as asked. Paused time passes between the looks; the bound is in that time.
pub(super) async fn until(
    tree: &SupervisionHandle,
    what: &str,
    holds: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    let mut seen = None;
    for _ in 0..20_000 {
        let snapshot = tree.snapshot().await.unwrap();
        if holds(&snapshot) {
            return snapshot;
        }
        seen = Some(snapshot);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came: {what}\n{}", seen.map(|seen| render(&seen)).unwrap_or_default());
}

/// Until every task and branch runs.
pub(super) async fn all_run(tree: &SupervisionHandle) -> Snapshot {
    until(tree, "all run", |tree| {
        tree.walk().iter().all(|node| matches!(node.state, State::Running | State::Waiting { .. }))
    })
    .await
}

/// Generation by path, of tasks and branches.
pub(super) fn generations(snapshot: &Snapshot) -> Vec<(String, u64)> {
    let nodes = snapshot.walk().into_iter().skip(1);
    nodes.map(|node| (node.path.clone(), node.generation)).collect()
}

pub(super) fn node<'a>(snapshot: &'a Snapshot, path: &str) -> &'a Snapshot {
    snapshot.at(path).unwrap_or_else(|| panic!("no {path}"))
}
