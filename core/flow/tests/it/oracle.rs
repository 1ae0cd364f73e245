//! The oracle: where every record is, by id, and whether that is where it may be.

use std::collections::BTreeMap;

use garam_proto::LogOffset;
use garam_stage::quarantine::WHOLE_BLOCK;
use garam_stage::{Cursor, RecordRef};

use crate::world::{Item, State, World};

/// Where a record was found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Found {
    delivered: u32,
    quarantined: u32,
}

/// Checks everything that must hold once all input is delivered.
#[track_caller]
pub(crate) fn check(world: &World) {
    let state = &mut *world.lock();
    let cursor = state.destination.cursor.clone().expect("a cursor");
    assert_eq!(cursor.next, state.log.end(), "everything is passed");
    check_partial(state, &cursor);
}

/// Checks the records below the cursor, and that nothing above it was delivered.
#[track_caller]
pub(crate) fn check_partial(state: &mut State, cursor: &Cursor) {
    let mut found: BTreeMap<RecordRef, Found> = BTreeMap::new();
    let rows = &state.destination.rows;
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "rows are in log order, each once: {rows:?}");
    for (at, text) in rows {
        assert!(at.offset < cursor.next, "no row lies above the cursor");
        assert_eq!(text_of(&state.log.items, *at).as_deref(), Some(text.as_str()), "unaltered");
        found.entry(*at).or_default().delivered += 1;
    }
    let (mut quarantined, mut needed) = (0, None::<LogOffset>);
    for (entry, name, bytes) in state.log.quarantined() {
        let at = name.at();
        if at.offset >= cursor.next {
            needed = needed.or(Some(entry));
            continue;
        }
        quarantined += u64::from(name.records);
        found.entry(at).or_default().quarantined += 1;
        if name.index != WHOLE_BLOCK {
            let text = text_of(&state.log.items, at);
            assert_eq!(text.as_deref().map(str::as_bytes), Some(&*bytes), "kept whole");
        }
    }
    let mut total = 0;
    let (mut gap_units, mut gaps, mut nowhere) = (0, 0, 0);
    for (at, item) in state.log.items.iter().enumerate() {
        let offset = LogOffset(at as u64);
        if offset >= cursor.next {
            break;
        }
        match item {
            Item::Lines(lines) => {
                total += lines.len() as u64;
                for (index, line) in lines.iter().enumerate() {
                    let at = RecordRef { offset, index: u32::try_from(index).unwrap() };
                    let place = found.remove(&at).unwrap_or_default();
                    check_place(line, place);
                    nowhere += u64::from(place == Found::default());
                }
            }
            Item::Broken(records) => {
                total += u64::from(*records.max(&1));
                let at = RecordRef { offset, index: WHOLE_BLOCK };
                let place = found.remove(&at).unwrap_or_default();
                assert_eq!(place, Found { delivered: 0, quarantined: 1 }, "broken block {offset}");
            }
            Item::Gap(units) => {
                gap_units += units;
                gaps += 1;
            }
            Item::Claim | Item::Advance => {}
        }
    }
    assert!(found.is_empty(), "records that nobody sent: {found:?}");
    let counters = &cursor.counters;
    assert!(counters.balanced());
    assert_eq!(counters.records_in, total);
    assert_eq!(counters.delivered, rows.len() as u64);
    assert_eq!(counters.quarantined, quarantined);
    assert_eq!(counters.dropped_total(), nowhere);
    assert_eq!((counters.gap_units, counters.gaps), (gap_units, gaps));
    if let Some(needed) = needed {
        assert!(
            cursor.quarantine_next <= needed,
            "the quarantine is read again from where it binds"
        );
    }
    let fingerprint = cursor
        .next
        .0
        .checked_sub(1)
        .map_or(0, |before| state.log.input().entries[before as usize].fingerprint.0);
    assert_eq!(cursor.fingerprint, fingerprint);
}

#[track_caller]
fn check_place(line: &str, place: Found) {
    let once = |delivered, quarantined| Found { delivered, quarantined };
    let (delivered, put_aside, nowhere) = (once(1, 0), once(0, 1), once(0, 0));
    let allowed: &[Found] = match line.split('#').next().unwrap() {
        "good" => &[delivered],
        "bad" | "later" | "refuse" | "refuse-later" | "panic" | "hurt" => &[put_aside],
        "drop" | "stale" => &[nowhere],
        "flip" | "flop" | "sway" => &[delivered, put_aside],
        "skip" => &[delivered, nowhere],
        "bystander" => &[delivered, put_aside],
        other => panic!("no such verdict: {other}"),
    };
    assert!(allowed.contains(&place), "{line} was found at {place:?}");
}

fn text_of(items: &[Item], at: RecordRef) -> Option<String> {
    match items.get(at.offset.0 as usize)? {
        Item::Lines(lines) => lines.get(at.index as usize).cloned(),
        _ => None,
    }
}
