//! Random inputs, random faults, random crashes: the oracle finds every record where it may be.

use proptest::prelude::*;

use crate::oracle;
use crate::world::{Commit, End, Fault, Item, World};

fn word() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => Just("good"),
        2 => Just("bad"),
        2 => Just("flip"),
        2 => Just("flop"),
        1 => Just("drop"),
        1 => Just("skip"),
        1 => Just("stale"),
        1 => Just("refuse"),
        1 => Just("refuse-later"),
        1 => Just("sway"),
        1 => Just("panic"),
        1 => Just("hurt"),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        10 => prop::collection::vec(word(), 1..8)
            .prop_map(|words| Item::Lines(words.into_iter().map(String::from).collect())),
        1 => (0..9u32).prop_map(Item::Broken),
        1 => (1..999u64).prop_map(Item::Gap),
        1 => Just(Item::Claim),
        1 => Just(Item::Advance),
    ]
}

fn fault() -> impl Strategy<Value = (u64, Fault)> {
    let fault = prop_oneof![
        Just(Fault::FailBeforeCommit),
        Just(Fault::FailAfterCommit),
        Just(Fault::Delay),
        Just(Fault::Contention),
    ];
    (1..12u64, fault)
}

fn commit() -> impl Strategy<Value = Commit> {
    prop_oneof![Just(Commit::Lands), Just(Commit::Defeated), Just(Commit::Late)]
}

/// Each line is told apart by a number.
fn number(items: Vec<Item>) -> Vec<Item> {
    let mut number = 0;
    let mut tag = |word: String| {
        number += 1;
        format!("{word}#{number}")
    };
    let tagged = |item| match item {
        Item::Lines(words) => Item::Lines(words.into_iter().map(&mut tag).collect()),
        other => other,
    };
    items.into_iter().map(tagged).collect()
}

async fn run(
    items: Vec<Item>,
    faults: Vec<(u64, Fault)>,
    commit: Commit,
    accepts: bool,
    crashes: Vec<u64>,
) {
    let world = World::new(&number(items));
    {
        let destination = &mut world.lock().destination;
        destination.faults = faults.into_iter().collect();
        destination.commit = commit;
        destination.accepts = accepts;
        destination.can_rehearse = true;
    }
    for step in crashes {
        world.lock().crash_at = Some(step);
        match world.live().await {
            End::Crashed => {}
            End::Stopped(_) => oracle::check(&world),
            End::Failed(failure) => panic!("{:?} {failure}", failure.kind),
        }
        let state = &mut *world.lock();
        if let Some(cursor) = state.destination.cursor.clone() {
            oracle::check_partial(state, &cursor);
        }
    }
    world.live_on().await;
    let _late = world.lock().destination.deliver_late();
    oracle::check(&world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_record_is_in_one_place_whatever_happens(
        items in prop::collection::vec(item(), 1..14),
        faults in prop::collection::vec(fault(), 0..4),
        commit in commit(),
        accepts in any::<bool>(),
        crashes in prop::collection::vec(1..160u64, 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(items, faults, commit, accepts, crashes));
    }
}
