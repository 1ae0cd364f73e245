//! Rows the server will not take: all are named, nothing is committed, and without them the rest goes in.

use garam_sink::mysql::Mode::{Append, Upsert};

use super::Base;
use crate::fixture::{Row, batch, refused, row, rows, written};

at_every_server!(
    every_refused_row_is_named_and_nothing_is_committed,
    rows_hidden_behind_a_refused_row_of_their_key_are_found_too,
);

async fn every_refused_row_is_named_and_nothing_is_committed<B: Base>(base: B) {
    let (mut destination, start) = base.ready(Append).await;
    base.execute("alter table orders add constraint low check (id % 1000 <> 7)").await;
    let mut offered = rows(0..3_100);
    let spoiled = B::spoil(&mut offered[200]);
    let found = refused(destination.write(&batch(&start, &offered)).await);
    let bad: Vec<usize> = found.iter().map(|(row, _)| *row).collect();
    assert_eq!(bad, [7, 200, 1_007, 2_007, 3_007]);
    for (row, detail) in &found {
        match row {
            200 => assert_eq!(detail, spoiled),
            _ => B::assert_violates_low(detail),
        }
    }
    assert_eq!(base.count().await, 0);
    assert_eq!(base.cursors().await, std::slice::from_ref(&start));

    let masked: Vec<Row> = offered
        .into_iter()
        .enumerate()
        .filter(|(row, _)| !bad.contains(row))
        .map(|(_, row)| row)
        .collect();
    let cursor = written(destination.write(&batch(&start, &masked)).await);
    assert_eq!(base.count().await, 3_095);
    assert_eq!(cursor.counters.delivered, 3_095);
}

async fn rows_hidden_behind_a_refused_row_of_their_key_are_found_too(base: impl Base) {
    let (mut destination, start) = base.ready(Upsert).await;
    base.execute("alter table orders add constraint good check (name not like 'bad%')").await;
    let offered = [
        row(1, "bad hidden for ever", 1),
        row(1, "good", 2),
        row(1, "bad last", 3),
        row(2, "bad first", 4),
        row(2, "bad second", 5),
        row(3, "bad superseded", 6),
        row(3, "fine", 7),
    ];
    let found = refused(destination.write(&batch(&start, &offered)).await);
    // Row 0 and row 5 are superseded by rows that are accepted, so they stand in nobody's way.
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3, 4]);
    let masked = [0, 1, 5, 6].map(|i: usize| offered[i].clone());
    written(destination.write(&batch(&start, &masked)).await);
    assert_eq!(base.lines("select id, name from orders order by id").await, "1 | good\n3 | fine");
}
