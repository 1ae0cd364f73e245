//! Cursors of earlier lives of the log, and what an operator decides where they do not fit.

use std::sync::Arc;

use garam_flow::{FlowHooks, Standing, Unfit};
use garam_log::{Ancestor, Bounds};
use garam_proto::{Incarnation, LogOffset};
use garam_stage::{Choice, Cursor, Decision, FailureKind};

use crate::crash::lines;
use crate::world::{CutOff, End, State, World, config, offset};

pub(crate) const NEW_LIFE: Incarnation = Incarnation([9; 16]);

async fn delivered() -> Arc<World> {
    let world = World::new(&[lines("good bad good"), lines("good good"), lines("bad")]);
    world.lock().destination.unique = true;
    world.live_on().await;
    world
}

/// The log is restored to what it was at `branch`, and begins a new life there.
pub(crate) fn restore(state: &mut State, branch: usize) {
    let input = state.log.input();
    let until = offset(branch);
    input.ancestors = vec![Ancestor { incarnation: input.incarnation, until }];
    input.incarnation = NEW_LIFE;
    input.entries.truncate(branch);
    state.log.items.truncate(branch);
}

fn standing(state: &mut State) -> Standing {
    let stored = state.destination.cursor.as_ref().map(|cursor| (cursor.incarnation, cursor.next));
    let remembered = state.memory.remembered;
    let end = state.log.end();
    let input = state.log.input();
    let log = Bounds { incarnation: input.incarnation, start: input.start, end };
    let branch = input.ancestors.iter().find(|a| stored.is_some_and(|s| s.0 == a.incarnation));
    let branch = branch.map(|ancestor| ancestor.until);
    Standing { stored, remembered, log, branch }
}

/// Decides as the command line does, and lives on.
pub(crate) async fn resume(world: &Arc<World>, choice: Choice) -> Cursor {
    {
        let state = &mut *world.lock();
        state.memory.decision = Some(standing(state).decide(choice).unwrap());
    }
    let cursor = live_on(world).await;
    assert!(world.lock().memory.decision.is_none(), "a decision is carried out once");
    assert!(cursor.counters.balanced());
    cursor
}

/// A life ends when the cursor stands at the end, which a cursor that is to be moved back may do before anything is done.
async fn live_on(world: &Arc<World>) -> Cursor {
    world.live_on().await;
    world.live_on().await
}

#[tokio::test(start_paused = true)]
async fn a_cursor_below_the_branch_goes_on_unasked_in_the_new_life() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        let until = offset(3);
        let input = state.log.input();
        input.ancestors = vec![Ancestor { incarnation: input.incarnation, until }];
        input.incarnation = NEW_LIFE;
        state.log.push(lines("good"));
    }
    let cursor = world.live_on().await;
    assert_eq!((cursor.incarnation, cursor.next), (NEW_LIFE, offset(4)));
    assert_eq!((cursor.counters.delivered, cursor.counters.quarantined), (5, 2));
    assert_eq!(world.lock().log.quarantined().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_put_aside_in_an_earlier_life_binds_below_the_branch_and_only_there() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        restore(state, 2);
        // The destination is older than both.
        let cursor = state.destination.cursor.as_mut().unwrap();
        (cursor.next, cursor.fingerprint, cursor.quarantine_next) = (offset(0), 0, LogOffset::ZERO);
        cursor.counters = Default::default();
        state.destination.rows.clear();
        // Another record than the one that was put aside at this offset before.
        state.log.push(lines("good"));
    }
    let cursor = world.live_on().await;
    assert_eq!((cursor.counters.delivered, cursor.counters.quarantined), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_destination_ahead_of_a_restored_log_stops_and_a_rewind_makes_it_exact() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        let items = state.log.items.clone();
        restore(state, 1);
        // Agents send again what came after the backup.
        items.into_iter().skip(1).for_each(|item| state.log.push(item));
    }
    let End::Failed(failure) = world.live().await else { panic!("it stops") };
    assert_eq!(failure.kind, FailureKind::Cursor);
    assert!(failure.to_string().contains("earlier life"), "{failure}");
    let cursor = resume(&world, Choice::Rewind).await;
    assert_eq!((cursor.incarnation, cursor.next), (NEW_LIFE, offset(3)));
    let state = &mut *world.lock();
    assert_eq!(state.destination.rows.len(), 4, "as many as there are good records");
    assert_eq!(cursor.counters.delivered, 4);
    assert_eq!(cursor.counters.dropped["repeated"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_rewind_counts_what_lies_in_the_quarantine_once() {
    let world = delivered().await;
    world.lock().destination.cursor.as_mut().unwrap().fingerprint ^= 1;
    let cursor = resume(&world, Choice::Rewind).await;
    assert_eq!((cursor.counters.delivered, cursor.counters.quarantined), (4, 2));
    assert_eq!(world.lock().log.quarantined().len(), 2, "and puts nothing aside twice");
}

#[tokio::test(start_paused = true)]
async fn rebasing_a_lost_cursor_goes_on_where_it_is_remembered() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        state.destination.cursor = None;
        state.log.push(lines("good"));
    }
    let cursor = resume(&world, Choice::Rebase).await;
    assert_eq!((cursor.next, cursor.counters.delivered), (offset(4), 1));
    assert_eq!(world.lock().destination.rows.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_no_longer_holds_is_a_gap_that_somebody_accepts() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        let cursor = state.destination.cursor.as_mut().unwrap();
        cursor.next = offset(0);
        cursor.counters = Default::default();
        state.log.input().start = offset(2);
        let gone = Unfit::Gone { from: offset(0), to: offset(2) };
        assert_eq!(standing(state).decide(Choice::Rewind), Err(gone));
        assert!(standing(state).decide(Choice::Rebase).is_err());
    }
    let cursor = resume(&world, Choice::AcceptGap).await;
    assert_eq!((cursor.next, cursor.counters.gaps, cursor.counters.gap_units), (offset(3), 1, 2));
    let aside = world.lock().log.quarantined().len() as u64;
    assert_eq!(cursor.counters.quarantined, aside, "the one inside the gap too");
}

