//! Where a flow may begin, and what it says when it may not.

use garam_flow::{FlowConfig, Start};
use garam_proto::{Incarnation, LogOffset};
use garam_stage::{FailureKind, PlanId};

use crate::crash::lines;
use crate::oracle;
use crate::world::{End, World, config, input, offset};

/// Lives once on a changed world and expects a cursor failure that names the choices, with nothing changed.
async fn stops_with_choices(world: &std::sync::Arc<World>, says: &str) {
    let before = world.lock().destination.cursor.clone();
    let rows = world.lock().destination.rows.clone();
    let End::Failed(failure) = world.live().await else { panic!("must not run: {says}") };
    assert_eq!(failure.kind, FailureKind::Cursor);
    let text = failure.to_string();
    for expected in [says, "nothing was changed", "rewind", "re-base", "accept a counted gap"] {
        assert!(text.contains(expected), "{text:?} should say {expected:?}");
    }
    let state = &mut *world.lock();
    let after = state.destination.cursor.clone();
    assert_eq!(
        after.as_ref().map(|c| (c.next, &c.counters)),
        before.as_ref().map(|c| (c.next, &c.counters))
    );
    assert_eq!(state.destination.rows, rows);
    let pin = state.log.input().pins[&config().reader_name()];
    assert_eq!(pin, state.log.input().start, "what the operator may choose from is held");
}

async fn delivered() -> std::sync::Arc<World> {
    let world = World::new(&[lines("good bad good"), lines("good good good good good")]);
    world.live_on().await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_first_start_begins_at_the_earliest_entry_still_held() {
    let world = World::new(&[lines("good"), lines("good good"), lines("good")]);
    world.lock().log.input().start = offset(1);
    world.live_on().await;
    let state = world.lock();
    assert_eq!(state.destination.rows.len(), 3);
    assert_eq!(state.memory.remembered, Some(offset(3)));
}

#[tokio::test(start_paused = true)]
async fn a_first_start_from_now_delivers_only_what_comes() {
    let world = World::new(&[lines("good"), lines("good good")]);
    let from_now = FlowConfig { start: Start::Now, ..config() };
    let End::Stopped(stopped) = world.live_as(from_now).await else { panic!("it stops") };
    assert_eq!(stopped.cursor.next, offset(2));
    world.lock().log.push(lines("good"));
    // What a first start says no longer matters once a cursor exists.
    world.live_on().await;
    assert_eq!(world.lock().destination.rows.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_plan_continues_from_the_cursor_and_is_recorded_with_the_next() {
    let world = delivered().await;
    world.lock().log.push(lines("good"));
    let End::Stopped(stopped) = world.live_as(FlowConfig { plan: PlanId(2), ..config() }).await
    else {
        panic!("it stops")
    };
    assert_eq!(stopped.cursor.plan, PlanId(2));
    oracle::check(&world);
}

#[tokio::test(start_paused = true)]
async fn each_start_owns_the_cursor_under_a_newer_epoch() {
    let world = delivered().await;
    for _ in 0..3 {
        world.lock().log.push(lines("good"));
        world.live_on().await;
    }
    assert_eq!(world.lock().destination.epochs, [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_remembered_cursor_that_the_destination_lost_stops_the_flow() {
    let world = delivered().await;
    world.lock().destination.cursor = None;
    stops_with_choices(&world, "is remembered").await;
    assert!(world.lock().destination.cursor.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_entry_before_the_cursor_stops_the_flow() {
    let world = delivered().await;
    world.lock().destination.cursor.as_mut().unwrap().fingerprint ^= 1;
    stops_with_choices(&world, "fingerprint").await;
}

#[tokio::test(start_paused = true)]
async fn another_incarnation_stops_the_flow() {
    let world = delivered().await;
    world.lock().log.input().incarnation = Incarnation([9; 16]);
    stops_with_choices(&world, "incarnation").await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_outside_the_log_stops_the_flow() {
    let world = delivered().await;
    world.lock().destination.cursor.as_mut().unwrap().next = offset(7);
    stops_with_choices(&world, "the log holds [0, 2]").await;

    let world = delivered().await;
    world.lock().destination.cursor.as_mut().unwrap().next = offset(1);
    world.lock().log.input().start = offset(2);
    stops_with_choices(&world, "the log holds [2, 2]").await;
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_lost_binding_entries_stops_the_flow() {
    let world = delivered().await;
    world.lock().destination.cursor.as_mut().unwrap().quarantine_next = LogOffset(1);
    world.lock().log.quarantine().start = LogOffset(2);
    let End::Failed(failure) = world.live().await else { panic!("must not run") };
    assert_eq!(failure.kind, FailureKind::Cursor);
    assert!(failure.to_string().contains("quarantine entries from 1 on"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_pinned_at_the_cursor_and_the_quarantine_at_what_binds() {
    let world = delivered().await;
    let state = &mut *world.lock();
    let name = config().reader_name();
    let cursor = state.destination.cursor.clone().unwrap();
    assert_eq!(state.log.input().pins[&name], cursor.next);
    assert_eq!(state.log.quarantine().pins[&name], cursor.quarantine_next);
    assert!(name.contains(&format!("/{}/", input().index)));
}
