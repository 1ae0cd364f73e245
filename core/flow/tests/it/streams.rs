//! A stream as the destination: every record in its key's partition once, wherever the engine is ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use garam_flow::{CutShort, producer_origin};
use garam_proto::{Incarnation, LogOffset};
use garam_stage::{Choice, FailureKind, PlanId, RecordRef};

use crate::crash::lines;
use crate::resume::{NEW_LIFE, restore, resume};
use crate::world::{End, Item, OUTPUTS, PIPELINE, World, config, input, output};

fn items() -> Vec<Item> {
    vec![
        Item::Claim,
        lines("good good bad good"),
        lines("good good drop"),
        Item::Gap(100),
        lines("good bad good good good"),
        Item::Advance,
        Item::Broken(3),
        lines("good drop good"),
        lines("good good good bad"),
        Item::Claim,
    ]
}

fn world(items: &[Item]) -> Arc<World> {
    let world = World::new(items);
    world.lock().streams = true;
    world
}

/// Every record with its origin, by its place in the input.
fn delivered(world: &World) -> BTreeMap<RecordRef, (u32, String)> {
    let state = &*world.lock();
    let mut found = BTreeMap::new();
    for index in 0..OUTPUTS {
        let mut last = None;
        for (origin, position, bytes) in state.log.records_of(&output(index)) {
            let lives = [Incarnation([1; 16]), NEW_LIFE];
            let known = lives.map(|life| producer_origin(PIPELINE, input().index, life, index));
            assert!(known.contains(&origin));
            assert!(last < Some((origin, position)) || last.is_some_and(|l| l.0 != origin));
            last = Some((origin, position));
            let at = RecordRef {
                offset: LogOffset((position >> 64) as u64 - 1),
                index: (position >> 32) as u32,
            };
            let row: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let text = row["text"].as_str().unwrap().to_owned();
            assert!(found.insert(at, (index, text)).is_none(), "a record is there once");
        }
    }
    found
}