/// The cursor stands at 0, the log begins at 2, and went on without a reader that stood at `stood`.
fn cut_off(state: &mut State, stood: usize) {
    let cursor = state.destination.cursor.as_mut().unwrap();
    cursor.next = offset(0);
    cursor.fingerprint = 0;
    cursor.counters = Default::default();
    let reader = config().reader_name();
    let input = state.log.input();
    input.start = offset(2);
    input.detached.insert(reader, CutOff { stood: offset(stood), units: Some(4711) });
}

#[tokio::test(start_paused = true)]
async fn a_flow_the_log_went_on_without_takes_the_gap_unasked_and_once() {
    let world = delivered().await;
    cut_off(&mut world.lock(), 0);
    let cursor = live_on(&world).await;
    let counters = &cursor.counters;
    assert_eq!((cursor.next, counters.gaps, counters.gap_units), (offset(3), 1, 4711));
    assert_eq!((counters.quarantined, counters.delivered), (2, 0), "one of them inside the gap");
    assert!(counters.balanced());
    assert!(world.lock().log.input().detached.is_empty());
    // What is lost now was not given up by anybody.
    world.lock().destination.cursor.as_mut().unwrap().next = offset(0);
    stops(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_before_the_place_where_its_flow_was_cut_off_stops_with_choices() {
    let world = delivered().await;
    cut_off(&mut world.lock(), 1);
    stops(&world).await;
    assert_eq!(world.lock().destination.cursor.as_ref().unwrap().next, offset(0));
}

async fn stops(world: &Arc<World>) {
    let End::Failed(failure) = world.live().await else { panic!("the flow should stop") };
    assert_eq!(failure.kind, FailureKind::Cursor);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_is_cut_off_while_it_reads_goes_on_behind_the_gap() {
    let world = World::new(&[lines("good"), lines("good good"), lines("good")]);
    let life = world.be_born();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let flow = tokio::spawn(world.flow(life, config(), FlowHooks::default()).run(stopping));
    world.until(|state| state.done()).await;
    {
        let state = &mut *world.lock();
        // All at once, so that the reader finds the log moved on from under it.
        (0..4).for_each(|_| state.log.push(lines("good good good")));
        let input = state.log.input();
        input.start = offset(6);
        let cut = CutOff { stood: offset(3), units: None };
        input.detached.insert(config().reader_name(), cut);
    }
    world.changed.notify_waiters();
    world.until(|state| state.done()).await;
    stop.send_replace(true);
    let cursor = flow.await.unwrap().unwrap().cursor;
    assert_eq!((cursor.next, cursor.counters.gaps, cursor.counters.gap_units), (offset(7), 1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_gap_of_entries_that_are_there_is_counted_by_their_bytes() {
    let world = delivered().await;
    let bytes: u128 = {
        let state = &mut *world.lock();
        state.destination.cursor.as_mut().unwrap().incarnation = Incarnation([8; 16]);
        state.log.input().entries.last().unwrap().origin.mark
    };
    let cursor = resume(&world, Choice::AcceptGap).await;
    assert_eq!((cursor.next, u128::from(cursor.counters.gap_units)), (offset(3), bytes));
}

#[tokio::test(start_paused = true)]
async fn a_decision_for_another_cursor_is_void() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        state.destination.cursor.as_mut().unwrap().fingerprint ^= 1;
        let decision = standing(state).decide(Choice::Rewind).unwrap();
        let stored = decision.stored.map(|(life, _)| (life, offset(1)));
        state.memory.decision = Some(Decision { stored, ..decision });
    }
    let End::Failed(failure) = world.live().await else { panic!("it stops") };
    assert_eq!(failure.kind, FailureKind::Cursor);
    assert!(world.lock().memory.decision.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_carried_out_whole_whatever_crashes_on_the_way() {
    for step in 1.. {
        let world = delivered().await;
        {
            let state = &mut *world.lock();
            state.destination.cursor.as_mut().unwrap().fingerprint ^= 1;
            state.memory.decision = Some(standing(state).decide(Choice::Rewind).unwrap());
            state.crash_at = Some(step);
        }
        let crashed = matches!(world.live().await, End::Crashed);
        let cursor = live_on(&world).await;
        assert_eq!((cursor.counters.delivered, cursor.counters.quarantined), (4, 2), "{step}");
        assert_eq!(world.lock().destination.rows.len(), 4, "{step}");
        assert!(cursor.counters.balanced());
        if !crashed {
            assert!(step > 20, "the crash falls into the decision");
            return;
        }
    }
}

/// What was asked for a cursor that fits: deliver again from here on.
fn replay(state: &mut State, to: usize) -> Decision {
    let Standing { stored, log, .. } = standing(state);
    let (incarnation, to) = (log.incarnation, offset(to));
    Decision { choice: Choice::Rewind, stored, incarnation, to, gap_from: None }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_fits_is_moved_back_once_whatever_crashes_on_the_way() {
    for step in 1.. {
        let world = delivered().await;
        {
            let state = &mut *world.lock();
            // Somebody has lost the two rows of the second block.
            state.destination.rows.truncate(2);
            state.memory.decision = Some(replay(state, 1));
            state.crash_at = Some(step);
        }
        let crashed = matches!(world.live().await, End::Crashed);
        let cursor = live_on(&world).await;
        assert_eq!(world.lock().destination.rows.len(), 4, "{step}");
        assert_eq!((cursor.next, cursor.counters.quarantined), (offset(3), 2), "{step}");
        assert_eq!(cursor.counters.delivered, 6, "{step}: two of them a second time");
        assert!(cursor.counters.balanced() && world.lock().memory.decision.is_none());
        if !crashed {
            assert!(step > 15, "the crash falls into the replay");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_another_cursor_than_the_one_it_was_asked_for_is_void() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        let decision = replay(state, 0);
        let stored = decision.stored.map(|(life, _)| (life, offset(2)));
        state.memory.decision = Some(Decision { stored, ..decision });
    }
    let cursor = live_on(&world).await;
    assert_eq!((cursor.next, cursor.counters.delivered), (offset(3), 4));
    assert!(world.lock().memory.decision.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_restored_quarantine_that_lacks_what_the_cursor_passed_stops_the_flow() {
    let world = delivered().await;
    {
        let state = &mut *world.lock();
        let until = offset(3);
        let input = state.log.input();
        input.ancestors = vec![Ancestor { incarnation: input.incarnation, until }];
        input.incarnation = NEW_LIFE;
        let quarantine = state.log.quarantine();
        let old = quarantine.incarnation;
        quarantine.ancestors = vec![Ancestor { incarnation: old, until: offset(1) }];
    }
    let End::Failed(failure) = world.live().await else { panic!("it stops") };
    assert!(failure.to_string().contains("needs quarantine entries"), "{failure}");
}
