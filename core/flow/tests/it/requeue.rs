//! What was put aside is delivered after all: once, wherever the carrier or the flow is ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use garam_flow::{Name, Request, RequestId, TakenFor};
use garam_proto::{Incarnation, LogOffset};
use garam_stage::QuarantineReason;

use crate::crash::lines;
use crate::oracle;
use crate::world::{DestinationState, End, Item, PIPELINE, World, requeue_config};

fn items() -> Vec<Item> {
    vec![
        lines("good later bad later"),
        lines("later good later"),
        Item::Broken(3),
        lines("bad later good"),
    ]
}

/// Everything that lies in the quarantine now.
fn everything(world: &World, id: u8) -> Request {
    Request {
        id: RequestId([id; 16]),
        pipeline: PIPELINE,
        what: TakenFor::Requeue,
        reason: None,
        names: Vec::new(),
        until: LogOffset(world.lock().log.quarantine().entries.len() as u64),
        incarnation: Incarnation([2; 16]),
    }
}

async fn flow_on(world: &Arc<World>) {
    for _ in 0..50 {
        match world.live_as(requeue_config()).await {
            End::Stopped(_) => return,
            End::Crashed => {}
            End::Failed(failure) => panic!("{failure}"),
        }
    }
    panic!("the lane should have been delivered within 50 lives");
}

/// Where each text went, over both lanes.
fn delivered(own: &DestinationState, world: &World) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let state = world.lock();
    for (_, text) in own.rows.iter().chain(&state.destination.rows) {
        *found.entry(text.clone()).or_default() += 1;
    }
    found
}

#[track_caller]
fn check(own: &DestinationState, world: &World) {
    let found = delivered(own, world);
    assert!(found.values().all(|count| *count == 1), "nothing twice: {found:?}");
    let mut state = world.lock();
    let sent: Vec<String> = state.log.items.iter().flat_map(texts).collect();
    for text in &sent {
        let is_good = !text.starts_with("bad#");
        assert_eq!(found.contains_key(text), is_good, "{text}");
    }
    let counters = &state.destination.cursor.as_ref().expect("a cursor").counters;
    assert!(counters.balanced());
    assert_eq!((counters.records_in, counters.delivered, counters.quarantined), (7, 5, 2));
    // Both bad ones lie in the quarantine a second time, with what is needed to requeue them again.
    let again = state
        .log
        .quarantined()
        .into_iter()
        .filter(|(_, name, _)| name.stream.as_str().starts_with("_requeue."));
    let texts: Vec<String> = again.map(|(_, _, bytes)| String::from_utf8(bytes).unwrap()).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts.iter().all(|text| text.starts_with("bad#")));
}

fn texts(item: &Item) -> Vec<String> {
    match item {
        Item::Lines(lines) => lines.clone(),
        _ => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_requeue_delivers_once_wherever_carrier_and_flow_are_ended() {
    let (mut step, mut got_through) = (0, false);
    while !got_through {
        step += 1;
        let world = World::new(&items());
        world.live_on().await;
        oracle::check(&world);
        let own = world.turn_to_requeue();
        let request = everything(&world, 1);
        world.lock().crash_at = Some(step);
        got_through = world.carry_out(&request).await.is_some();
        // What is copied already is delivered before the rest is.
        world.lock().crash_at = Some(1 + step * 5 % 40);
        if world.lock().log.requeue_end() > LogOffset::ZERO {
            flow_on(&world).await;
        }
        world.lock().crash_at = Some(1 + step * 3 % 30);
        let mut done = None;
        while done.is_none() {
            done = world.carry_out(&request).await;
        }
        let done = done.unwrap();
        assert_eq!((done.taken, done.unfit, done.is_void), (7, 1, false), "step {step}");
        flow_on(&world).await;
        check(&own, &world);
    }
    assert!(step > 20, "a requeue has many steps, this one had {step}");
}

#[tokio::test(start_paused = true)]
async fn two_requests_for_the_same_records_deliver_them_once() {
    let world = World::new(&items());
    world.live_on().await;
    let own = world.turn_to_requeue();
    let (first, second) = (everything(&world, 1), everything(&world, 2));
    // The second one is carried out while the first has taken, and not copied, everything.
    world.lock().crash_at = Some(20);
    let done = world.carry_out(&first).await;
    assert!(done.is_none(), "the first one is cut off");
    let taken = world.carry_out(&second).await.unwrap().taken;
    let before = world.carry_out(&first).await.unwrap().taken;
    assert_eq!(taken + before, 7, "each record by one of them");
    flow_on(&world).await;
    check(&own, &world);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_asked_for_is_taken_and_a_purge_delivers_nothing() {
    let world = World::new(&items());
    world.live_on().await;
    let own = world.turn_to_requeue();
    let waiting = world.oldest(&[]).await;
    assert_eq!(waiting.waiting, 10);
    let all = world.lock().log.quarantined();
    let (offset, name, _) = all.first().unwrap().clone();
    assert_eq!(name.reason, QuarantineReason::Syntax);
    let one = Name { offset, index: 0 };
    let picked = Request { names: vec![one], ..everything(&world, 1) };
    assert_eq!(world.carry_out(&picked).await.unwrap().taken, 1);
    let broken = Request { reason: Some(QuarantineReason::Undecodable), ..everything(&world, 2) };
    let done = world.carry_out(&broken).await.unwrap();
    assert_eq!((done.taken, done.unfit), (0, 1), "a block without its header cannot be read");
    let purge = Request { what: TakenFor::Purge, ..broken };
    assert_eq!(
        world.carry_out(&Request { id: RequestId([3; 16]), ..purge }).await.unwrap().taken,
        3
    );
    assert_eq!(world.oldest(&[]).await.waiting, 6);
    assert_eq!(
        world.oldest(&[RequestId([3; 16])]).await.waiting,
        9,
        "what is not done still waits"
    );
    flow_on(&world).await;
    let found = delivered(&own, &world);
    assert_eq!(found.keys().filter(|text| text.starts_with("later#")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_is_needed_while_its_records_could_be_read_again() {
    let world = World::new(&items());
    world.live_on().await;
    world.turn_to_requeue();
    let purge = Request { what: TakenFor::Purge, ..everything(&world, 1) };
    assert_eq!(world.carry_out(&purge).await.unwrap().taken, 10);
    let oldest = world.oldest(&[]).await;
    assert_eq!((oldest.waiting, oldest.waits_since_us), (0, None));
    let (first, ..) = world.lock().log.quarantined()[0];
    assert_eq!(oldest.needed_from, first, "a rewind would meet these records");
    let end = world.lock().log.end();
    world.lock().log.input().start = end;
    let quarantine_end = LogOffset(world.lock().log.quarantine().entries.len() as u64);
    assert_eq!(world.oldest(&[]).await.needed_from, quarantine_end);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_quarantine_does_nothing() {
    let world = World::new(&items());
    world.live_on().await;
    world.turn_to_requeue();
    let request = everything(&world, 1);
    world.lock().log.quarantine().incarnation = Incarnation([9; 16]);
    assert!(world.carry_out(&request).await.unwrap().is_void);
    assert_eq!(world.lock().log.requeue_end(), LogOffset::ZERO);
}
