//! The engine ended between any two steps, then started again until everything is delivered.

use std::sync::Arc;

use crate::oracle;
use crate::world::{Commit, End, Fault, Item, World};

/// Lines whose first word is the verdict, numbered so that each is known by its text.
pub(crate) fn lines(words: &str) -> Item {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = || NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Item::Lines(words.split_whitespace().map(|word| format!("{word}#{}", number())).collect())
}

/// Ends the first life at step k, for every k until a life gets through, and the second one too at a later step.
async fn crash_at_every_step(make: impl Fn() -> Arc<World>) {
    let (mut step, mut reached_end) = (0, false);
    while !reached_end {
        step += 1;
        let world = make();
        world.lock().crash_at = Some(step);
        match world.live().await {
            End::Crashed => {
                world.lock().crash_at = Some(1 + step * 7 % 60);
                world.live_on().await;
            }
            End::Stopped(_) => reached_end = true,
            End::Failed(failure) => panic!("step {step}: {failure}"),
        }
        oracle::check(&world);
    }
    assert!(step > 40, "a run has many steps, this one had {step}");
}

fn mixed() -> Vec<Item> {
    vec![
        Item::Claim,
        lines("good good bad flip"),
        lines("good flop sway skip"),
        Item::Gap(100),
        lines("drop refuse good refuse-later good"),
        Item::Advance,
        Item::Broken(3),
        lines("flip flop good"),
        Item::Gap(7),
        lines("sway sway good bad"),
        Item::Claim,
    ]
}

#[tokio::test(start_paused = true)]
async fn every_record_is_delivered_or_put_aside_once_wherever_the_engine_is_ended() {
    crash_at_every_step(|| World::new(&mixed())).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_when_writes_end_in_an_unknown_outcome() {
    for commit in [Commit::Lands, Commit::Defeated, Commit::Late] {
        crash_at_every_step(|| {
            let world = World::new(&mixed());
            {
                let destination = &mut world.lock().destination;
                destination.commit = commit;
                destination.faults = [
                    (1, Fault::FailAfterCommit),
                    (2, Fault::FailBeforeCommit),
                    (4, Fault::Delay),
                    (6, Fault::Contention),
                ]
                .into();
            }
            world
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_while_poison_is_isolated() {
    crash_at_every_step(|| {
        let world = World::new(&[
            lines("good flip good"),
            lines("good hurt bad good"),
            lines("good panic flop"),
            lines("good good"),
        ]);
        world.lock().destination.can_rehearse = true;
        world
    })
    .await;
}
