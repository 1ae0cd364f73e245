//! Bad days one by one: unknown commits, zombies, refusals, poison, a full quarantine, a failing log.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use garam_flow::{Budget, FlowConfig, FlowHooks, FlowLimits, Progress, Stopped, Waiting};
use garam_proto::LogOffset;
use garam_stage::{Failure, FailureKind, QuarantineReason, QuarantinedRecord};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::crash::lines;
use crate::oracle;
use crate::world::{Commit, End, Fault, Item, World, config, offset};

fn good(blocks: usize) -> Vec<Item> {
    (0..blocks).map(|_| lines("good good bad good")).collect()
}

fn reasons(world: &World) -> Vec<QuarantineReason> {
    let quarantined = world.lock().log.quarantined();
    quarantined.into_iter().map(|(_, name, _)| name.reason).collect()
}

/// How a zombie must end, soon.
async fn fenced(zombie: JoinHandle<Result<Stopped, Failure>>) -> Failure {
    let ended = timeout(Duration::from_secs(600), zombie).await.expect("a zombie stops");
    let failure = ended.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced, "{failure}");
    failure
}

async fn fails(world: &Arc<World>, kind: FailureKind) -> String {
    let End::Failed(failure) = world.live().await else { panic!("must fail with {kind:?}") };
    assert_eq!(failure.kind, kind, "{failure}");
    failure.to_string()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_is_settled_by_taking_over_whether_it_landed_or_not() {
    for fault in [Fault::FailAfterCommit, Fault::FailBeforeCommit, Fault::Contention] {
        let world = World::new(&good(4));
        world.lock().destination.faults = [(2, fault)].into();
        let End::Stopped(stopped) = world.live().await else { panic!("settles itself") };
        assert_eq!(stopped.cursor.epoch, 2, "one take-over beside the start");
        oracle::check(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_delayed_past_the_reconnect_changes_nothing_twice() {
    for commit in [Commit::Lands, Commit::Defeated, Commit::Late] {
        let world = World::new(&good(4));
        world.lock().destination.faults = [(2, Fault::Delay)].into();
        world.lock().destination.commit = commit;
        let End::Stopped(_) = world.live().await else { panic!("settles itself") };
        let late = world.lock().destination.deliver_late();
        assert_eq!(late.len(), usize::from(commit == Commit::Late));
        for landed in late {
            assert_eq!(landed.unwrap_err().kind, FailureKind::Fenced);
        }
        oracle::check(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_never_settles_ends_the_flow_with_its_failure() {
    let world = World::new(&good(2));
    world.lock().destination.faults = (1..100).map(|n| (n, Fault::Contention)).collect();
    let text = fails(&world, FailureKind::Contention).await;
    assert_eq!(text, "database is locked");
    assert_eq!(world.lock().destination.writes, 1 + u64::from(config().limits.take_overs));
    world.lock().destination.faults.clear();
    world.live_on().await;
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn an_older_flow_on_the_same_cursor_stops_when_a_newer_one_took_over() {
    let world = World::new(&good(6));
    world.lock().destination.faults = [(2, Fault::Slow)].into();
    let older = world.be_born();
    let (_stop, stopping) = watch::channel(false);
    let zombie = tokio::spawn(world.flow(older, config(), FlowHooks::default()).run(stopping));
    world.until(|state| state.destination.slow).await;

    world.live_on().await;
    oracle::check(&world);
    world.lock().destination.released = true;
    world.changed.notify_waiters();
    fenced(zombie).await;
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_finds_its_cursor_moved_by_another_stops_instead_of_taking_it_back() {
    let world = World::new(&good(6));
    world.lock().destination.faults = [(2, Fault::SlowAndLost)].into();
    let older = world.be_born();
    let (_stop, stopping) = watch::channel(false);
    let zombie = tokio::spawn(world.flow(older, config(), FlowHooks::default()).run(stopping));
    world.until(|state| state.destination.slow).await;

    world.live_on().await;
    world.lock().destination.released = true;
    world.changed.notify_waiters();
    let failure = fenced(zombie).await;
    assert!(failure.to_string().contains("the cursor moved to 6"), "{failure}");
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn an_older_flow_cannot_bind_records_any_more() {
    // The zombie reads bad records only after its successor claimed the quarantine.
    let world = World::new(&[lines("good")]);
    let older = world.be_born();
    let (_stop, stopping) = watch::channel(false);
    let zombie = tokio::spawn(world.flow(older, config(), FlowHooks::default()).run(stopping));
    world.until(|state| state.done()).await;
    world.live_on().await;
    world.lock().log.push(lines("flip good"));
    world.changed.notify_waiters();
    let failure = fenced(zombie).await;
    assert!(failure.to_string().contains("quarantine of this pipeline has a newer owner"));
    assert_eq!(reasons(&world), []);
    // Life 4: even, so that `flip` is good.
    world.be_born();
    world.live_on().await;
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn rows_refused_in_two_rounds_are_put_aside_and_the_others_delivered() {
    let world = World::new(&[lines("good refuse good refuse-later refuse good")]);
    world.live_on().await;
    oracle::check(&world);
    assert_eq!(reasons(&world), [QuarantineReason::Refused; 3]);
    assert_eq!(world.lock().destination.refused_batches, 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_without_end_are_systemic() {
    let words = ["good"; 30].join(" ");
    let world = World::new(&[lines(&words)]);
    world.lock().destination.refuse_everything = true;
    let text = fails(&world, FailureKind::Schema).await;
    assert!(text.starts_with("8 rounds of refused rows from offset 0 on"), "{text}");
    assert_eq!(reasons(&world).len(), 8);
    assert_eq!(world.lock().destination.cursor.as_ref().unwrap().next, offset(0));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_makes_refining_panic_is_isolated_on_the_third_attempt() {
    let world = World::new(&[lines("good good panic bad good"), lines("good panic panic")]);
    world.live_on().await;
    oracle::check(&world);
    let state = world.lock();
    assert_eq!(state.memory.counted, 4, "two attempts for each range, counted before the retry");
    assert_eq!(state.memory.attempts, None);
    drop(state);
    let (poison, syntax) = (QuarantineReason::Poison, QuarantineReason::Syntax);
    assert_eq!(reasons(&world), [poison, syntax, poison, poison]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_written_is_isolated_inside_its_entry_by_rehearsing() {
    let world = World::new(&[lines("good good"), lines("good hurt good refuse"), lines("good")]);
    world.lock().destination.can_rehearse = true;
    world.live_on().await;
    oracle::check(&world);
    assert_eq!(reasons(&world), [QuarantineReason::Poison, QuarantineReason::Refused]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_cannot_rehearse_loses_one_entry_to_the_quarantine_not_the_batch() {
    let world = World::new(&[lines("good good"), lines("bystander hurt"), lines("good")]);
    world.live_on().await;
    oracle::check(&world);
    assert_eq!(reasons(&world), [QuarantineReason::Poison; 2]);
    assert_eq!(world.lock().destination.rows.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn attempts_survive_a_restart() {
    let world = World::new(&[lines("good panic")]);
    world.lock().memory.attempts = Some((LogOffset::ZERO, 2));
    world.live_on().await;
    oracle::check(&world);
    assert_eq!(world.lock().memory.counted, 0, "the third attempt isolates at once");
}

#[tokio::test(start_paused = true)]
async fn a_block_that_does_not_decode_is_put_aside_whole_with_its_bytes() {
    let world = World::new(&[lines("good"), Item::Broken(5), lines("good")]);
    world.live_on().await;
    oracle::check(&world);
    let quarantined = world.lock().log.quarantined();
    let [(_, name, bytes)] = quarantined.as_slice() else { panic!("one entry: {quarantined:?}") };
    assert_eq!((name.reason, name.records), (QuarantineReason::Undecodable, 5));
    assert_eq!(bytes, b"broken\n");
    assert!(name.detail.contains("checksum"), "{}", name.detail);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_takes_nothing_stops_the_flow_before_the_bad_record() {
    let world = World::new(&[lines("good good good good good"), lines("bad good")]);
    world.lock().log.quarantine_full = true;
    let text = fails(&world, FailureKind::Full).await;
    assert!(text.contains("put records into the quarantine"), "{text}");
    let next = world.lock().destination.cursor.as_ref().unwrap().next;
    assert_eq!(next, offset(1));
    world.lock().log.quarantine_full = false;
    world.live_on().await;
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn what_another_partition_put_aside_binds_nothing_here() {
    let world = World::new(&[lines("bad")]);
    world.live_on().await;
    let (_, name, bytes) = world.lock().log.quarantined().remove(0);
    // The same offset and index as the record to come, but of another input partition.
    let name = QuarantinedRecord { offset: 1, ..name };
    world.lock().log.push_foreign_quarantine(name, &bytes);
    world.lock().log.push(lines("good"));
    world.live_on().await;
    let state = world.lock();
    assert_eq!(state.destination.rows.len(), 1);
    assert_eq!(state.destination.cursor.as_ref().unwrap().counters.quarantined, 1);
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_destination_finds_stale_are_counted_as_dropped() {
    let world = World::new(&[lines("good stale bad stale")]);
    let cursor = world.live_on().await;
    oracle::check(&world);
    assert_eq!(cursor.counters.dropped.get("stale"), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn a_budget_smaller_than_any_block_slows_the_flow_and_stops_nobody() {
    let world = World::new(&good(9));
    let hooks = FlowHooks { budget: Budget::new(1), ..FlowHooks::default() };
    let End::Stopped(_) = world.live_with(config(), hooks).await else { panic!("it stops") };
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn what_lies_before_an_unreadable_entry_is_delivered_first() {
    let world = World::new(&good(5));
    world.lock().log.unreadable = Some(offset(3));
    fails(&world, FailureKind::Corrupt).await;
    let state = &mut *world.lock();
    let cursor = state.destination.cursor.clone().unwrap();
    assert_eq!(cursor.next, offset(3));
    oracle::check_partial(state, &cursor);
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_only_accepted_are_flushed_before_they_count() {
    let world = World::new(&good(3));
    world.lock().destination.accepts = true;
    world.lock().destination.faults = [(2, Fault::FailBeforeCommit)].into();
    world.live_on().await;
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn stopping_delivers_what_was_read_and_stores_the_cursor() {
    let world = World::new(&[lines("good bad"), Item::Gap(5), Item::Advance]);
    let life = world.be_born();
    let (stop, stopping) = watch::channel(false);
    let flow = tokio::spawn(world.flow(life, config(), FlowHooks::default()).run(stopping));
    world
        .until(|state| state.destination.cursor.as_ref().is_some_and(|c| c.next > offset(0)))
        .await;
    world.lock().log.push(Item::Gap(6));
    world.changed.notify_waiters();
    world.until(|state| state.log.read_to == offset(4)).await;
    stop.send_replace(true);
    let stopped = flow.await.unwrap().unwrap();
    assert_eq!(stopped.cursor.next, offset(4));
    assert_eq!(stopped.cursor.counters.gap_units, 11);
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn an_idle_flow_says_that_it_waits_and_a_hanging_write_does_not() {
    #[derive(Default)]
    struct Signs(Mutex<Vec<Option<Waiting>>>);
    impl Progress for Signs {
        fn beat(&self) {
            self.0.lock().unwrap().push(None);
        }
        fn waiting(&self, why: Waiting) {
            self.0.lock().unwrap().push(Some(why));
        }
    }
    let signs = Arc::new(Signs::default());
    let hooks =
        FlowHooks { progress: Arc::clone(&signs) as Arc<dyn Progress>, ..FlowHooks::default() };
    let stats = Arc::clone(&hooks.stats);
    let world = World::new(&good(1));
    world.lock().destination.faults = [(2, Fault::Slow)].into();
    let life = world.be_born();
    let (_stop, stopping) = watch::channel(false);
    let flow = tokio::spawn(world.flow(life, config(), hooks).run(stopping));
    world.until(|state| state.done()).await;
    tokio::time::sleep(3 * config().limits.idle_cursor).await;
    let waits = signs.0.lock().unwrap().iter().filter(|sign| sign.is_some()).count();
    assert!(waits >= 2, "says it at each idle tick");
    assert_eq!(stats.waiting(), Some(Waiting::Entries));
    assert_eq!((stats.end(), stats.batches()), (offset(1), 1));

    world.lock().log.push(lines("good"));
    world.changed.notify_waiters();
    world.until(|state| state.destination.slow).await;
    signs.0.lock().unwrap().clear();
    tokio::time::sleep(60 * config().limits.idle_cursor).await;
    assert_eq!(*signs.0.lock().unwrap(), [], "silence with work in hand means stuck");
    flow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_mostly_breaks_the_contract_stops_the_flow_and_puts_nothing_aside() {
    let world = World::new(&[lines("good good"), lines("bad bad bad good")]);
    let strict = |share| {
        let config = config();
        let limits = FlowLimits { max_bad_share: share, max_bad_from: 3, ..config.limits.clone() };
        FlowConfig { limits, ..config }
    };
    let End::Failed(failure) = world.live_as(strict(0.4)).await else { panic!("it stops") };
    assert_eq!(failure.kind, FailureKind::Schema);
    let told = failure.to_string();
    assert!(told.starts_with("3 of 6 records from offset 0 of app/3 on break the contract, the first with syntax: bad#"), "{told}");
    assert!(told.ends_with("nothing was put aside: make the contract fit and restart, or raise quarantine.max_share to have them put aside"), "{told}");
    assert!(world.lock().log.quarantined().is_empty());
    assert!(matches!(world.live_as(strict(0.5)).await, End::Stopped(_)));
    oracle::check(&world);
}
