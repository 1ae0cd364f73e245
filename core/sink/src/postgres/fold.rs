//! Which row of each key is written, and which give way to it. Pure.
//!
//! In: rows in log order. Out: at most one row a key, in the order of the keys, so that two writers lock rows in the same order;
//! for each of them the row to try when the server refuses it; and the rows that lost, with the reason.
//! A statement may not meet one key twice, so this comes before any SQL.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::config::Mode;
use super::encode::Encoder;
use super::table::Table;

/// Reason under which records are counted that are older than a row there.
pub(crate) const STALE: &str = "stale";
/// Reason under which records are counted whose key is there already.
pub(crate) const EXISTING: &str = "existing";

#[derive(Debug, Default)]
pub(crate) struct Folded {
    /// Rows to write.
    pub(crate) write: Vec<usize>,
    /// The row of the same key that would be written if this one were not there.
    pub(crate) instead: HashMap<usize, usize>,
    /// Rows that are not written, whatever the database holds.
    pub(crate) dropped: Vec<(usize, &'static str)>,
}

pub(crate) fn fold(table: &Table, encoder: &Encoder<'_>, rows: &[usize]) -> Folded {
    match table.mode {
        Mode::Append | Mode::Insert => Folded { write: rows.to_vec(), ..Folded::default() },
        Mode::Ignore => {
            // The first of each key: the last one in reverse.
            let reversed: Vec<usize> = rows.iter().rev().copied().collect();
            let mut folded = last_of_each_key(table, encoder, &reversed);
            folded.dropped = folded.instead.values().map(|&row| (row, EXISTING)).collect();
            folded
        }
        Mode::Upsert | Mode::Update => last_of_each_key(table, encoder, rows),
    }
}

/// The last row of each key, or the last one of its largest version.
fn last_of_each_key(table: &Table, encoder: &Encoder<'_>, rows: &[usize]) -> Folded {
    let mut best: HashMap<Vec<u8>, usize> = HashMap::with_capacity(rows.len());
    let mut folded = Folded::default();
    let mut key = Vec::new();
    for &row in rows {
        encoder.key(&table.unique, row, &mut key);
        let Some(held) = best.get_mut(&key) else {
            best.insert(key.clone(), row);
            continue;
        };
        let older = |version| encoder.compare(version, row, *held) == Ordering::Less;
        if table.version.is_some_and(older) {
            folded.dropped.push((row, STALE));
        } else {
            folded.instead.insert(row, *held);
            *held = row;
        }
    }
    let mut best: Vec<(Vec<u8>, usize)> = best.into_iter().collect();
    best.sort_unstable();
    folded.write = best.into_iter().map(|(_, row)| row).collect();
    folded
}
