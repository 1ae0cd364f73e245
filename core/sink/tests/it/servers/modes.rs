//! What each mode does with a key that is there already, or is not.

use garam_sink::mysql::Mode::{Ignore, Insert, Update, Upsert};

use super::Base;
use crate::fixture::{batch, refused, row, rows, written};

at_every_server!(
    insert_puts_a_key_aside_that_comes_again,
    ignore_keeps_the_first_row_of_a_key_and_counts_the_others,
    a_refused_first_row_gives_way_to_the_next_of_its_key,
    update_changes_rows_that_are_there_and_counts_the_others,
);

const SHOW: &str = "select id, name from orders order by id";

async fn insert_puts_a_key_aside_that_comes_again<B: Base>(base: B) {
    let (mut destination, start) = base.ready(Insert).await;
    let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
    let offered = [row(7, "new", 70), row(1, "again", 71), row(7, "twice", 72)];
    let found = refused(destination.write(&batch(&cursor, &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
    for (_, detail) in found {
        B::assert_duplicate(&detail);
    }
    assert_eq!(base.count().await, 3);
    let cursor = written(destination.write(&batch(&cursor, &offered[..1])).await);
    assert_eq!(cursor.counters.delivered, 4);
}

async fn ignore_keeps_the_first_row_of_a_key_and_counts_the_others(base: impl Base) {
    let (mut destination, start) = base.ready(Ignore).await;
    let first = [row(1, "a", 1), row(2, "b", 2), row(1, "c", 3)];
    let cursor = written(destination.write(&batch(&start, &first)).await);
    assert_eq!(cursor.counters.delivered, 2);
    let second = [row(2, "d", 4), row(3, "e", 5), row(3, "f", 6), row(1, "g", 7)];
    let cursor = written(destination.write(&batch(&cursor, &second)).await);
    assert_eq!(base.lines(SHOW).await, "1 | a\n2 | b\n3 | e");
    assert_eq!(cursor.counters.delivered, 3);
    assert_eq!(cursor.counters.dropped.get("existing"), Some(&4));
    assert!(cursor.counters.balanced());
    assert_eq!(base.cursors().await, [cursor]);
}

async fn a_refused_first_row_gives_way_to_the_next_of_its_key(base: impl Base) {
    base.ready(Ignore).await;
    base.execute("alter table orders add constraint good check (name not like 'bad%')").await;
    let mut destination = base.destination(Ignore);
    let start = crate::fixture::first_cursor();
    let offered = [row(1, "bad a", 1), row(1, "bad b", 2), row(1, "good", 3)];
    let found = refused(destination.write(&batch(&start, &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 1]);
    let cursor = written(destination.write(&batch(&start, &offered[2..])).await);
    assert_eq!(base.lines(SHOW).await, "1 | good");
    assert_eq!(cursor.counters.delivered, 1);
}

async fn update_changes_rows_that_are_there_and_counts_the_others(base: impl Base) {
    let (mut destination, start) = base.ready(Update).await;
    let mut filler = base.destination(Upsert);
    let mut other = start.clone();
    other.key.partition = 1;
    filler.begin(&other).await.unwrap();
    written(filler.write(&batch(&other, &rows(0..3))).await);

    let offered = [row(1, "one", 100), row(9, "nine", 101), row(9, "nine again", 102)];
    let cursor = written(destination.write(&batch(&start, &offered)).await);
    assert_eq!(base.lines(SHOW).await, "0 | name 0\n1 | one\n2 | name 2");
    assert_eq!(cursor.counters.delivered, 1);
    assert_eq!(cursor.counters.dropped.get("missing"), Some(&2));
}