#[track_caller]
fn check(world: &World) {
    let found = delivered(world);
    let state = &mut *world.lock();
    let mut good = BTreeMap::new();
    for (offset, item) in state.log.items.iter().enumerate() {
        let Item::Lines(lines) = item else { continue };
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("good")) {
            let at = RecordRef { offset: LogOffset(offset as u64), index: index as u32 };
            good.insert(at, line.clone());
        }
    }
    let texts: BTreeMap<_, _> = found.iter().map(|(at, (_, text))| (*at, text.clone())).collect();
    assert_eq!(texts, good, "every good record is there, and no other");
    let partitions: BTreeSet<u32> = found.values().map(|(partition, _)| *partition).collect();
    assert!(partitions.len() > 1, "keys spread");
    let cursor = state.destination.cursor.clone().unwrap();
    assert_eq!(cursor.next, state.log.end());
    assert!(cursor.counters.balanced());
    assert_eq!(cursor.counters.delivered, good.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn every_record_is_in_one_partition_once_wherever_the_engine_is_ended() {
    let items = items();
    let (mut step, mut reached_end) = (0, false);
    while !reached_end {
        step += 1;
        let world = world(&items);
        world.lock().crash_at = Some(step);
        match world.live().await {
            End::Crashed => {
                world.lock().crash_at = Some(1 + step * 7 % 80);
                world.live_on().await;
            }
            End::Stopped(_) => reached_end = true,
            End::Failed(failure) => panic!("step {step}: {failure}"),
        }
        check(&world);
    }
    assert!(step > 60, "a run has many steps, this one had {step}");
}

/// A world whose first batch was cut short: some of its records are in the stream, the cursor has not moved.
async fn cut_short(items: &[Item]) -> Arc<World> {
    for step in 1.. {
        let world = world(items);
        world.lock().crash_at = Some(step);
        match world.live().await {
            End::Crashed => {}
            ended => panic!("no step cuts a batch short: {ended:?}"),
        }
        let next = world.lock().destination.cursor.clone().map(|cursor| cursor.next);
        if next == Some(LogOffset::ZERO) && !delivered(&world).is_empty() {
            return world;
        }
    }
    unreachable!("a life ends")
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_cut_short_is_made_again_only_by_its_own_plan() {
    let items = items();
    let world = cut_short(&items).await;
    let before = delivered(&world);
    let mut other = config();
    other.plan = PlanId(2);
    let End::Failed(failure) = world.live_as(other.clone()).await else {
        panic!("another plan would place records anew")
    };
    assert_eq!(failure.kind, FailureKind::Cursor);
    let text = failure.to_string();
    assert!(text.contains("was cut short when the core ended"), "{text}");
    assert!(text.contains("0000000000000001") && text.contains("0000000000000002"), "{text}");
    assert_eq!(delivered(&world), before, "nothing was added");
    let cut = CutShort::behind(&failure).unwrap().clone();
    assert_eq!((cut.next, cut.made_by, cut.now), (LogOffset::ZERO, PlanId(1), PlanId(2)));
    let mut own = config();
    own.until = Some(cut.end);
    // It ends by itself.
    let End::Stopped(stopped) = world.live_as(own).await else {
        panic!("its own plan finishes it")
    };
    assert_eq!(stopped.cursor.next, cut.end);
    assert!(cut.end < world.lock().log.end(), "there is more");
    let End::Stopped(_) = world.live_as(other).await else { panic!("behind it any plan goes on") };
    check(&world);
}

#[tokio::test(start_paused = true)]
async fn another_plan_puts_nothing_aside_that_is_there_already() {
    // Lives of odd number deliver a flop and put a flip aside, the others the reverse: two plans.
    let items = [
        lines("good flop good flip"),
        lines("flop flip"),
        lines("flip flop good"),
        lines("good flop"),
    ];
    let world = cut_short(&items).await;
    let before = world.lock().log.quarantined().len();
    let mut other = config();
    other.plan = PlanId(2);
    let End::Failed(failure) = world.live_as(other.clone()).await else {
        panic!("not by another plan")
    };
    let cut = CutShort::behind(&failure).unwrap().clone();
    let after = world.lock().log.quarantined().len();
    assert_eq!(after, before, "nothing is judged by another plan");
    let mut own = config();
    own.until = Some(cut.end);
    let End::Stopped(_) = world.live_as(own).await else { panic!("its own plan finishes it") };
    let End::Stopped(_) = world.live_as(other).await else { panic!("behind it any plan goes on") };

    let mut found: Vec<String> = delivered(&world).into_values().map(|(_, text)| text).collect();
    let state = &mut *world.lock();
    let aside = state.log.quarantined().into_iter();
    found.extend(aside.map(|(_, _, bytes)| String::from_utf8(bytes).unwrap()));
    let mut all: Vec<String> = Vec::new();
    for item in &state.log.items {
        let Item::Lines(lines) = item else { continue };
        all.extend(lines.iter().cloned());
    }
    found.sort();
    all.sort();
    assert_eq!(found, all, "every record is delivered or put aside, once");
    assert!(state.destination.cursor.as_ref().unwrap().counters.balanced());
}

#[tokio::test(start_paused = true)]
async fn an_older_writer_adds_nothing_behind_its_successor() {
    let world = world(&items());
    let older = world.be_born();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let flow = world.flow(older, config(), garam_flow::FlowHooks::default());
    let zombie = tokio::spawn(flow.run(stopping));
    world.until(|state| state.steps > 30).await;
    world.live_on().await;
    check(&world);
    world.until(|_| zombie.is_finished()).await;
    drop(stop);
    let ended = zombie.await.unwrap();
    check(&world);
    if let Err(failure) = ended {
        assert_eq!(failure.kind, FailureKind::Fenced, "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_input_is_delivered_as_the_life_it_is() {
    let items = items();
    let world = world(&items);
    world.live_on().await;
    {
        let state = &mut *world.lock();
        let branch = items.len();
        restore(state, branch);
        // As the lines before the branch, at places that no record of the first life had.
        state.log.push(lines("good good bad good"));
        state.log.push(lines("good good good"));
    }
    world.live_on().await;
    check(&world);
    assert_eq!(world.lock().destination.cursor.clone().unwrap().incarnation, NEW_LIFE);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_cut_short_in_an_earlier_life_is_only_given_up() {
    let items = items();
    let world = cut_short(&items).await;
    let before = delivered(&world);
    restore(&mut world.lock(), items.len());
    let End::Failed(failure) = world.live().await else { panic!("a stream takes nothing back") };
    assert_eq!(failure.kind, FailureKind::Cursor);
    assert!(failure.to_string().contains("--accept-gap"), "{failure}");
    let cursor = resume(&world, Choice::AcceptGap).await;
    assert_eq!(cursor.incarnation, NEW_LIFE);
    assert!(cursor.counters.gaps > 0);
    assert_eq!(delivered(&world), before, "nothing was added");
    world.lock().log.push(lines("good good good"));
    world.live_on().await;
    assert_eq!(delivered(&world).len(), before.len() + 3);
}

#[tokio::test(start_paused = true)]
async fn offsets_that_two_lives_of_the_input_share_are_two_places() {
    let items = items();
    let world = world(&items);
    world.live_on().await;
    let before = texts(&world);
    restore(&mut world.lock(), 5);
    resume(&world, Choice::AcceptGap).await;
    world.lock().log.push(lines("good good good"));
    world.live_on().await;
    assert_eq!(texts(&world).len(), before.len() + 3, "at offset 5 other records lay before");
}

/// The texts of all records, in no order.
fn texts(world: &World) -> BTreeSet<String> {
    let state = world.lock();
    let records = (0..OUTPUTS).flat_map(|index| state.log.records_of(&output(index)));
    records.map(|(_, _, bytes)| String::from_utf8(bytes).unwrap()).collect()
}
