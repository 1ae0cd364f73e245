//! Which row of each key is written, and which give way to it. Pure.
//!
//! In: rows in log order. Out: at most one row a key, in the order of the keys, so that two writers lock rows in the same order;
//! for each of them the row to try when the server refuses it; and the rows that lost, with the reason.
//! A statement may not meet one key twice, so this comes before any SQL.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use crate::changes::{Act, Acts};
use crate::columns::Columns;
use crate::mode::Mode;

/// Reason under which records are counted that are older than a row there.
pub(crate) const STALE: &str = "stale";
/// Reason under which records are counted whose key is there already.
pub(crate) const EXISTING: &str = "existing";
/// Reason under which records are counted that a rewound cursor offered again.
pub(crate) const REPEATED: &str = "repeated";
/// Reason under which records are counted that would change a row that is not there.
pub(crate) const MISSING: &str = "missing";

#[derive(Debug, Default)]
pub(crate) struct Folded {
    /// Rows to write.
    pub(crate) write: Vec<usize>,
    /// Rows whose key is to be deleted.
    pub(crate) delete: Vec<usize>,
    /// The row of the same key that would be written if this one were not there.
    pub(crate) instead: HashMap<usize, usize>,
    /// Why a row changes nothing, whatever the database holds; the destination adds what it finds out.
    pub(crate) dropped: BTreeMap<usize, &'static str>,
}

impl Folded {
    /// The row to try when this one is refused. One that deletes says no more about the others.
    pub(crate) fn next(&self, row: usize, acts: Acts<'_>) -> Option<usize> {
        self.instead.get(&row).copied().filter(|&row| acts.get(row) == Act::Write)
    }

    /// What is true of a row is true of those of its key that it stands for.
    pub(crate) fn drop_with_earlier(&mut self, row: usize, reason: &'static str) {
        let mut at = Some(row);
        while let Some(row) = at {
            self.dropped.insert(row, reason);
            at = self.instead.get(&row).copied();
        }
    }
}

/// What makes rows meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meeting<'a> {
    pub(crate) mode: Mode,
    /// The columns of the key.
    pub(crate) unique: &'a [usize],
    /// The column of the guard.
    pub(crate) version: Option<usize>,
    /// What each row asks for.
    pub(crate) acts: Acts<'a>,
}

/// Rows whose keys and versions can be compared.
pub(crate) trait Keyed {
    /// Bytes that are equal exactly for equal keys.
    fn key(&self, columns: &[usize], row: usize, out: &mut Vec<u8>);
    /// Which of two rows has the larger value.
    fn compare(&self, column: usize, a: usize, b: usize) -> Ordering;
}

impl Keyed for Columns<'_> {
    fn key(&self, columns: &[usize], row: usize, out: &mut Vec<u8>) {
        self.key(columns, row, out);
    }

    fn compare(&self, column: usize, a: usize, b: usize) -> Ordering {
        self.compare(column, a, b)
    }
}

pub(crate) fn fold(meeting: Meeting<'_>, columns: &impl Keyed, rows: &[usize]) -> Folded {
    match meeting.mode {
        Mode::Append | Mode::Insert => Folded { write: rows.to_vec(), ..Folded::default() },
        Mode::Ignore => {
            // The first of each key: the last one in reverse.
            let reversed: Vec<usize> = rows.iter().rev().copied().collect();
            let mut folded = last_of_each_key(meeting, columns, &reversed);
            folded.dropped = folded.instead.values().map(|&row| (row, EXISTING)).collect();
            folded
        }
        Mode::Upsert | Mode::Update => last_of_each_key(meeting, columns, rows),
    }
}

/// The last row of each key, or the last one of its largest version.
fn last_of_each_key(meeting: Meeting<'_>, columns: &impl Keyed, rows: &[usize]) -> Folded {
    let mut best: HashMap<Vec<u8>, usize> = HashMap::with_capacity(rows.len());
    let mut folded = Folded::default();
    let mut key = Vec::new();
    for &row in rows {
        columns.key(meeting.unique, row, &mut key);
        let Some(held) = best.get_mut(&key) else {
            best.insert(key.clone(), row);
            continue;
        };
        let older = |version| columns.compare(version, row, *held) == Ordering::Less;
        if meeting.version.is_some_and(older) {
            folded.dropped.insert(row, STALE);
        } else if meeting.mode == Mode::Update
            && meeting.acts.get(*held) == Act::Delete
            && meeting.acts.get(row) == Act::Write
        {
            // The row is gone by then, and this mode makes none.
            folded.dropped.insert(row, MISSING);
        } else {
            folded.instead.insert(row, *held);
            *held = row;
        }
    }
    let mut best: Vec<(Vec<u8>, usize)> = best.into_iter().collect();
    best.sort_unstable();
    let rows = best.into_iter().map(|(_, row)| row);
    (folded.delete, folded.write) = rows.partition(|&row| meeting.acts.get(row) == Act::Delete);
    folded
}
