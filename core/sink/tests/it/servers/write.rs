//! Rows and cursor go in together, once.

use garam_sink::mysql::Mode::{Append, Upsert};
use garam_stage::Outcome;

use super::Base;
use crate::fixture::{Row, batch, first_cursor, row, rows, schema, written};

at_every_server!(
    preparing_again_finds_the_table_as_it_should_be,
    every_number_of_rows_goes_in_once,
    a_rewound_cursor_repeats_nothing_and_counts_it,
    the_only_new_row_among_repeated_ones_goes_in,
    records_of_several_rows_are_counted_as_records,
    the_last_row_of_a_key_wins_inside_a_batch_and_across_batches,
    an_empty_batch_moves_the_cursor_alone,
    a_rehearsal_leaves_nothing,
    several_pipelines_make_their_tables_at_the_same_moment,
    a_table_can_be_in_a_schema_of_its_own,
);

async fn preparing_again_finds_the_table_as_it_should_be(place: impl Base) {
    for mode in [Append, Upsert] {
        let base = place.another().await;
        base.ready(mode).await;
        base.destination(mode).prepare().await.unwrap();
        assert_eq!(base.cursors().await, [first_cursor()]);
    }
}

async fn every_number_of_rows_goes_in_once<B: Base>(place: B) {
    for &count in B::COUNTS {
        let base = place.another().await;
        let (mut destination, cursor) = base.ready(Append).await;
        let stored = written(destination.write(&batch(&cursor, &rows(0..count))).await);
        let found =
            base.lines("select count(*), count(distinct id), coalesce(max(id), -1) from orders");
        assert_eq!(found.await, format!("{count} | {count} | {}", count - 1));
        assert_eq!(i64::try_from(stored.counters.delivered).unwrap(), count);
    }
}

async fn a_rewound_cursor_repeats_nothing_and_counts_it(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    written(destination.write(&batch(&start, &rows(0..200))).await);
    base.execute("update _garam_cursors set next = 0").await;

    let again = written(destination.write(&batch(&start, &rows(0..200))).await);
    assert_eq!(base.count().await, 200);
    assert_eq!(again.counters.delivered, 0);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&200));
    assert!(again.counters.balanced());
    assert_eq!(base.cursors().await, [again]);

    // Some of them new, in the middle of a statement.
    base.execute("update _garam_cursors set next = 0; delete from orders where id % 7 = 3").await;
    let again = written(destination.write(&batch(&start, &rows(0..205))).await);
    assert_eq!(base.count().await, 205);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&171));
    assert_eq!(again.counters.delivered, 34);
}

async fn the_only_new_row_among_repeated_ones_goes_in(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    written(destination.write(&batch(&start, &rows(0..64))).await);
    base.execute("update _garam_cursors set next = 0; delete from orders where id = 13").await;
    let again = written(destination.write(&batch(&start, &rows(0..64))).await);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&63));
    assert_eq!(again.counters.delivered, 1);
    assert_eq!(base.count().await, 64);
}

async fn records_of_several_rows_are_counted_as_records(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    let mut several = rows(0..3);
    for (id, ordinal) in [(10, 1), (11, 2)] {
        several.push(Row { ordinal, ..row(id, "more", 20) });
    }
    let stored = written(destination.write(&batch(&start, &several)).await);
    assert_eq!(stored.counters.delivered, 3);
    assert_eq!(base.count().await, 5);

    // One row of the third record is missing: that record is delivered, the other two are repeated.
    base.execute("update _garam_cursors set next = 0; delete from orders where id = 10").await;
    let again = written(destination.write(&batch(&start, &several)).await);
    assert_eq!(again.counters.delivered, 1);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&2));
    assert_eq!(base.count().await, 5);
}

async fn the_last_row_of_a_key_wins_inside_a_batch_and_across_batches(base: impl Base) {
    let (mut destination, start) = base.ready(Upsert).await;
    let first = [row(1, "a", 1), row(2, "b", 2), row(1, "c", 3), row(1, "d", 4), row(3, "e", 5)];
    let cursor = written(destination.write(&batch(&start, &first)).await);
    assert_eq!(base.lines("select id, name from orders order by id").await, "1 | d\n2 | b\n3 | e");
    assert_eq!(cursor.counters.delivered, 5);

    let cursor =
        written(destination.write(&batch(&cursor, &[row(2, "f", 6), row(4, "g", 7)])).await);
    let expect = "1 | d | 4\n2 | f | 6\n3 | e | 5\n4 | g | 7";
    assert_eq!(base.lines("select id, name, _position from orders order by id").await, expect);
    assert_eq!(cursor.next.0, 2);
}

async fn an_empty_batch_moves_the_cursor_alone(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    let cursor = written(destination.write(&batch(&start, &[])).await);
    assert_eq!(cursor.next.0, 1);
    assert_eq!(base.cursors().await, [cursor]);
    assert_eq!(base.count().await, 0);
}

async fn a_rehearsal_leaves_nothing(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    let offered = batch(&start, &rows(0..20));
    let outcome = destination.rehearse(&offered).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }));
    assert_eq!(base.count().await, 0);
    assert_eq!(base.cursors().await, [first_cursor()]);
    written(destination.write(&offered).await);
}

async fn several_pipelines_make_their_tables_at_the_same_moment(base: impl Base) {
    let prepared = (0..4u8).map(|i| {
        let mut config = base.config(Append);
        config.table = format!("orders_{i}");
        let mut destination = base.sink(&config).build(&schema()).unwrap();
        tokio::spawn(async move {
            destination.prepare().await.unwrap();
            let mut cursor = first_cursor();
            cursor.key.pipeline.0[0] = i;
            destination.begin(&cursor).await.unwrap();
            for part in 0..5 {
                let ids = part * 50..(part + 1) * 50;
                cursor = written(destination.write(&batch(&cursor, &rows(ids))).await);
            }
        })
    });
    for task in prepared.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    for i in 0..4 {
        assert_eq!(base.lines(&format!("select count(*) from orders_{i}")).await, "250");
    }
    assert_eq!(base.cursors().await.len(), 4);
}

async fn a_table_can_be_in_a_schema_of_its_own(base: impl Base) {
    let other = base.another().await;
    let schema = other.name();
    let mut config = base.config(Append);
    config.table = format!("{schema}.orders");
    let (mut destination, start) = base.ready_with(&config).await;
    let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
    assert_eq!(base.lines(&format!("select count(*) from {schema}.orders")).await, "3");
    assert_eq!(base.sink(&config).read_cursors().await.unwrap(), [cursor]);
    assert_eq!(base.cursors().await, []);
}
